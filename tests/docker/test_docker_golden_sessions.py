"""Exec, attach and port-forward over connections that carry what was recorded: the requests and the bytes are
the recorded ones but for what docker_differences.toml names under `sessions`, with a reason."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from podwright.engines.streams import Connection, Size, Streams
from podwright.errors import DeadlineExceeded, FailedPrecondition, NotFound, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.docker import golden
from tests.docker.double import Asked, asked
from tests.docker.replay import Replay, Tree, replayed
from tests.oci.clients import PATIENCE, Arrived, Client, Sent, Sizes

_REFUSED = golden.names("exec*-missing", "exec*-not-running", "attach-missing", "attach-not-running")
_SYNC = [
    each
    for each in golden.names("execsync-*", "restart-exec")
    if each not in _REFUSED and each != "execsync-timeout"
]
_STREAMED = [
    each
    for each in golden.names("exec-*", "attach-*")
    if each not in _REFUSED and each != "exec-address-unused"
]
_NOT_FOUND = "execsync-not-found"


def compare(name: str, here: Replay) -> None:
    """Our requests with the recorded ones, by member."""
    recorded = [
        asked(each["method"], each["path"], each["body"])
        for each in here.case["docker"]
        if each["method"] not in ("GET", "HEAD")
    ]
    # A terminal's size is told beside all else.
    ours = sorted(here.docker.changes, key=_place)
    assert [each.path for each in ours] == [each.path for each in sorted(recorded, key=_place)]
    found: set[str] = set()
    for one, other in zip(ours, sorted(recorded, key=_place), strict=True):
        kind = one.path.rpartition("/")[2]
        for side, theirs in ((one.query, other.query), (one.body or {}, other.body or {})):
            found |= {f"{kind}.{key}" for key in side.keys() | theirs.keys() if _other(key, side, theirs)}
    explained: set[str] = set()
    for row in golden.table()["sessions"]:
        if name in row["cases"]:
            assert set(row["paths"]) <= found, "a row that is not needed any more"
            explained |= set(row["paths"])
    assert found == explained


def _place(each: Asked) -> tuple[bool, str]:
    return "/resize" in each.path, each.path


def _other(key: str, ours: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    # What is empty and what is left out is the same.
    return (ours.get(key) or "0") != (recorded.get(key) or "0")


@pytest.mark.parametrize("name", _SYNC)
async def test_a_command_is_run_by_the_recorded_requests(name: str, tmp_path: Path) -> None:
    async with replayed(name, tmp_path) as here, asyncio.timeout(PATIENCE):
        done = await here.runtime.exec_sync(cri.ExecSyncRequest(**here.asked))
        recorded = here.case["cri"]["response"]
        compare(name, here)
    told = recorded.get("stdout", ""), recorded.get("stderr", ""), recorded.get("exit_code", 0)
    if name == _NOT_FOUND:
        # The recorded server hands on what Docker says in the program's place.
        words = told[0].partition("container process: ")[2].removesuffix(": unknown\r\n")
        assert (done.stdout.decode(), done.stderr.decode(), done.exit_code) == ("", f"{words}\n", 127)
    else:
        assert (done.stdout.decode(), done.stderr.decode(), done.exit_code) == told


@golden.replays("execsync-timeout")
async def test_a_command_that_takes_too_long(tmp_path: Path) -> None:
    id = "execsync-timeout"
    async with replayed(id, tmp_path, handed_over=False) as here, asyncio.timeout(PATIENCE):
        start = next(each["path"] for each in here.case["docker"] if each["path"].endswith("/start"))
        # It runs on whatever its client does, and its process is none of the container's here.
        still = {"Running": True, "Pid": os.getpid(), "ExitCode": None}
        path = f"{start.removesuffix('/start')}/json"
        here.docker.exchanges.append({"method": "GET", "path": path, "status": 200, "response": still})
        with pytest.raises(DeadlineExceeded, match="timed out"):
            await here.runtime.exec_sync(cri.ExecSyncRequest(**here.asked))
        compare(id, here)


@pytest.mark.parametrize("name", _STREAMED)
async def test_streams_carry_what_was_recorded(name: str, tmp_path: Path) -> None:
    async with replayed(name, tmp_path) as here, asyncio.timeout(PATIENCE):
        request, streams = here.asked, here.case["stream"]
        tty = bool(request.get("tty"))
        sizes = Sizes()
        if (told := streams["sent"].get("4")) is not None:
            size = json.loads(told)
            sizes.set(Size(size["Width"], size["Height"]))
        client = Client(streams["sent"].get("0", "").encode(), tty=tty, sizes=sizes)
        offered = Streams(
            client.stdin if request.get("stdin") else None,
            client.stdout,
            None if tty else client.stderr,
            tty,
            client.streams.sizes,
        )
        id = request["container_id"]
        if "cmd" in request:
            code = await here.runtime.exec_streams(id, request["cmd"], offered)
            ended = json.loads(streams["received"]["3"])
            causes = ended.get("details", {}).get("causes", [{"message": "0"}])
            assert code == int(causes[0]["message"])
        else:
            await here.runtime.attach_streams(id, offered)
        if tty:
            await _resized(here)
        compare(name, here)
        assert here.docker.heard == [streams["sent"].get("0", "").encode()]
    down = next(each["stream_down"] for each in here.case["docker"] if each.get("upgrade"))
    assert (bytes(client.stdout.data), bytes(client.stderr.data)) == _streams(down.encode("latin-1"), tty)


async def _resized(here: Replay) -> None:
    while not any(each.path.endswith("/resize") for each in here.docker.changes):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def _streams(down: bytes, tty: bool) -> tuple[bytes, bytes]:
    """What came down a connection, by stream: the Engine API's frames of eight bytes and a body."""
    if tty:
        return down, b""
    found = {1: b"", 2: b""}
    while down:
        end = 8 + int.from_bytes(down[4:8], "big")
        found[down[0]] += down[8:end]
        down = down[end:]
    return found[1], found[2]


