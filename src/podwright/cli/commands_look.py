"""Commands that tell why and how: what they take, and which room does it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from podwright.cli.door import run_async
from podwright.cli.options import FAKE, Output
from podwright.cli.output import Document, Format, fail

app = typer.Typer()
PANEL = "Look inside"


class Kind(enum.StrEnum):
    CONTAINER = "container"
    POD = "pod"
    IMAGE = "image"


class TraceForm(enum.StrEnum):
    WATERFALL = "waterfall"
    JSON = "json"
    OTLP = "otlp-json"


@app.command(rich_help_panel=PANEL)
def describe(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="POD...", help="By name, NAMESPACE/NAME, uid, id, or the beginning of one."),
    ],
    output: Annotated[
        Document, typer.Option("--output", "-o", help="json, yaml: the API's Pod, with its status.")
    ] = Document.TEXT,
) -> None:
    """Describe pods: containers, conditions, volumes, events.

    Values that come from Secrets are not shown. Of pods that other clients run it
    tells what the CRI knows.
    """
    from podwright.cli import describe as room

    run_async(room.describe(context.obj, names, output))


@app.command(rich_help_panel=PANEL)
def events(
    context: typer.Context,
    pod: Annotated[
        str | None,
        typer.Argument(metavar="[POD]", help="Only what happened to this one.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, until Ctrl-C.")] = False,
    since: Annotated[
        str, typer.Option(help="Only from then on: 10m, 2h, or an RFC 3339 time.", metavar="TIME")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """List what has happened to pods, the newest last.

    To those that podwright runs.
    """
    from podwright.cli import events as room

    run_async(room.events(context.obj, pod, follow=follow, since=since, output=output))


@app.command(rich_help_panel=PANEL)
def inspect(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Containers, pods or images.")],
    kind: Annotated[Kind | None, typer.Option("--type", help="What NAME is, when it fits several.")] = None,
) -> None:
    """Print containers, pods or images in full, as JSON."""
    from podwright.cli import inspect as room

    run_async(room.inspect(context.obj, names, kind))


@app.command(rich_help_panel=PANEL)
def explain(
    context: typer.Context,
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|CONTAINER]",
            help="A Pod manifest (- is standard input), or a container that exists; where there are both, the"
            " file is meant.",
            show_default=False,
        ),
    ] = None,
    pod_config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead of a manifest: the pod, as crictl takes it …")
    ] = None,
    container_config: Annotated[str | None, typer.Option(metavar="FILE", help="… and its container.")] = None,
    container: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this container of the pod.")
    ] = None,
    handler: Annotated[
        str | None, typer.Option(metavar="NAME", help="As if the pod asked for this runtime handler.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As this engine would do it: oci, containerd, docker or fake."),
    ] = None,
    diff: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHANGE",
            help="Only what would change, with handler=NAME, engine=NAME, PATH=VALUE (a setting, VALUE in"
            " YAML) or another FILE; may be repeated. Exits like diff: 0 nothing, 1 something, 2 trouble.",
        ),
    ] = None,
    path: Annotated[
        str, typer.Option(metavar="PREFIX", help="Only the settings at and below it, in full.")
    ] = "",
    wide: Annotated[bool, typer.Option("--wide", "-w", help="Cut nothing to the terminal's width.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The spec alone, as it would be written.")] = False,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="How the table is written.")
    ] = Format.TABLE,
    image_config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Configuration of the images (skopeo inspect --config), JSON."),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What happens on the node, YAML.", rich_help_panel=FAKE),
    ] = None,
) -> None:
    """Tell what a container would get, or has got, and why.

    Creates nothing.
    """
    from podwright.cli import explain as room
    from podwright.cli.explain_options import Options
    from podwright.errors import PodwrightError

    options = Options(
        subject=subject,
        pod_config=pod_config,
        container_config=container_config,
        container=container,
        handler=handler,
        engine=engine,
        scenario=scenario,
        image_config=image_config,
        diff=diff or (),
        json=json,
        output=output,
        wide=wide,
        path=path,
    )
    try:
        status = run_async(room.explain(context.obj, options))
    except PodwrightError as error:
        if not diff:
            raise
        fail(str(error), 2)
    raise typer.Exit(status)


@app.command(rich_help_panel=PANEL)
def trace(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A Pod manifest, YAML or JSON; - is standard input.")
    ],
    endpoint: Annotated[
        str | None,
        typer.Option(help="Start it at this CRI server, podwright's or another's.", metavar="ADDRESS"),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Start it N times, and print medians.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the pod running.")] = False,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Also short calls in rows of their own.")
    ] = False,
    output: Annotated[
        TraceForm, typer.Option("--output", "-o", help="otlp-json: what trace viewers read.")
    ] = TraceForm.WATERFALL,
) -> None:
    """Start a pod, and print where the time of its start went.

    The pod is removed then. Exits with 1 when it could not be started.
    """
    from podwright.cli import trace as room

    options = room.Options(endpoint, repeat, keep, every, room.Form(output.value))
    raise typer.Exit(run_async(room.trace(context.obj, file, options)))
