"""Commands for the node and its server: what they take, and which room does it."""

from __future__ import annotations

import enum
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from podwright.cli import fake
from podwright.cli.door import run_async
from podwright.cli.options import FAKE, LogLevel, Output
from podwright.cli.output import Format

app = typer.Typer()
PANEL = "Node"

app.add_typer(fake.app, name="fake", rich_help_panel=PANEL)


class Engine(enum.StrEnum):
    OCI = "oci"
    CONTAINERD = "containerd"
    DOCKER = "docker"
    FAKE = "fake"


class FakeClock(enum.StrEnum):
    SYSTEM = "system"
    VIRTUAL = "virtual"


@app.command(rich_help_panel=PANEL)
def serve(
    context: typer.Context,
    log_level: Annotated[LogLevel, typer.Option(help="How much is told; debug: every call.")] = LogLevel.INFO,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="What runs the containers; containerd and docker: such a daemon, fake: in memory, for tests"
            " (default: as configured).",
        ),
    ] = None,
    manifests: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the pods of this directory's manifests, as a kubelet keeps static pods"
            " (default: as configured).",
        ),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What happens on the node, YAML.", rich_help_panel=FAKE),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The control API's socket (default: beside the CRI's, *.control.sock).",
            rich_help_panel=FAKE,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Where ids and chances come from; goes before the scenario's.",
            rich_help_panel=FAKE,
        ),
    ] = None,
    clock: Annotated[
        FakeClock | None,
        typer.Option(help="The clock that pods live by (default: as in the scenario).", rich_help_panel=FAKE),
    ] = None,
) -> None:
    """Serve the CRI at the socket, in the foreground.

    Containers outlive it, but for a fake node's.
    """
    from podwright.cli import serve as room

    options = room.FakeOptions(scenario, control, seed, None if clock is None else clock.value)
    door = replace(context.obj, engine=None if engine is None else engine.value)
    room.serve(door, log_level, options, manifests)


@app.command(rich_help_panel=PANEL)
def status(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Print whether pods can run, and with which handlers.

    Exits with 1 when they cannot.
    """
    from podwright.cli import node

    raise typer.Exit(0 if run_async(node.status(context.obj, output)) else 1)


@app.command(rich_help_panel=PANEL)
def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Remove what is orphaned.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Look at what this host can do, and at what is left over on it.

    Exits with 1 when pods cannot run.
    """
    from podwright.cli import doctor as room

    raise typer.Exit(0 if run_async(room.doctor(context.obj, fix, output)) else 1)


@app.command(rich_help_panel=PANEL)
def version(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Print the versions of this program and of the server."""
    from podwright.cli import node

    run_async(node.version(context.obj, output))
