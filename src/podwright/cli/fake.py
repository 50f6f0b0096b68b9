"""fake: steering and watching a fake node from the outside, through the control socket of its server."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podwright.cli.output import Format

if TYPE_CHECKING:
    from podwright.testing.client import Client

app = typer.Typer(
    help="Steer and watch a fake node: `podwright serve --engine fake`.\n\n"
    "The server is found at --socket (before `fake`), its control socket beside it.",
)

Output = Annotated[Format, typer.Option("--output", "-o", help="How it is written.")]


class When(enum.StrEnum):
    BEFORE = "before"
    AFTER = "after"


class Containers(enum.StrEnum):
    KEEP = "keep"
    LOSE = "lose"


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    control: Annotated[
        str | None,
        typer.Option(help="The control socket, when the server has another one.", metavar="PATH"),
    ] = None,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    from podwright.server.endpoint import socket_path
    from podwright.testing.client import Client, beside

    door = context.obj
    context.obj = Client(socket_path(control) if control else beside(socket_path(door.config().listen)))


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML; - is standard input.", allow_dash=True)],
    change: Annotated[
        bool, typer.Option("--change", help="Only the parts that FILE has; the others stay.")
    ] = False,
) -> None:
    """Replace the scenario, or parts of it."""
    import sys

    from podwright.engines.fake.documents import read_yaml

    standard = str(file) == "-"
    text = sys.stdin.buffer.read() if standard else file.read_bytes()
    read_yaml(text, "standard input" if standard else str(file))  # the server would not know whose it is
    _client(context).call("PATCH" if change else "PUT", "/v1/scenario", text)


@app.command()
def scenario(context: typer.Context) -> None:
    """Print the scenario, without what is as by default."""
    from podwright.engines.fake.documents import write_yaml

    print(write_yaml(_client(context).get("/v1/scenario")), end="")


@app.command()
def calls(
    context: typer.Context,
    rpc: Annotated[str, typer.Option(help="Only calls of these rpcs: Create*.", metavar="PATTERN")] = "*",
    pod: Annotated[str, typer.Option(help="Only those about this pod.", metavar="PATTERN")] = "",
    container: Annotated[str, typer.Option(help="Only those about this container.", metavar="PATTERN")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most N, the newest.")] = 1000,
    clear: Annotated[bool, typer.Option("--clear", help="Print nothing, but forget all calls.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List the calls that the node got, oldest first.

    -o json has their requests and responses.
    """
    from podwright.cli.output import json, table

    client = _client(context)
    if clear:
        client.delete("/v1/calls")
        return
    found = client.get(
        "/v1/calls",
        rpc=rpc,
        pod=pod,
        container=container,
        failed=failed or None,
        limit=limit,
        messages=output is Format.JSON,
    )
    if output is Format.JSON:
        json(found)
        return
    table(
        ("NUMBER", "TIME", "RPC", "SUBJECT", "MS", "OUTCOME"),
        [
            (
                str(call["number"]),
                _clock_time(call["started"]),
                call["rpc"],
                call["title"],
                f"{call['milliseconds']:.1f}" if call["ended"] else "-",
                call["outcome"],
            )
            for call in found["calls"]
        ],
    )


@app.command()
def pulls(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List which images were pulled, and by whom."""
    from podwright.cli.output import json, table

    found = _client(context).get("/v1/pulls")["pulls"]
    if output is Format.JSON:
        json(found)
        return
    table(
        ("TIME", "IMAGE", "USER", "OUTCOME"),
        [(_clock_time(one["time"]), one["image"], _user(one), one["outcome"]) for one in found],
    )


@app.command()
def faults(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List the faults that can still strike."""
    from podwright.cli.output import json, table

    found = _client(context).get("/v1/faults")["faults"]
    if output is Format.JSON:
        json(found)
        return
    table(
        ("ID", "ON", "WHAT", "FOR", "STRUCK"),
        [
            (
                str(one["id"]),
                one["fault"]["on"],
                _what(one["fault"]),
                _whom(one["fault"].get("match", {})),
                f"{one['struck']}/{one['fault']['count']}"
                if one["fault"].get("count")
                else str(one["struck"]),
            )
            for one in found
        ],
    )


@app.command("add-fault")
def add_fault(
    context: typer.Context,
    on: Annotated[
        str,
        typer.Argument(metavar="PLACE", help="A pattern: CreateContainer, create_container.rootfs, event.*."),
    ],
    error: Annotated[
        str, typer.Option(help="It fails with this code: Unavailable, NotFound, ….", metavar="CODE")
    ] = "",
    message: Annotated[str, typer.Option(help="What the error says.", metavar="TEXT")] = "",
    latency: Annotated[str, typer.Option(help="It takes so much longer: 200ms.", metavar="TIME")] = "",
    lose: Annotated[bool, typer.Option("--lose", help="The event is told nobody.")] = False,
    crash: Annotated[When | None, typer.Option(help="The server crashes before or after it.")] = None,
    downtime: Annotated[
        str, typer.Option(help="So long after the crash it starts again.", metavar="TIME")
    ] = "",
    count: Annotated[int, typer.Option(metavar="N", min=0, help="Only N times; 0: always.")] = 1,
    skip: Annotated[int, typer.Option(metavar="N", min=0, help="The first N times pass unharmed.")] = 0,
    probability: Annotated[
        float, typer.Option(metavar="P", help="How likely it strikes, above 0 to 1.")
    ] = 1.0,
    pod: Annotated[str, typer.Option(help="Only for this pod.", metavar="PATTERN")] = "",
    namespace: Annotated[str, typer.Option(help="Only for pods of this namespace.", metavar="PATTERN")] = "",
    container: Annotated[str, typer.Option(help="Only for this container.", metavar="PATTERN")] = "",
    image: Annotated[str, typer.Option(help="Only for this image.", metavar="PATTERN")] = "",
) -> None:
    """Let something go wrong, once unless --count says otherwise.

    Prints the fault's id.
    """
    whom = {"pod": pod, "namespace": namespace, "container": container, "image": image}
    fault: dict[str, Any] = {
        "on": on,
        "match": {key: value for key, value in whom.items() if value},
        "error": {"code": error, **({"message": message} if message else {})} if error or message else None,
        "latency": latency or None,
        "lose": lose,
        "crash": crash,
        "count": count,
        "skip": skip,
        "probability": probability,
    }
    if downtime:
        fault["downtime"] = downtime
    print(_client(context).post("/v1/faults", **fault)["id"])


@app.command("rm-fault")
def rm_fault(
    context: typer.Context,
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID]...", help="As `faults` lists them.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every one.")] = False,
) -> None:
    """Remove faults."""
    if every:
        _client(context).delete("/v1/faults")
    elif not ids:
        raise typer.BadParameter("name the faults by their ids, or say --all", param_hint="ID")
    for id in ids or ():
        if not every:
            _client(context).delete(f"/v1/faults/{id}")


