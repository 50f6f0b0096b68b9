"""The command line: which commands and options there are, and what becomes of errors.

Each body imports what it needs when it runs, so that a short command stays short and `--help` loads no
gRPC. Exit statuses: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 interrupted; exec
and run pass on the status of what they ran.
"""

from __future__ import annotations

import enum
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

import typer
from typer.core import TyperCommand

from podwright.cli import fake as fake_commands
from podwright.cli import images as image_commands
from podwright.cli.door import Door, run_async
from podwright.cli.output import Document, Format, in_words

if TYPE_CHECKING:
    from podwright.streaming.client import Options

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

PODS, IMAGES, NODE = "Pods", "Images", "Node"
FAKE = "Of the fake engine"
BESIDE, DRY = "Beside the manifests", "Only looking"
app.add_typer(image_commands.app, name="image", rich_help_panel=IMAGES)
app.add_typer(fake_commands.app, name="fake", rich_help_panel=NODE)

Output = Annotated[Format, typer.Option("--output", "-o", help="How lists are written.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only ids, one a line.")]
Container = Annotated[
    str, typer.Argument(metavar="CONTAINER", help="The container, or the pod when it has only one.")
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Containers or pods.")]


class Transport(enum.StrEnum):
    AUTO = "auto"
    WEBSOCKET = "websocket"
    SPDY = "spdy"


STREAMS = "Of the way to a streaming server"
StreamTransport = Annotated[
    Transport,
    typer.Option(help="auto: WebSocket, or SPDY where the server has no v5.", rich_help_panel=STREAMS),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Who signs its certificate, PEM (default: whom the host trusts).",
        rich_help_panel=STREAMS,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Do not verify its certificate.", rich_help_panel=STREAMS),
]
ClientCertificate = Annotated[
    Path | None,
    typer.Option("--cert", metavar="FILE", help="This client's certificate, PEM.", rich_help_panel=STREAMS),
]
ClientKey = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="… and its key.", rich_help_panel=STREAMS),
]
DetachKeys = Annotated[
    str,
    typer.Option(
        metavar="KEYS", help='On a terminal: what leaves. Characters and ctrl-X, with commas; "" is nothing.'
    ),
]


class Kind(enum.StrEnum):
    CONTAINER = "container"
    POD = "pod"
    IMAGE = "image"


class Engine(enum.StrEnum):
    OCI = "oci"
    DOCKER = "docker"
    FAKE = "fake"


class FakeClock(enum.StrEnum):
    SYSTEM = "system"
    VIRTUAL = "virtual"


class Wait(enum.StrEnum):
    READY = "ready"
    COMPLETED = "completed"


class TraceForm(enum.StrEnum):
    WATERFALL = "waterfall"
    JSON = "json"
    OTLP = "otlp-json"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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


class OptionalValues(TyperCommand):
    """`--wait` and `--dry-run` may stand without a value, and never take the next word for theirs."""

    VALUES: ClassVar = {"--wait": "ready", "--dry-run": "text"}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        given = [f"{one}={self.VALUES[one]}" if one in self.VALUES else one for one in args[:end]]
        return super().parse_args(ctx, given + args[end:])


