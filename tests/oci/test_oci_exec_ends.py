"""How programs run with a client's streams end, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from podwright.engines.base import Container, Presence
from podwright.engines.streams import Streams
from podwright.errors import CommandFailed, PodwrightError
from tests.oci.bench import Bench, processes_with
from tests.oci.clients import Arrived, Client, Sent, open_files
from tests.oci.test_oci_handlers import HANDLERS

pytestmark = pytest.mark.root
NATIVE = ["crun", "runc"]
"""Those whose processes are the host's."""


@pytest.fixture(params=HANDLERS)
async def container(bench: Bench, request: pytest.FixtureRequest) -> Container:
    return await bench.container(await bench.sandbox(handler=request.param), "sleep", "1000")


@pytest.fixture(params=NATIVE)
async def native(bench: Bench, request: pytest.FixtureRequest) -> Container:
    return await bench.container(await bench.sandbox(handler=request.param), "sleep", "1000")


def run(bench: Bench, container: Container, script: str, streams: Streams) -> asyncio.Task[int]:
    return asyncio.ensure_future(bench.engine.exec(container, ["sh", "-c", script], streams))


def left(bench: Bench, container: Container) -> list[str]:
    """Files of sessions in the container's bundle."""
    bundle = Path(bench.config.run, "containers", container.id)
    return [each.name for each in bundle.iterdir() if each.name.startswith(("session-", "exec-"))]


async def gone(task: asyncio.Task[int]) -> None:
    task.cancel()
    await asyncio.wait_for(asyncio.wait([task]), 40)
    assert task.cancelled()