@app.command("exit")
def exit_container(
    context: typer.Context,
    container: Annotated[str, typer.Argument(metavar="CONTAINER", help="The container.")],
    code: Annotated[int, typer.Option(metavar="N", min=0, max=255, help="Its exit status.")] = 0,
    oom: Annotated[bool, typer.Option("--oom", help="Killed for want of memory.")] = False,
) -> None:
    """End the program of a container."""
    _client(context).exit(container, code, oom=oom)


@app.command()
def lose(context: typer.Context, pod: Annotated[str, typer.Argument(metavar="POD", help="The pod.")]) -> None:
    """Let a pod's sandbox break, as when its network namespace vanishes."""
    _client(context).lose(pod)


@app.command()
def advance(
    context: typer.Context,
    time: Annotated[str, typer.Argument(metavar="TIME", help="How much of it: 90s, 10m, 2h30m.")],
) -> None:
    """Let time pass on a virtual clock; prints what it shows then."""
    print(_client(context).post("/v1/clock/advance", seconds=time)["now"])


@app.command()
def crash(
    context: typer.Context,
    downtime: Annotated[
        str, typer.Option(help="So long it stays down, by the node's clock.", metavar="TIME")
    ] = "0s",
    containers: Annotated[
        Containers, typer.Option(help="They go on, or are lost with the whole machine.")
    ] = Containers.KEEP,
) -> None:
    """Kill the server as kill -9 does, and start it again.

    Returns when it serves again; with --downtime when it is down.
    """
    _client(context).post("/v1/crash", downtime=downtime, containers=containers.value)


@app.command()
def restart(context: typer.Context) -> None:
    """Stop the server as SIGTERM does, and start it again.

    One that is down is started.
    """
    _client(context).post("/v1/restart")


@app.command()
def reset(context: typer.Context) -> None:
    """Begin anew: no pods, no images, no calls.

    With the scenario that the server was started with.
    """
    _client(context).post("/v1/reset")


@app.command()
def state(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Print how the server is, and what there is on the node.

    By its records, and really.
    """
    from podwright.cli.output import json, short, table

    found = _client(context).get("/v1/state")
    if output is Format.JSON:
        json(found)
        return
    crashes = found["crashes"]
    print(
        f"server {found['server']}, {'1 crash' if crashes == 1 else f'{crashes} crashes'};"
        f" {found['clock']['kind']} clock at {found['clock']['now']}\n"
    )
    rows = []
    for pod in found["pods"]:
        name = f"{pod['namespace']}/{pod['name']}"
        rows.append((short(pod["id"]), name, "-", pod["state"], pod["presence"]))
        for one in pod["containers"]:
            ended = one["state"] == "exited"
            state = f"exited ({one['exit_code']})" if ended else one["state"]
            rows.append((short(one["id"]), name, one["name"], state, one["presence"]))
    for kind in ("pods", "containers"):
        rows += [(short(id), "-", "-", "no record", "orphan") for id in found["orphans"][kind]]
    table(("ID", "POD", "CONTAINER", "STATE", "PRESENCE"), rows)


def _client(context: typer.Context) -> Client:
    client: Client = context.obj
    return client


def _clock_time(moment: str) -> str:
    """ "2026-01-01T12:30:01.123456789Z" -> "12:30:01.123"."""
    return moment.partition("T")[2][:12] or "-"


def _user(pull: dict[str, Any]) -> str:
    if not pull["credentials"]:
        return "(anonymous)"
    return pull["username"] or "(token)"


def _what(fault: dict[str, Any]) -> str:
    words = []
    if latency := fault.get("latency"):
        words.append(f"latency {latency}s" if isinstance(latency, (int, float)) else f"latency {latency}")
    if error := fault.get("error"):
        words.append(f"{error['code']}: {error['message']}" if error.get("message") else error["code"])
    if fault.get("lose"):
        words.append("lost")
    if crash := fault.get("crash"):
        words.append(f"crash {crash} it")
    return ", ".join(words)


def _whom(match: dict[str, Any]) -> str:
    flat = {**match, **match.get("labels", {})}
    flat.pop("labels", None)
    return ", ".join(f"{key}={value}" for key, value in flat.items()) or "-"
