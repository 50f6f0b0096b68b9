"""image: what keeps a digest, pruning, import and export. Lists, pulls and removals are plain commands."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from podwright.cli.door import run_async
from podwright.cli.output import Format

if TYPE_CHECKING:
    from podwright.api import Node
    from podwright.cli.door import Door
    from podwright.wire import podwright_pb2 as own

app = typer.Typer(help="Import, export and prune images; tell what keeps a digest.")

Output = Annotated[Format, typer.Option("--output", "-o", help="How it is written.")]

CONFIG = "Images of a root file system"
PRESENT = "-"


class Form(enum.StrEnum):
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"


@app.command()
def why(
    context: typer.Context,
    digest: Annotated[
        str,
        typer.Argument(
            metavar="DIGEST", help="Of a blob, a layer or an image, also its beginning; or an image's name."
        ),
    ],
    output: Output = Format.TABLE,
) -> None:
    """Tell what a digest is in the image store, and what keeps it there."""
    run_async(_why(context.obj, digest, output))


@app.command()
def prune(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, only tell what would go.")
    ] = False,
    untagged: Annotated[bool, typer.Option("--untagged", help="Only images without a tag.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Remove the images that no container uses.

    And what interrupted pulls left; pinned images stay.
    """
    run_async(_prune(context.obj, dry_run, untagged, output))


@app.command("import")
def import_(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A root directory or a tar of one, or images in an OCI layout, an OCI archive or a Docker"
            " archive. What it is, is found out, or told with oci:, oci-archive:, docker-archive: or dir: in"
            " front, and after another colon which image of several.",
        ),
    ],
    reference: Annotated[
        str,
        typer.Argument(
            metavar="[IMAGE]",
            help="The image's name, like hello:1 (default: as it is called there; a root has no name).",
        ),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='The "config" of an OCI image configuration, JSON; the other options count more.',
            rich_help_panel=CONFIG,
        ),
    ] = None,
    cmd: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help='Default command: words, or a JSON list ["sh","-c","…"].',
            rich_help_panel=CONFIG,
        ),
    ] = "",
    entrypoint: Annotated[
        str, typer.Option(metavar="WORDS", help="Entry point, written like --cmd.", rich_help_panel=CONFIG)
    ] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A variable; may be repeated.", rich_help_panel=CONFIG),
    ] = None,
    user: Annotated[
        str, typer.Option(metavar="USER", help="User or user:group.", rich_help_panel=CONFIG)
    ] = "",
    workdir: Annotated[
        str, typer.Option(metavar="DIR", help="Working directory.", rich_help_panel=CONFIG)
    ] = "",
) -> None:
    """Make images of what is on this host, and print their ids."""
    settings = {
        "Cmd": _argv("--cmd", cmd),
        "Entrypoint": _argv("--entrypoint", entrypoint),
        "Env": env,
        "User": user,
        "WorkingDir": workdir,
    }
    _require_pairs(env or [])
    run_async(_import(context.obj, source, reference, config, settings))


@app.command()
def export(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="IMAGE", help="A name, digest or id.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A path, also written oci:DIR[:NAME], oci-archive:FILE or docker-archive:FILE.",
        ),
    ],
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            metavar="FORM",
            help="oci, oci-archive or docker-archive, when TARGET does not say it (default: oci-archive).",
        ),
    ] = None,
) -> None:
    """Write an image to a file or directory, and print its id.

    The OCI forms keep every digest, Docker's the id.
    """
    run_async(_export(context.obj, reference, _with_scheme(target, form)))


async def _why(door: Door, digest: str, output: Format) -> None:
    from podwright.cli.output import json, plain, size, table
    from podwright.wire import podwright_pb2 as own

    async with door.cri() as runtime:
        answer = await cast("Node", runtime).explain_blob(own.ExplainBlobRequest(digest=digest))
    if output is Format.JSON:
        json(plain(answer))
        return
    print(f"{answer.digest}: {answer.kind}, {size(answer.bytes)}{answer.path and f', {answer.path}'}")
    if answer.keepers:
        print()
        table(
            ("KEPT BY", "NAME", "HOW"),
            [(keeper.kind, keeper.name or PRESENT, keeper.how) for keeper in answer.keepers],
        )
    else:
        print("nothing keeps it")


async def _prune(door: Door, dry_run: bool, untagged: bool, output: Format) -> None:
    from podwright.cli.output import json, plain, short, size, table
    from podwright.wire import podwright_pb2 as own

    request = own.PruneImagesRequest(dry_run=dry_run, untagged_only=untagged)
    async with door.cri() as runtime:
        answer = await cast("Node", runtime).prune_images(request)
    if output is Format.JSON:
        json(plain(answer))
        return
    rows = [(short(image.id), _name_of(image), size(image.bytes)) for image in answer.images]
    rows += [(short(digest), "(of an interrupted pull)", PRESENT) for digest in answer.blobs]
    if rows:
        table(("ID", "IMAGE", "SIZE"), rows)
        print()
    print(f"{size(answer.bytes)} in {answer.inodes} files {'would be freed' if dry_run else 'freed'}")


async def _import(
    door: Door, source: str, reference: str, config: Path | None, settings: dict[str, Any]
) -> None:
    import msgspec

    from podwright.images.references import with_absolute_path
    from podwright.wire import podwright_pb2 as own

    section = _read_config(config) if config is not None else {}
    section |= {key: value for key, value in settings.items() if value}
    request = own.ImportImageRequest(
        source=with_absolute_path(source, str(Path.cwd())),
        reference=reference,
        config=msgspec.json.encode(section) if section else b"",
    )
    async with door.cri() as runtime:
        answer = await cast("Node", runtime).import_image(request)
    for id in answer.image_refs:
        print(id)


async def _export(door: Door, reference: str, target: str) -> None:
    from podwright.images.references import with_absolute_path
    from podwright.wire import podwright_pb2 as own

    request = own.ExportImageRequest(image=reference, target=with_absolute_path(target, str(Path.cwd())))
    async with door.cri() as runtime:
        print((await cast("Node", runtime).export_image(request)).image_ref)


def _name_of(image: own.PrunedImage) -> str:
    return ", ".join(name for name in image.names if "@" not in name) or next(iter(image.names), PRESENT)


def _with_scheme(target: str, form: Form | None) -> str:
    from podwright.errors import InvalidArgument

    scheme, colon, _ = target.partition(":")
    if not colon or scheme not in tuple(Form):
        # As it stands: a path with a colon in it is still one path.
        return f"{(form or Form.OCI_ARCHIVE).value}:{target}"
    if form is not None and form.value != scheme:
        raise InvalidArgument("--format", f"{form.value} contradicts {target!r}")
    return target


def _read_config(file: Path) -> dict[str, Any]:
    import msgspec

    from podwright.errors import InvalidArgument

    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidArgument("--config", f"{file} is no JSON object: {error}") from error


def _require_pairs(env: Sequence[str]) -> None:
    from podwright.errors import InvalidArgument

    for entry in env:
        if not entry.partition("=")[1]:
            raise InvalidArgument("--env", f"{entry!r} is not NAME=VALUE")


def _argv(option: str, text: str) -> list[str]:
    """A command as an option has it: a JSON list, or words as a shell would split them."""
    if text.startswith("["):
        import msgspec

        from podwright.errors import InvalidArgument

        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError as error:
            raise InvalidArgument(option, f"{text!r} is no JSON list of strings: {error}") from error
    import shlex

    return shlex.split(text)
