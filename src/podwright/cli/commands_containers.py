"""Commands for containers, several of which take pods as well: what they take, and which room does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from podwright.cli.door import run_async
from podwright.cli.options import (
    Authority,
    ClientCertificate,
    ClientKey,
    Container,
    DetachKeys,
    Insecure,
    Names,
    Output,
    Quiet,
    StreamTransport,
    Transport,
    streaming,
)
from podwright.cli.output import Format, fail

app = typer.Typer()
PANEL = "Containers"


@app.command(rich_help_panel=PANEL)
def ps(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", "-a", help="Also those that do not run.")] = False,
    quiet: Quiet = False,
    output: Output = Format.TABLE,
    operations: Annotated[
        bool,
        typer.Option(
            "--operations",
            help="Instead: creates, starts, stops and pulls that are under way, with stage and age. With"
            " --all also calls that only look.",
        ),
    ] = False,
) -> None:
    """List containers."""
    if operations:
        from podwright.cli import operations as room

        if quiet:
            raise typer.BadParameter("operations have no ids", param_hint="--quiet")
        run_async(room.operations(context.obj, every, output))
        return
    from podwright.cli import lists

    run_async(lists.ps(context.obj, every, quiet, output))


@app.command(rich_help_panel=PANEL)
def logs(
    context: typer.Context,
    container: Container,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the container has ended."),
    ] = False,
    tail: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only the last N lines.")] = None,
    since: Annotated[
        str, typer.Option(help="Only from then on: 10m, 2h, or an RFC 3339 time.", metavar="TIME")
    ] = "",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Begin each line with the time it was written.")
    ] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="What the attempt before the last restart has written.")
    ] = False,
) -> None:
    """Print what a container has written, rotated files included.

    With -f exits with 1 when the server goes away meanwhile.
    """
    from podwright.cli import logs as room

    wanted = room.Wanted(follow, tail, since, timestamps, previous)
    run_async(room.logs(context.obj, container, wanted))


@app.command(rich_help_panel=PANEL, context_settings={"allow_interspersed_args": False})
def exec(
    context: typer.Context,
    container: Container,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGUMENT]...", help="Run as it is, without a shell.")
    ],
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Pass standard input on to the command.")
    ] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give the command a terminal.")] = False,
    timeout: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="How long it may take; its output comes when it has ended. 0: any time.",
        ),
    ] = 0,
    detach_keys: DetachKeys = "ctrl-p,ctrl-q",
    transport: StreamTransport = Transport.AUTO,
    ca: Authority = None,
    insecure: Insecure = False,
    cert: ClientCertificate = None,
    key: ClientKey = None,
) -> None:
    """Run a command in a container, and exit with its status.

    127 when the command is not there, 126 when it cannot run. Options of
    podwright stand before CONTAINER; what follows it is the command's.
    """
    from podwright.cli import exec as room

    work = room.exec(
        context.obj,
        container,
        command,
        interactive=interactive,
        tty=tty,
        timeout=timeout,
        detach_keys=detach_keys,
        options=streaming(transport, ca, insecure, cert, key),
    )
    try:
        raise typer.Exit(run_async(work))
    except room.Failed as error:
        fail(str(error), error.status)


@app.command(rich_help_panel=PANEL)
def attach(
    context: typer.Context,
    container: Container,
    no_stdin: Annotated[
        bool, typer.Option("--no-stdin", help="Do not pass standard input on to the container.")
    ] = False,
    detach_keys: DetachKeys = "ctrl-p,ctrl-q",
    transport: StreamTransport = Transport.AUTO,
    ca: Authority = None,
    insecure: Insecure = False,
    cert: ClientCertificate = None,
    key: ClientKey = None,
) -> None:
    """Connect with the first process of a container.

    What it wrote before is in its log. Exits with the container's status when it
    has ended, with 0 when it was left running.
    """
    from podwright.cli import attach as room

    options = streaming(transport, ca, insecure, cert, key)
    work = room.attach(context.obj, container, stdin=not no_stdin, detach_keys=detach_keys, options=options)
    raise typer.Exit(run_async(work))


@app.command(rich_help_panel=PANEL)
def cp(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="What to copy: a path here, or CONTAINER:PATH; - reads a tar."),
    ],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="Where to: CONTAINER:PATH, or a path here; - writes a tar.")
    ],
    transport: StreamTransport = Transport.AUTO,
    ca: Authority = None,
    insecure: Insecure = False,
    cert: ClientCertificate = None,
    key: ClientKey = None,
) -> None:
    """Copy files and directories into a container or out of it.

    Into DST when it is a directory, else under its name; DIR/. stands for what is
    in DIR. Symbolic links are copied as links. The container's tar does its part;
    without one it takes root on the container's host.
    """
    from podwright.cli import copy

    run_async(copy.copy(context.obj, source, target, streaming(transport, ca, insecure, cert, key)))


@app.command(rich_help_panel=PANEL)
def stop(
    context: typer.Context,
    names: Names,
    grace: Annotated[
        int,
        typer.Option("--time", "-t", metavar="SECONDS", min=0, help="Between the stop signal and SIGKILL."),
    ] = 10,
) -> None:
    """Stop containers, or pods with all of theirs."""
    from podwright.cli import act

    run_async(act.stop(context.obj, names, grace))


@app.command(rich_help_panel=PANEL)
def rm(
    context: typer.Context,
    names: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also those that run.")] = False,
) -> None:
    """Remove containers, or pods with all of theirs."""
    from podwright.cli import act

    run_async(act.rm(context.obj, names, force))


@app.command(rich_help_panel=PANEL)
def checkpoint(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A container that runs, or a pod.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The archive to write.")],
    timeout: Annotated[
        int,
        typer.Option(metavar="SECONDS", min=0, help="How long each container may take; 0: any time."),
    ] = 0,
) -> None:
    """Write a container, or all of a pod, to an archive.

    With CRIU; of a pod, all containers that run. They run on. An archive has the
    memory of what ran: keep it from others.
    """
    from podwright.cli import checkpoint as room

    run_async(room.checkpoint(context.obj, name, output, timeout))


@app.command(rich_help_panel=PANEL)
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of a pod or a container.")],
    pod: Annotated[
        str | None, typer.Option(metavar="POD", help="The pod that a container is restored in.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another name for the pod, or the container.")
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PATH", help="A mount that the container had; may be repeated."),
    ] = None,
) -> None:
    """Run again what an archive of `checkpoint` holds, where it was.

    Prints the new id. The images must be there. What is restored has the
    credentials that the archive says: trust it like a program that root starts.
    """
    from podwright.cli import checkpoint as room

    run_async(room.restore(context.obj, file, pod, name, mount or ()))