@app.command(rich_help_panel=PODS, cls=OptionalValues)
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
        typer.Option("--filename", "-f", metavar="FILE", help="The same, as kubectl has it."),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Leave them running once they are started; print their ids."),
    ] = False,
    wait: Annotated[
        Wait | None,
        typer.Option(
            metavar="[=ready|completed]",
            help="Detached, but only when all are so. Exits with 124 when time is over.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long to wait: 30s, 2m; 0 is any time (ready: 5m)."),
    ] = None,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--rm",
            help="Whether what has ended stays to be looked at (in the foreground it is removed).",
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
    """Run Pods as a kubelet does: print what their containers write, exit with their status.

    On a terminal the pods are drawn below their output. Ctrl-C stops them gracefully, a second one kills.
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


@app.command(rich_help_panel=PODS)
def describe(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="POD...", help="By name, NAMESPACE/NAME, uid, id, or the beginning of one."),
    ],
    output: Annotated[
        Document, typer.Option("--output", "-o", help="json, yaml: the Pod of the API, with its status.")
    ] = Document.TEXT,
) -> None:
    """Tell all that is known of pods: containers and their states, conditions, volumes, events.

    Values that come from Secrets are not shown. Of pods that other clients run it tells what the CRI knows.
    """
    from podwright.cli import describe as room

    run_async(room.describe(context.obj, names, output))


@app.command(rich_help_panel=PODS)
def events(
    context: typer.Context,
    pod: Annotated[
        str | None, typer.Argument(metavar="[POD]", help="Only of this one.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, until Ctrl-C.")] = False,
    since: Annotated[
        str, typer.Option(help="Only from then on: 10m, 2h, or an RFC 3339 time.", metavar="TIME")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """List what has happened to the pods that podwright runs, the newest last."""
    from podwright.cli import events as room

    run_async(room.events(context.obj, pod, follow=follow, since=since, output=output))


@app.command(rich_help_panel=PODS)
def trace(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A Pod manifest, YAML or JSON; - is standard input.")
    ],
    endpoint: Annotated[
        str | None,
        typer.Option(help="Start it at this CRI server, podwright's or another's.", metavar="ADDRESS"),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, metavar="N", help="Start it so often, and print medians.")
    ] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the pod running.")] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Short calls in rows of their own.")] = False,
    output: Annotated[
        TraceForm, typer.Option("--output", "-o", help="otlp-json: what trace viewers read.")
    ] = TraceForm.WATERFALL,
) -> None:
    """Start a pod, print where the time of its start went, and remove it. Exits with 1 when it failed."""
    from podwright.cli import trace as room

    options = room.Options(endpoint, repeat, keep, every, room.Form(output.value))
    raise typer.Exit(run_async(room.trace(context.obj, file, options)))


@app.command(rich_help_panel=PODS)
def ps(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", "-a", help="Those that do not run, too.")] = False,
    quiet: Quiet = False,
    output: Output = Format.TABLE,
    operations: Annotated[
        bool,
        typer.Option(
            "--operations",
            help="Creates, starts, stops, pulls that are under way instead, with stage and age. With --all"
            " also calls that only look.",
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


@app.command(rich_help_panel=PODS)
def pods(context: typer.Context, quiet: Quiet = False, output: Output = Format.TABLE) -> None:
    """List pods."""
    from podwright.cli import lists

    run_async(lists.pods(context.obj, quiet, output))


@app.command(rich_help_panel=PODS)
def logs(
    context: typer.Context,
    container: Container,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the container has ended.")
    ] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last so many lines.")] = None,
    since: Annotated[
        str, typer.Option(help="Only from then on: 10m, 2h, or an RFC 3339 time.", metavar="TIME")
    ] = "",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="In front of each line, when it was written.")
    ] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the attempt before, when it was restarted.")
    ] = False,
) -> None:
    """Print what a container has written, rotated files included."""
    from podwright.cli import logs as room

    wanted = room.Wanted(follow, tail, since, timestamps, previous)
    run_async(room.logs(context.obj, container, wanted))


@app.command(rich_help_panel=PODS, context_settings={"allow_interspersed_args": False}, no_args_is_help=False)
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
        typer.Option(min=0, help="Seconds it may take; its output comes when it has ended. 0: any time."),
    ] = 0,
    detach_keys: DetachKeys = "ctrl-p,ctrl-q",
    transport: StreamTransport = Transport.AUTO,
    ca: Authority = None,
    insecure: Insecure = False,
    cert: ClientCertificate = None,
    key: ClientKey = None,
) -> None:
    """Run a command in a container, exit with its status: 127 when it is not there, 126 when it cannot run.

    Options of podwright stand before CONTAINER; what follows it is the command's.
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
        options=_streaming(transport, ca, insecure, cert, key),
    )
    try:
        raise typer.Exit(run_async(work))
    except room.Failed as error:
        fail(str(error), error.status)


@app.command(rich_help_panel=PODS)
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
    """Connect with the first process of a container; what it wrote before is in its log.

    Exits with the container's status when it has ended, with 0 when it was left running.
    """
    from podwright.cli import attach as room

    options = _streaming(transport, ca, insecure, cert, key)
    work = room.attach(context.obj, container, stdin=not no_stdin, detach_keys=detach_keys, options=options)
    raise typer.Exit(run_async(work))