@pytest.mark.parametrize("name", _REFUSED)
async def test_who_is_not_there_or_does_not_run_takes_nobody(name: str, tmp_path: Path) -> None:
    async with replayed(name, tmp_path) as here:
        kind = NotFound if name.endswith("missing") else FailedPrecondition
        with pytest.raises(kind):
            await _session(here)
        assert here.docker.changes == []


@golden.replays("exec-address-unused")
async def test_a_session_nobody_comes_for_asks_nothing_of_docker(tmp_path: Path) -> None:
    class Giver:
        address = ""

        async def url(self, request: Any) -> str:
            return f"/{request.container_id}"

        async def listen(self) -> None: ...

    async with replayed("exec-address-unused", tmp_path) as here:
        here.runtime.streaming.giver = Giver()
        given = await here.runtime.exec(cri.ExecRequest(**here.asked))
        assert given.url == f"/{here.asked['container_id']}"
        assert here.docker.log == []


async def _session(here: Replay) -> None:
    method, request = here.case["cri"]["method"], here.asked
    if method == "ExecSync":
        await here.runtime.exec_sync(cri.ExecSyncRequest(**request))
    elif method == "Exec":
        await here.runtime.exec_streams(request["container_id"], request["cmd"], Streams())
    else:
        await here.runtime.attach_streams(request["container_id"], Streams())


@pytest.mark.root
@golden.replays("portforward")
async def test_a_port_gives_what_was_recorded(tmp_path: Path) -> None:
    """The pod's network is this process's own, with another port."""
    recorded: Tree = golden.case("portforward")["stream"]["received"]
    said = recorded["0"].removeprefix("P\0").encode()  # after the port, in the WebSocket's words

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with replayed("portforward", tmp_path) as here, asyncio.timeout(PATIENCE):
            sink = Arrived()
            connection = Connection(Sent(closed=True), sink)
            await here.runtime.port_forward_connection(here.asked["pod_sandbox_id"], port, connection)
            assert bytes(sink.data) == said and sink.closed
            assert here.docker.changes == []
    finally:
        server.close()


@golden.replays("portforward-missing")
async def test_a_pod_that_is_not_there_has_no_port(tmp_path: Path) -> None:
    async with replayed("portforward-missing", tmp_path) as here:
        connection = Connection(Sent(closed=True), Arrived())
        with pytest.raises(PodwrightError) as raised:
            await here.runtime.port_forward_connection(here.asked["pod_sandbox_id"], 80, connection)
        assert type(raised.value) is NotFound
