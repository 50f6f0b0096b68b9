"""Exec in containers of a real containerd: codes, streams, terminals, ends, and nothing left."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podwright.engines.base import Container, ExecResult
from podwright.engines.containerd import exec, sessions, strays
from podwright.engines.streams import Size, Streams
from podwright.errors import DeadlineExceeded, FailedPrecondition, NotFound, PodwrightError
from podwright.wire.containerd import tasks_pb2
from tests.containerd.daemon import Daemon
from tests.containerd.made import Room, room
from tests.oci.bench import processes_with
from tests.oci.clients import PATIENCE, Arrived, Client, Sent, Sizes, open_files

pytestmark = pytest.mark.root
STAY = ("sleep", "10000")


@pytest.fixture
async def made(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    async with room(daemon, tmp_path) as opened:
        yield opened


async def run(made: Room, container: Container, *argv: str, timeout: float | None = None) -> ExecResult:
    return await made.sessions.exec_sync(container, argv, timeout, 1 << 20)


async def gone(mark: str) -> None:
    """Wait until no process has `mark` in its command."""
    async with asyncio.timeout(PATIENCE):
        while processes_with(mark):  # noqa: ASYNC110 - the kernel tells nobody else
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_codes_and_streams(made: Room, runtime: str) -> None:
    container = await made.container(*STAY, runtime=runtime, process={"cwd": "/tmp", "user": {"uid": 7}})
    script = "echo $FROM_IMAGE; pwd; id -u; echo oops >&2; exit 7"
    assert await run(made, container, "sh", "-c", script) == ExecResult(b"yes\n/tmp\n7\n", b"oops\n", 7)
    assert (await run(made, container, "sh", "-c", "kill -9 $$")).code == 137
    done = await run(made, container, "/no/such/program")
    assert (done.code, done.stdout) == (127, b"") and b"/no/such/program" in done.stderr
    done = await run(made, container, "/etc/passwd")
    assert (done.code, done.stdout) == (126, b"") and b"ermission denied" in done.stderr
    done = await made.sessions.exec_sync(container, ["sh", "-c", "seq 99999; seq 9999 >&2"], None, 1000)
    assert len(done.stdout) == len(done.stderr) == 1000 and done.code == 0


async def test_nothing_is_left_of_them(made: Room) -> None:
    container = await made.container(*STAY)
    await run(made, container, "true")
    before = open_files()
    directory = made.places.container_run(container.id)
    await asyncio.gather(*(run(made, container, *argv) for argv in [["true"], ["/no/such"]] * 4))
    client = Client(b"x\n")
    session = asyncio.ensure_future(made.sessions.exec(container, ["sh", "-c", "read x"], client.streams))
    async with asyncio.timeout(PATIENCE):
        while not (there := strays.left(directory, "")):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await session
    await made.sessions.close()
    assert open_files() <= before
    assert strays.left(directory, "") == []
    for each in there:
        request = tasks_pb2.GetRequest(container_id=container.id, exec_id=each.name)
        with pytest.raises(NotFound):
            await made.containerd.ask(made.containerd.tasks.Get, request, "exec")


async def test_a_container_that_does_not_run_takes_nobody(made: Room) -> None:
    container = await made.container("true")
    await made.exit(container)
    with pytest.raises(FailedPrecondition, match="does not run"):
        await run(made, container, "true")


async def test_a_timeout_kills_the_process_group(made: Room) -> None:
    container = await made.container(*STAY)
    mark = f"97{secrets.randbelow(10**6):06}"
    with pytest.raises(DeadlineExceeded, match="timed out"):
        await run(made, container, "sh", "-c", f"sleep {mark} & sleep {mark}; :", timeout=1.0)
    await gone(mark)
    assert (await run(made, container, "true")).code == 0


async def test_a_daemonised_child_holds_neither_code_nor_end(made: Room) -> None:
    container = await made.container(*STAY)
    async with asyncio.timeout(30):
        done = await run(made, container, "sh", "-c", "sleep 60 & echo out; exit 3")
        assert done == ExecResult(b"out\n", b"", 3)
        # One that writes on and on does not, either.
        done = await run(made, container, "sh", "-c", "(while sleep 0.01; do echo x; done) & exit 4")
        assert done.code == 4


async def test_all_output_of_a_quick_end_comes_to_a_slow_reader(made: Room) -> None:
    container = await made.container(*STAY)
    client = Client()
    client.stdout.pause = 0.1
    streams = Streams(stdout=client.stdout)
    argv = ["sh", "-c", "head -c 1500000 /dev/zero; exit 2"]
    async with asyncio.timeout(PATIENCE):
        assert await made.sessions.exec(container, argv, streams) == 2
    assert client.stdout.count == 1500000 and client.stdout.closed


async def test_stdin_reaches_it_with_its_end_and_bytes_stay_as_they_are(made: Room) -> None:
    container = await made.container(*STAY)
    data = bytes(range(256)) * 4096
    client = Client(data, closed=True)
    argv = ["sh", "-c", "cat; echo end >&2; exit 4"]
    async with asyncio.timeout(PATIENCE):
        assert await made.sessions.exec(container, argv, client.streams) == 4
    assert bytes(client.stdout.data) == data and bytes(client.stderr.data) == b"end\n"
    # Who reads nothing of it ends all the same.
    client = Client(data, data, data)
    async with asyncio.timeout(PATIENCE):
        assert await made.sessions.exec(container, ["sh", "-c", "exit 5"], client.streams) == 5


async def test_a_client_that_reads_a_stream_no_more_holds_nothing_up(made: Room) -> None:
    container = await made.container(*STAY)
    out = Arrived()
    out.broken = True
    argv = ["sh", "-c", "head -c 3000000 /dev/zero; echo done >&2"]
    client = Streams(stdout=out, stderr=(errors := Arrived()))
    async with asyncio.timeout(PATIENCE):
        assert await made.sessions.exec(container, argv, client) == 0
    assert bytes(errors.data) == b"done\n"


async def test_a_terminal_has_a_size_and_an_end_of_input(made: Room) -> None:
    container = await made.container(*STAY)
    sizes = Sizes(Size(100, 33))
    client = Client(tty=True, sizes=sizes)
    argv = ["sh", "-c", "stty size; echo ready; read x; stty size; echo got-$x; cat; exit 6"]
    running = asyncio.ensure_future(made.sessions.exec(container, argv, client.streams))
    await client.stdout.has(b"33 100\r\nready\r\n")
    sizes.set(Size(90, 20))
    async with asyncio.timeout(PATIENCE):
        while (await run(made, container, "sh", "-c", "stty size </dev/pts/0")).stdout != b"20 90\n":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    client.stdin.send(b"abc\n")
    await client.stdout.has(b"20 90\r\ngot-abc\r\n")
    client.stdin.send(b"no newline")
    client.stdin.close()
    async with asyncio.timeout(PATIENCE):
        assert await running == 6
    assert bytes(client.stdout.data).endswith(b"no newlineno newline")


async def test_a_terminal_is_told_why_nothing_runs(made: Room) -> None:
    container = await made.container(*STAY)
    client = Client(tty=True)
    assert await made.sessions.exec(container, ["/no/such"], client.streams) == 127
    assert b"no such file" in client.stdout.data and client.stdout.closed


@pytest.mark.parametrize("tty", [False, True])
async def test_a_client_that_vanishes_hangs_it_up(made: Room, tty: bool) -> None:
    container = await made.container(*STAY)
    client = Client(tty=tty)
    script = "trap 'echo hung >/tmp/hung; exit' HUP; echo ready; while :; do sleep 0.05; done"
    running = asyncio.ensure_future(made.sessions.exec(container, ["sh", "-c", script], client.streams))
    await client.stdout.has(b"ready")
    running.cancel()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait([running])
    assert running.cancelled()
    assert (await run(made, container, "cat", "/tmp/hung")).stdout == b"hung\n"


def stopping_at(made: Room, call: str) -> tuple[int, asyncio.Event]:
    """Have the only shim stopped (SIGSTOP) when it is asked `call` next: its pid, and when that is so."""
    (shim,) = made.daemon.shims()
    stopped, tasks = asyncio.Event(), made.containerd.tasks
    ask = getattr(tasks, call)

    def stop_and_ask(*args: Any, **options: Any) -> Any:
        os.kill(shim, signal.SIGSTOP)
        stopped.set()
        setattr(tasks, call, ask)
        return ask(*args, **options)

    setattr(tasks, call, stop_and_ask)
    return shim, stopped


@pytest.mark.parametrize("asked", ["Exec", "Start"])
@pytest.mark.parametrize("deadline", [0.5, 120.0])
async def test_a_start_that_outlasts_its_client_leaves_nothing(
    made: Room, monkeypatch: pytest.MonkeyPatch, asked: str, deadline: float
) -> None:
    """The shim answers only after podwright has given up the client, or the call."""
    monkeypatch.setattr(exec, "START_GRACE", 0.2)
    monkeypatch.setattr(strays, "HANGUP_GRACE", 0.2)
    container = await made.container(*STAY)
    mark = f"95{secrets.randbelow(10**6):06}"
    shim, stopped = stopping_at(made, asked)
    monkeypatch.setattr(made.containerd, "_timeout", deadline)
    argv = ["sh", "-c", f"trap '' HUP; sleep {mark}; sleep {mark}"]
    client = asyncio.ensure_future(made.sessions.exec(container, argv, Streams(stdout=Arrived())))
    try:
        await stopped.wait()
        if deadline > 1:
            client.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([client])
    finally:
        os.kill(shim, signal.SIGCONT)
    monkeypatch.setattr(made.containerd, "_timeout", 120.0)
    async with asyncio.timeout(PATIENCE):
        while strays.left(made.places.container_run(container.id), ""):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not processes_with(mark)
    assert (await run(made, container, "true")).code == 0
    assert client.cancelled() if deadline > 1 else isinstance(client.exception(), PodwrightError)


async def test_what_cannot_be_ended_is_left_to_the_next_podwright(
    made: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec, "START_GRACE", 0.2)
    monkeypatch.setattr(sessions, "TIDYING", 0.2)
    container = await made.container(*STAY)
    mark = f"94{secrets.randbelow(10**6):06}"
    shim, stopped = stopping_at(made, "Start")
    client = asyncio.ensure_future(made.sessions.exec(container, ["sleep", mark], Client().streams))
    directory = made.places.container_run(container.id)
    try:
        await stopped.wait()
        client.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([client])
            await made.sessions.close()
        (there,) = strays.left(directory, "")
        assert (there / "stdout").is_fifo()
    finally:
        os.kill(shim, signal.SIGCONT)
    next = made.another()
    await next.adopt(container)
    async with asyncio.timeout(PATIENCE):
        while strays.left(directory, ""):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await next.close()
    assert not processes_with(mark)


async def test_the_containers_end_ends_it(made: Room) -> None:
    container = await made.container(*STAY)
    client = Client()
    argv = ["sh", "-c", "echo ready; sleep 10000"]
    running = asyncio.ensure_future(made.sessions.exec(container, argv, client.streams))
    await client.stdout.has(b"ready")
    await made.tasks.kill(container.id, 9)
    async with asyncio.timeout(PATIENCE):
        assert await running == 137
    assert await made.exit(container) == 137


async def test_an_exec_outlives_the_daemon(made: Room) -> None:
    container = await made.container(*STAY)
    client = Client()
    argv = ["sh", "-c", "echo ready; read x; echo got $x; exit 9"]
    running = asyncio.ensure_future(made.sessions.exec(container, argv, client.streams))
    await client.stdout.has(b"ready")
    await asyncio.to_thread(made.daemon.stop)
    client.stdin.send(b"word\n")
    await client.stdout.has(b"got word")
    await asyncio.to_thread(made.daemon.restart)
    async with asyncio.timeout(PATIENCE):
        assert await running == 9


async def test_what_a_killed_podwright_ran_is_hung_up_by_the_next(
    made: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "HANGUP_GRACE", 0.3)
    container = await made.container(*STAY)
    mark = f"96{secrets.randbelow(10**6):06}"
    client = Streams(stdin=Sent(), stdout=(out := Arrived()))
    argv = ["sh", "-c", f"trap '' HUP; echo ready; sleep {mark}; sleep {mark}"]
    before = asyncio.ensure_future(made.sessions.exec(container, argv, client))
    await out.has(b"ready")
    strangers = made.places.container_run(container.id)
    assert len(strays.left(strangers, "")) == 1
    next = made.another()
    stays = ["sh", "-c", "echo ready; sleep 1; exit 8"]
    ours = asyncio.ensure_future(next.exec(container, stays, Streams(stdout=(own := Arrived()))))
    await own.has(b"ready")
    await next.adopt(container)
    await gone(mark)
    assert await asyncio.wait_for(ours, PATIENCE) == 8
    await next.close()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait([before])
    await made.sessions.close()
    assert strays.left(strangers, "") == []