@app.command("port-forward", rich_help_panel=PODS)
def port_forward(
    context: typer.Context,
    pod: Annotated[str, typer.Argument(metavar="POD", help="A pod that is ready.")],
    ports: Annotated[
        list[str],
        typer.Argument(
            metavar="[LOCAL:]REMOTE...",
            help="A port here and one of the pod; :REMOTE takes any that is free.",
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
    """Make ports of a pod reachable here, until Ctrl-C. They are its own localhost's."""
    from podwright.cli import forward

    options = _streaming(transport, ca, insecure, cert, key)
    run_async(forward.port_forward(context.obj, pod, ports, address or ["localhost"], options))


@app.command(rich_help_panel=PODS)
def cp(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="What to copy: a path here, or CONTAINER:PATH; - is a tar.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="Where to: the other of the two; - writes a tar.")
    ],
    transport: StreamTransport = Transport.AUTO,
    ca: Authority = None,
    insecure: Insecure = False,
    cert: ClientCertificate = None,
    key: ClientKey = None,
) -> None:
    """Copy files and directories into a container or out of it.

    Into DST when it is a directory, else under its name; DIR/. stands for what is in DIR. Symbolic links are
    copied as links. The container's tar does its part; without one it takes root on the container's host.
    """
    from podwright.cli import copy

    run_async(copy.copy(context.obj, source, target, _streaming(transport, ca, insecure, cert, key)))


@app.command(rich_help_panel=PODS)
def stop(
    context: typer.Context,
    names: Names,
    grace: Annotated[
        int, typer.Option("--time", "-t", min=0, help="Seconds between the stop signal and SIGKILL.")
    ] = 10,
) -> None:
    """Stop containers, or pods with all of theirs."""
    from podwright.cli import act

    run_async(act.stop(context.obj, names, grace))


@app.command(rich_help_panel=PODS)
def rm(
    context: typer.Context,
    names: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Those that run, too.")] = False,
) -> None:
    """Remove containers, or pods with all of theirs."""
    from podwright.cli import act

    run_async(act.rm(context.obj, names, force))


@app.command(rich_help_panel=PODS)
def checkpoint(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A container that runs, or a pod.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The archive to write.")],
    timeout: Annotated[
        int, typer.Option(min=0, help="Seconds that each container may take; 0: as long as it likes.")
    ] = 0,
) -> None:
    """Write a container, or all that run in a pod, to an archive, with CRIU; they run on.

    An archive has the memory of what ran: keep it from others.
    """
    from podwright.cli import checkpoint as room

    run_async(room.checkpoint(context.obj, name, output, timeout))


@app.command(rich_help_panel=PODS)
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
    """Run again what an archive holds, where it was, and print the new id. The images must be there.

    What is restored has the credentials that the archive says: trust it like a program that root starts.
    """
    from podwright.cli import checkpoint as room

    run_async(room.restore(context.obj, file, pod, name, mount or ()))


@app.command(rich_help_panel=PODS)
def inspect(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Containers, pods or images.")],
    kind: Annotated[Kind | None, typer.Option("--type", help="What NAME is, when it fits several.")] = None,
) -> None:
    """Print all that is known of containers, pods or images, as JSON."""
    from podwright.cli import inspect as room

    run_async(room.inspect(context.obj, names, kind))


@app.command(rich_help_panel=PODS)
def explain(
    context: typer.Context,
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|CONTAINER]",
            help="A Pod manifest (- is standard input), or a container that exists; a file goes first.",
            show_default=False,
        ),
    ] = None,
    pod_config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead of a manifest: the pod, as crictl takes it.")
    ] = None,
    container_config: Annotated[str | None, typer.Option(metavar="FILE", help="… and its container.")] = None,
    container: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this container of the pod.")
    ] = None,
    handler: Annotated[
        str | None, typer.Option(metavar="NAME", help="As if the pod asked for this runtime handler.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="As this engine would do it: oci, docker or fake.")
    ] = None,
    diff: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHANGE",
            help="Only what would change, with handler=NAME, engine=NAME, PATH=VALUE (a setting, VALUE in"
            " YAML) or another FILE; may be repeated. Exits like diff: 0 nothing, 1 something, 2 trouble.",
        ),
    ] = None,
    path: Annotated[str, typer.Option(metavar="PREFIX", help="Only what is there, in full.")] = "",
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
        Path | None, typer.Option(metavar="FILE", help="The fake engine's, YAML.", rich_help_panel=FAKE)
    ] = None,
) -> None:
    """Tell what a container would get, or has got, and why. Creates nothing."""
    from podwright.cli import explain as room
    from podwright.errors import PodwrightError

    options = room.Options(
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


@app.command(rich_help_panel=IMAGES)
def images(context: typer.Context, quiet: Quiet = False, output: Output = Format.TABLE) -> None:
    """List images."""
    from podwright.cli import lists

    run_async(lists.images(context.obj, quiet, output))


@app.command(rich_help_panel=IMAGES)
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


@app.command(rich_help_panel=IMAGES)
def rmi(
    context: typer.Context,
    references: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Names, digests or ids.")],
) -> None:
    """Remove images with all their names."""
    from podwright.cli import act

    run_async(act.rmi(context.obj, references))


@app.command(rich_help_panel=NODE)
def serve(
    context: typer.Context,
    log_level: Annotated[LogLevel, typer.Option(help="debug has a line for each call.")] = LogLevel.INFO,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="What runs the containers: oci; docker, a Docker Engine; or fake, in memory, for tests"
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
            min=0, help="Of ids and chances; counts more than the scenario's.", rich_help_panel=FAKE
        ),
    ] = None,
    clock: Annotated[
        FakeClock | None,
        typer.Option(help="The time that pods live by (default: as in the scenario).", rich_help_panel=FAKE),
    ] = None,
) -> None:
    """Serve the CRI at the socket, in the foreground. Containers outlive it, but for a fake node's."""
    from podwright.cli import serve as room

    options = room.FakeOptions(scenario, control, seed, None if clock is None else clock.value)
    door = replace(context.obj, engine=None if engine is None else engine.value)
    room.serve(door, log_level, options, manifests)