async def seen(bench: Bench, container: Container) -> str:
    return await bench.exec(container, "ps", "-o", "args", timeout=30)


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
async def test_a_client_that_vanishes_hangs_it_up(bench: Bench, container: Container, tty: bool) -> None:
    client = Client(tty=tty)
    task = run(
        bench,
        container,
        'trap "echo hup > /hup; exit" HUP; echo on; while :; do sleep 0.05; done',
        client.streams,
    )
    await client.stdout.has(b"on")
    await gone(task)
    assert await bench.exec(container, "cat", "/hup", timeout=30) == "hup\n"
    assert "trap" not in await seen(bench, container)
    assert left(bench, container) == []


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
async def test_who_does_not_go_is_killed(
    bench: Bench, container: Container, tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podwright.engines.oci.sessions.HANGUP_GRACE", 0.5)
    client = Client(tty=tty)
    task = run(bench, container, 'trap "" HUP; echo on; while :; do sleep 0.05; done', client.streams)
    await client.stdout.has(b"on")
    await gone(task)
    assert "trap" not in await seen(bench, container)
    assert left(bench, container) == []


async def test_cancelled_at_any_moment_nothing_is_left(bench: Bench, native: Container) -> None:
    await run(bench, native, "true", Client().streams)
    files, inside = open_files(), await seen(bench, native)
    for tty in (False, True):
        for step in range(40):
            task = run(bench, native, "sleep 1000", Client(tty=tty).streams)
            await asyncio.sleep(step * 0.001)
            await gone(task)
    assert await seen(bench, native) == inside
    assert open_files() <= files
    assert left(bench, native) == []
    assert len(processes_with(native.id)) == 1  # its own conmon


async def test_a_stream_that_fails_hangs_it_up(bench: Bench, native: Container) -> None:
    class Failing(Sent):
        async def read(self) -> bytes:
            await super().read()
            raise ConnectionResetError("the client is gone")

    failing = Failing(b"x")
    with pytest.raises(ConnectionResetError):
        await run(bench, native, "sleep 1000", Streams(stdin=failing, stdout=Arrived()))
    assert (await seen(bench, native)).partition("COMMAND\n")[2].partition("ps")[0] == "sleep 1000\n"


async def test_a_daemonised_child_does_not_hold_the_end(bench: Bench, container: Container) -> None:
    client = Client()
    async with asyncio.timeout(30):
        assert await run(bench, container, "setsid sleep 503 & echo started; exit 4", client.streams) == 4
        assert client.stdout.data == b"started\n" and client.stdout.closed
        assert await run(bench, container, "setsid yes & exit 5", Client().streams) == 5


async def test_what_ends_a_little_later_is_heard(bench: Bench, native: Container) -> None:
    client = Client()
    assert await run(bench, native, "(sleep 0.2; echo last) & echo first", client.streams) == 0
    assert client.stdout.data == b"first\nlast\n"


async def test_a_slow_client_gets_all_of_it(bench: Bench, container: Container) -> None:
    client = Client()
    # Each time longer than others than the program would be waited for.
    client.stdout.pause = 1.2
    assert await run(bench, container, "head -c 900000 /dev/zero", client.streams) == 0
    assert client.stdout.count == 900_000


async def test_a_client_that_does_not_read_holds_the_program(bench: Bench, native: Container) -> None:
    client = Client()
    client.stdout.gate.clear()
    task = run(bench, native, "head -c 50000000 /dev/zero; touch /over", client.streams)
    await asyncio.sleep(0.5)
    assert (await bench.exec(native, "ls", "/")).split().count("over") == 0
    client.stdout.gate.set()
    assert await task == 0
    assert client.stdout.count == 50_000_000


async def test_a_program_that_does_not_read_holds_the_client(bench: Bench, native: Container) -> None:
    client = Client(*[b"x" * 65536] * 200, closed=True)
    task = run(bench, native, "while ! test -e /go; do sleep 0.02; done; wc -c", client.streams)
    await asyncio.sleep(0.5)
    assert client.stdin.taken <= 40 * 65536
    await bench.exec(native, "touch", "/go")
    assert await task == 0
    assert int(client.stdout.data) == 200 * 65536


async def test_a_stream_that_nobody_reads_is_a_broken_pipe(bench: Bench, native: Container) -> None:
    client = Client()
    client.stdout.broken = True
    assert await run(bench, native, "yes; echo $? >&2", client.streams) == 0
    # Of SIGPIPE, or of the error when that is ignored.
    assert client.stderr.data.split()[-1].decode() in ("141", "1")


async def test_a_program_that_closes_stdin_does_not_hold_the_client(bench: Bench, native: Container) -> None:
    client = Client(*[b"x" * 65536] * 200)
    last = asyncio.Event()
    client.stdin.then(last.set)
    task = run(bench, native, "exec 0<&-; while ! test -e /go; do sleep 0.02; done", client.streams)
    await asyncio.wait_for(last.wait(), 30)
    await bench.exec(native, "touch", "/go")
    assert await task == 0


async def test_it_ends_with_its_container(bench: Bench, container: Container) -> None:
    for tty in (False, True):
        client = Client(tty=tty)
        task = run(bench, container, "echo on; sleep 1000", client.streams)
        await client.stdout.has(b"on")
        if not tty:
            first = task
    await bench.engine.signal_container(container, signal.SIGKILL)
    assert await asyncio.wait_for(first, 30) == 137
    assert await asyncio.wait_for(task, 30) == 137
    await bench.exit_of(container)
    with pytest.raises(CommandFailed):
        await run(bench, container, "true", Client().streams)
    with pytest.raises(PodwrightError):
        await run(bench, container, "true", Client(tty=True).streams)


async def test_a_supervisor_that_is_killed_takes_the_program_along(bench: Bench, native: Container) -> None:
    client = Client()
    task = run(bench, native, "echo on >&2; sleep 1000; :", client.streams)
    await client.stderr.has(b"on")  # it comes through only when the supervisor has told the start
    (session,) = (pid for pid in processes_with(native.id) if "session-" in _arguments(pid))
    os.kill(session, signal.SIGKILL)
    with pytest.raises(CommandFailed, match="conmon"):
        await asyncio.wait_for(task, 30)
    assert "sleep 1000; :" not in await seen(bench, native)


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_100_at_once(bench: Bench, native: Container) -> None:
    await run(bench, native, "true", Client().streams)
    files, processes = open_files(), len(processes_with(native.id))
    clients = [Client(tty=n % 4 == 0) for n in range(100)]
    tasks = [
        run(bench, native, f'echo ready; read word; echo "{n} $word"; exit {n}', each.streams)
        for n, each in enumerate(clients)
    ]
    async with asyncio.timeout(120):
        for each in clients:
            await each.stdout.has(b"ready")
        for n, each in enumerate(clients):
            each.stdin.send(b"word %d\n" % n)
        assert await asyncio.gather(*tasks) == list(range(100))
    for n, each in enumerate(clients):
        assert b"%d word %d" % (n, n) in each.stdout.data
    assert open_files() <= files
    assert len(processes_with(native.id)) == processes
    assert left(bench, native) == []


@pytest.mark.parametrize("handler", HANDLERS)
async def test_the_next_podwright_hangs_up_what_a_killed_one_left(
    bench: Bench, handler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podwright.engines.oci.sessions.HANGUP_GRACE", 2.0)
    container = await bench.container(await bench.sandbox(handler=handler), "sleep", "1000")
    scripts = ['trap "echo hup > /hup; exit 0" HUP; echo on; while :; do sleep 0.05; done']
    scripts.append('trap "" HUP; echo on; while :; do sleep 0.05; done')
    clients = [Client() for _ in scripts]
    tasks = [
        run(bench, container, each, client.streams) for each, client in zip(scripts, clients, strict=True)
    ]
    for client in clients:
        await client.stdout.has(b"on")
    # As after a kill of this process the files are still there, and an innocent has got an old number.
    bundle = Path(bench.config.run, "containers", container.id)
    with subprocess.Popen(["sleep", "1000"]) as stranger:  # noqa: ASYNC220
        try:
            stale = bundle / "session-0-0.pid"
            stale.write_text(str(stranger.pid))
            os.utime(stale, (0, 0))
            assert (await bench.engine.observe_container(container)).presence is Presence.RUNNING
            await asyncio.sleep(0.5)
            assert not any(each.done() for each in tasks)
            bench.engine._containers._mark = "next"
            assert (await bench.engine.observe_container(container)).presence is Presence.RUNNING
            codes = await asyncio.wait_for(asyncio.gather(*tasks), 60)
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert codes == [0, 137]
    assert await bench.exec(container, "cat", "/hup", timeout=30) == "hup\n"
    assert "trap" not in await seen(bench, container)
    assert left(bench, container) == []
