"""Commands that run pods and reach them: what they take, and which room does it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from podwright.cli.door import run_async
from podwright.cli.options import (
    Authority,
    ClientCertificate,
    ClientKey,
    Insecure,
    LogLevel,
    Output,
    Quiet,
    StreamTransport,
    Transport,
    streaming,
)
from podwright.cli.output import Document, Format

app = typer.Typer()
PANEL = "Pods"
BESIDE, DRY = "Beside the manifests", "Without running"


class Wait(enum.StrEnum):
    READY = "ready"
    COMPLETED = "completed"


class OptionalValues(TyperCommand):
    """`--wait` and `--dry-run` may stand without a value, and never take the next word for theirs."""

    VALUES: ClassVar = {"--wait": "ready", "--dry-run": "text"}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        given = [f"{one}={self.VALUES[one]}" if one in self.VALUES else one for one in args[:end]]
        return super().parse_args(ctx, given + args[end:])


@app.command(rich_help_panel=PANEL, cls=OptionalValues)
def run(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE...",
            help="Manifests, YAML or JSON: Pods, workloads, what they need. A directory stands for its"
            " manifests, - is standard input.",
        ),
    ] = None,
    more: Annotated[
        list[Path] | None,
        typer.Option(
            "--filename", "-f", metavar="FILE", help="Manifests, as kubectl has it; may be repeated."
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Leave the pods running once they are started; print their ids."),
    ] = False,
    wait: Annotated[
        Wait | None,
        typer.Option(
            metavar="[=ready|completed]",
            help="Leave them when all are ready, or completed. Exits with 124 when --timeout is over.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long --wait may take: 30s, 2m; 0: any time (default: 5m for ready)."
        ),
    ] = None,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--rm",
            help="Whether what has ended stays to be looked at (default: it goes, unless detached).",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but what the containers write.")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Run them at this CRI server, podwright's or another's.", metavar="ADDRESS"),
    ] = None,
    configmap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=…",
            help="A ConfigMap: a file, a directory, or KEY=VALUE; may be repeated.",
            rich_help_panel=BESIDE,
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=…", help="A Secret, likewise.", rich_help_panel=BESIDE),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM=PATH",
            help="A directory or file of this host for a persistent volume claim, or for a volume.",
            rich_help_panel=BESIDE,
        ),
    ] = None,
    dry_run: Annotated[
        Document | None,
        typer.Option(
            "--dry-run",
            metavar="[=text|json|yaml]",
            help="Print the CRI calls that would be made; change nothing.",
            rich_help_panel=DRY,
        ),
    ] = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print the values of Secrets, too.", rich_help_panel=DRY)
    ] = False,
) -> None:
    """Run Pods as a kubelet does, and print what they write.

    Exits with their status. On a terminal the pods are drawn below their output.
    Ctrl-C stops them gracefully, a second one kills.
    """
    from podwright.cli.run_inputs import Inputs

    inputs = Inputs([*(files or ()), *(more or ())], configmap or (), secret or (), volume or ())
    if not inputs.files:
        raise typer.BadParameter(
            "what shall run? give a manifest, or - for standard input", param_hint="FILE"
        )
    if dry_run is not None:
        from podwright.cli import dry_run as room

        run_async(room.dry_run(inputs, context.obj, dry_run, endpoint=endpoint, show_secrets=show_secrets))
        return
    from podwright.cli.output import seconds
    from podwright.cli.run import Options, run_command

    options = Options(
        endpoint=endpoint,
        keep=keep,
        detach=detach,
        wait=None if wait is None else wait.value,
        timeout=None if timeout is None else seconds("--timeout", timeout),
        quiet=quiet,
    )
    raise typer.Exit(run_command(inputs, context.obj, options))


@app.command(rich_help_panel=PANEL)
def pods(context: typer.Context, quiet: Quiet = False, output: Output = Format.TABLE) -> None:
    """List pods."""
    from podwright.cli import lists

    run_async(lists.pods(context.obj, quiet, output))


@app.command("port-forward", rich_help_panel=PANEL)
def port_forward(
    context: typer.Context,
    pod: Annotated[str, typer.Argument(metavar="POD", help="A pod that is ready.")],
    ports: Annotated[
        list[str],
        typer.Argument(
            metavar="[LOCAL:]REMOTE...",
            help="A port here and one of the pod; :REMOTE takes any here that is free.",
        ),
    ],
    address: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Where to listen (default localhost); may be repeated."),
    ] = None,
    transport: StreamTransport = Transport.AUTO,
    ca: Authority = None,
    insecure: Insecure = False,
    cert: ClientCertificate = None,
    key: ClientKey = None,
) -> None:
    """Make ports of a pod reachable here, until Ctrl-C.

    They are those of its own localhost. Exits with 1 when the pod has ended, or the server has.
    """
    from podwright.cli import forward

    options = streaming(transport, ca, insecure, cert, key)
    run_async(forward.port_forward(context.obj, pod, ports, address or ["localhost"], options))


@app.command(rich_help_panel=PANEL)
def keep(
    context: typer.Context,
    manifests: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of the pods' manifests.")],
    endpoint: Annotated[
        str | None,
        typer.Option(help="Keep them at this CRI server, podwright's or another's.", metavar="ADDRESS"),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much is told.")] = LogLevel.INFO,
) -> None:
    """Keep a directory's pods at a server that runs already.

    As `serve --manifests` does at its own.
    """
    from podwright.cli import keep as room

    room.keep(context.obj, manifests, endpoint, log_level)
