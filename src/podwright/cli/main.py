"""The command line: the global options, where the commands are declared, and what becomes of errors.

Each body imports what it needs when it runs, so that a short command stays short and `--help` loads no
gRPC. Exit statuses: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 interrupted; exec
and run pass on the status of what they ran.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from podwright.cli import commands_containers, commands_images, commands_look, commands_node, commands_pods
from podwright.cli.door import Door
from podwright.cli.output import fail, in_words

app = typer.Typer(
    name="podwright",
    help="Kubernetes pods on this machine: a CRI server, a pod runner, and a look at what runs.\n\n"
    "Commands ask the server at the socket when one answers; without a server they work on the state of "
    "this machine itself. Containers and pods are named by id, by the beginning of an id, by name, or as "
    "POD/CONTAINER.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for subject in (commands_pods, commands_containers, commands_look, commands_images, commands_node):
    app.add_typer(subject.app)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration file (default /etc/podwright/config.toml).", metavar="FILE"),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(help="Persistent state (default /var/lib/podwright).", metavar="DIR"),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Volatile state (default /run/podwright).", metavar="DIR")
    ] = None,
    socket: Annotated[
        str | None,
        typer.Option(
            "--socket",
            "--endpoint",
            help="The server's socket, a path or unix:///path (default podwright.sock in --run).",
            metavar="ADDRESS",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from podwright import __version__

        print(f"podwright {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    if "TRACEPARENT" in os.environ and context.invoked_subcommand != "serve":
        from podwright.traceparent import adopt_environment

        adopt_environment()
    context.obj = Door(config, root, run, socket)


def main() -> None:
    """The `podwright` program."""
    from podwright.errors import PodwrightError

    try:
        status = app(standalone_mode=False, prog_name="podwright")
    except typer.TyperException as error:
        fail(f"{error.format_message().rstrip('.')} (see `{_command(error)} --help`)", 2)
    except PodwrightError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _silence_stdout()
        sys.exit(1)
    except OSError as error:
        fail(in_words(error))
    sys.exit(status if isinstance(status, int) else 0)


def _command(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "podwright"


def _silence_stdout() -> None:
    """Nobody reads on (`podwright ps | head -1`): the interpreter's last flush must not complain."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