@app.command(rich_help_panel=PODS)
def keep(
    context: typer.Context,
    manifests: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of their manifests.")],
    endpoint: Annotated[
        str | None,
        typer.Option(help="Keep them at this CRI server, podwright's or another's.", metavar="ADDRESS"),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="debug has more lines.")] = LogLevel.INFO,
) -> None:
    """Keep a directory's pods at a server that runs already, as `serve --manifests` does at its own."""
    from podwright.cli import keep as room

    room.keep(context.obj, manifests, endpoint, log_level)


@app.command(rich_help_panel=NODE)
def status(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Print whether pods can run, and with which handlers. Exits with 1 when they cannot."""
    from podwright.cli import node

    raise typer.Exit(0 if run_async(node.status(context.obj, output)) else 1)


@app.command(rich_help_panel=NODE)
def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Remove what is orphaned.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Look at what this host can do, and at what is left over on it. Exits with 1 when pods cannot run."""
    from podwright.cli import doctor as room

    raise typer.Exit(0 if run_async(room.doctor(context.obj, fix, output)) else 1)


@app.command(rich_help_panel=NODE)
def version(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Print the versions of this program and of the server."""
    from podwright.cli import node

    run_async(node.version(context.obj, output))


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


def _streaming(
    transport: Transport, ca: Path | None, insecure: bool, cert: Path | None, key: Path | None
) -> Options:
    from podwright.streaming import client
    from podwright.streaming.client_http import Tls

    return client.Options(client.Transport(transport.value), Tls(ca, insecure, cert, key))


def fail(message: str, status: int = 1) -> NoReturn:
    """End with one line on standard error."""
    print(f"podwright: {message}", file=sys.stderr)
    sys.exit(status)


def _command(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "podwright"


def _silence_stdout() -> None:
    """Nobody reads on (`podwright ps | head -1`): the interpreter's last flush must not complain."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
