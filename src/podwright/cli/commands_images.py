"""Commands for images: what they take, and which room does it."""

from __future__ import annotations

from typing import Annotated

import typer

from podwright.cli import images as more
from podwright.cli.door import run_async
from podwright.cli.options import Output, Quiet
from podwright.cli.output import Format

app = typer.Typer()
PANEL = "Images"

app.add_typer(more.app, name="image", rich_help_panel=PANEL)


@app.command(rich_help_panel=PANEL)
def images(context: typer.Context, quiet: Quiet = False, output: Output = Format.TABLE) -> None:
    """List images."""
    from podwright.cli import lists

    run_async(lists.images(context.obj, quiet, output))


@app.command(rich_help_panel=PANEL)
def pull(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="A registry's reference, or oci:DIR, oci-archive:FILE, docker-archive:FILE."
        ),
    ],
    creds_stdin: Annotated[
        bool,
        typer.Option(
            "--creds-stdin", help="Read user:password from standard input (or set PODWRIGHT_CREDS)."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the id.")] = False,
) -> None:
    """Pull an image, show how far it is, and print its id."""
    from podwright.cli import pull as room

    run_async(room.pull(context.obj, reference, creds_stdin=creds_stdin, quiet=quiet))


@app.command(rich_help_panel=PANEL)
def rmi(
    context: typer.Context,
    references: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Names, digests or ids.")],
) -> None:
    """Remove images with all their names."""
    from podwright.cli import act

    run_async(act.rmi(context.obj, references))
