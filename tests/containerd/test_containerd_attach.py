"""Clients attached to the first process of a container of a real containerd."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

import pytest

from podwright.engines.base import Container
from podwright.engines.containerd import attach as attaching
from podwright.engines.streams import Size, Streams
from podwright.errors import FailedPrecondition
from podwright.linux import spawn
from podwright.wire import cri_pb2 as cri
from tests.containerd.daemon import Daemon
from tests.containerd.made import Room, room
from tests.oci.clients import PATIENCE, Arrived, Client, Sent, Sizes, open_files

pytestmark = pytest.mark.root
LINES = 4000
"""Of 1000 bytes: more than all pipes on the way have room for."""
ECHO = 'while read line; do echo "got $line"; echo "err $line" >&2; done; echo end of stdin; exit 5'


@pytest.fixture
async def made(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    async with room(daemon, tmp_path) as opened:
        yield opened


async def started(
    made: Room, script: str, *, stdin: bool = True, once: bool = False, tty: bool = False, log: bool = True
) -> Container:
    config = cri.ContainerConfig(stdin=stdin, stdin_once=once, tty=tty)
    return await made.container("sh", "-c", script, config=config, log=log)


def attach(made: Room, container: Container, streams: Streams) -> asyncio.Task[None]:
    return asyncio.ensure_future(made.sessions.attach(container, streams))


async def until_attached(made: Room, container: Container, clients: int) -> None:
    """Wait until so many have all that it says from now on."""
    async with asyncio.timeout(PATIENCE):
        while made.logs._attached[container.id] < clients:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_slowed(made: Room, container: Container) -> int:
    """Wait until it writes no more; the size of its log then."""
    size, same = -1, 0
    async with asyncio.timeout(PATIENCE):
        while same < 10:
            await asyncio.sleep(0.05)
            now = Path(container.log_path).stat().st_size
            size, same = now, same + 1 if now == size and now else 0
    return size


async def test_stdin_and_all_output_and_the_end(made: Room) -> None:
    container = await started(made, ECHO, once=True)
    before = open_files()
    client = Client()
    session = attach(made, container, client.streams)
    client.stdin.send(b"one\n")
    await client.stdout.has(b"got one\n")
    await client.stderr.has(b"err one\n")
    client.stdin.send(b"two\n")
    client.stdin.close()
    assert await made.exit(container) == 5
    await asyncio.wait_for(session, PATIENCE)
    assert client.stdout.data.endswith(b"got two\nend of stdin\n")
    assert client.stderr.data == b"err one\nerr two\n"
    assert client.stdout.closed and client.stderr.closed
    assert "got two" in await made.logged(container)
    assert open_files() <= before
    with pytest.raises(FailedPrecondition, match="does not run"):
        await made.sessions.attach(container, Client().streams)


async def test_without_a_log_it_can_be_attached_to_and_is_read(made: Room) -> None:
    container = await started(made, "head -c 6000000 /dev/zero; read x; echo got $x", log=False)
    client = Client(b"word\n", closed=True)
    session = attach(made, container, client.streams)
    await client.stdout.has(b"got word\n")
    assert await made.exit(container) == 0
    await asyncio.wait_for(session, PATIENCE)


async def test_a_stdin_for_several_clients_outlives_each(made: Room) -> None:
    container = await started(made, ECHO)
    for word in (b"one", b"two"):
        client = Client(word + b"\n", closed=True)
        session = attach(made, container, client.streams)
        await client.stdout.has(b"got " + word)
        session.cancel()
        await asyncio.wait([session])
        assert session.cancelled()
    assert (await made.tasks.observe(container.id)).exit is None


async def test_with_stdin_once_the_first_that_speaks_ends_it_not_who_only_listens(made: Room) -> None:
    container = await started(made, ECHO, once=True)
    listening = attach(made, container, Streams(stdout=(heard := Arrived()), stderr=Arrived()))
    client = Client()
    speaking = attach(made, container, client.streams)
    await until_attached(made, container, 2)
    client.stdin.send(b"there\n")
    await client.stdout.has(b"got there\n")
    await heard.has(b"got there\n")
    listening.cancel()
    await asyncio.wait([listening])
    client.stdin.send(b"still\n")
    await client.stdout.has(b"got still\n")
    speaking.cancel()
    await asyncio.wait([speaking])
    assert await made.exit(container) == 5
    assert "end of stdin" in await made.logged(container)


async def test_a_killed_podwrights_client_ends_a_stdin_that_was_for_it(
    made: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await started(made, ECHO, once=True)
    client = Client(b"one\n")
    session = attach(made, container, client.streams)
    await client.stdout.has(b"got one\n")
    with monkeypatch.context() as killed:
        # It lets go of the FIFO, and that is all.
        killed.setattr(attaching, "close_stdin", lambda *_: asyncio.sleep(0))
        session.cancel()
        await asyncio.wait([session])
    assert (await made.tasks.observe(container.id)).exit is None
    next = made.another()
    await next.adopt(container)
    await next.close()
    assert await made.exit(container) == 5


async def test_who_speaks_hears_the_answer(made: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    container = await started(made, ECHO)
    attached = made.logs.attached

    @asynccontextmanager
    async def late(id: str, streams: Sequence[str]) -> AsyncIterator[dict[str, FileIO]]:
        await asyncio.sleep(0.3)
        async with attached(id, streams) as pipes:
            yield pipes

    monkeypatch.setattr(made.logs, "attached", late)
    client = Client(b"one\n")
    session = attach(made, container, client.streams)
    await client.stdout.has(b"got one\n")
    session.cancel()
    await asyncio.wait([session])


async def test_several_at_once_have_all_of_it_and_the_slowest_holds_it_up(made: Room) -> None:
    script = f"read go; yes {'x' * 999} | head -n {LINES}; seq 1 3000 >&2; echo end"
    container = await started(made, script)
    clients = [Client() for _ in range(3)]
    stalled, gone, quick = clients
    stalled.stdout.gate.clear()
    gone.stdout.gate.clear()
    sessions = [attach(made, container, each.streams) for each in clients]
    await until_attached(made, container, 3)
    quick.stdin.send(b"go\n")
    await quick.stdout.has(b"\nxxx")
    await until_slowed(made, container)
    assert not quick.stdout.data.endswith(b"end\n")
    sessions[1].cancel()  # who has gone holds nobody up
    await until_slowed(made, container)
    assert not quick.stdout.data.endswith(b"end\n")
    stalled.stdout.gate.set()
    assert await made.exit(container) == 0
    await asyncio.wait_for(asyncio.gather(sessions[0], sessions[2]), PATIENCE)
    wanted = LINES * ("x" * 999 + "\n") + "end\n"
    errors = "".join(f"{n}\n" for n in range(1, 3001))
    for each in (stalled, quick):
        assert each.stdout.data.decode() == wanted
        assert each.stderr.data.decode() == errors
    lines = (await made.logged(container)).split()
    assert sorted(lines) == sorted((wanted + errors).split())


async def test_a_client_that_does_not_read_costs_the_log_nothing_at_the_end(made: Room) -> None:
    script = "read go; i=0; while :; do printf '%01000d\\n' $i; echo $i >/said; i=$((i+1)); done"
    container = await started(made, script)
    client = Client(b"go\n")
    client.stdout.gate.clear()
    session = attach(made, container, client.streams)
    await until_slowed(made, container)
    # Slowed is not stopped: the file may be empty for a moment.
    script = "until read said </said; do sleep 0.01; done; echo $said"
    said = int((await made.sessions.exec_sync(container, ["sh", "-c", script], None, 99)).stdout)
    await made.tasks.kill(container.id, signal.SIGKILL)
    assert await made.exit(container) == 137
    numbers = (await made.logged(container)).split()
    assert len(numbers) > said
    assert [int(each) for each in numbers] == list(range(len(numbers)))
    assert not session.done()
    client.stdout.gate.set()
    await asyncio.wait_for(session, PATIENCE)
    assert client.stdout.data.decode().split() == numbers


async def test_a_terminal(made: Room) -> None:
    container = await started(made, 'read x; stty size; echo "tty $x"; read x; stty size; exit 3', tty=True)
    sizes = Sizes(Size(90, 20))
    client = Client(tty=True, sizes=sizes)
    session = attach(made, container, client.streams)
    await until_size(made, container, "20 90")
    client.stdin.send(b"hello\n")
    await client.stdout.has(b"20 90\r\ntty hello\r\n")
    sizes.set(Size(70, 10))
    await until_size(made, container, "10 70")
    client.stdin.send(b"\n")
    assert await made.exit(container) == 3
    await asyncio.wait_for(session, PATIENCE)
    assert client.stdout.data.endswith(b"10 70\r\n")


async def until_size(made: Room, container: Container, size: str) -> None:
    argv = ["sh", "-c", "stty size </dev/pts/0"]
    async with asyncio.timeout(PATIENCE):
        while (await made.sessions.exec_sync(container, argv, None, 99)).stdout.decode().strip() != size:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_without_a_stdin_what_is_sent_is_dropped(made: Room) -> None:
    script = "cat; echo nothing; while ! test -e /go; do sleep 0.02; done; echo all"
    container = await started(made, script, stdin=False)
    sent = Sent(*[b"x" * 65536] * 20, closed=True)
    session = attach(made, container, Streams(sent, out := Arrived(), Arrived()))
    async with asyncio.timeout(PATIENCE):
        while sent.taken < 20 * 65536:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await made.sessions.exec_sync(container, ["touch", "/go"], None, 99)
    assert await made.exit(container) == 0
    await asyncio.wait_for(session, PATIENCE)
    assert out.data.endswith(b"all\n")


async def test_clients_outlive_a_writer_that_is_killed(made: Room) -> None:
    container = await started(made, ECHO)
    client = Client(b"one\n")
    session = attach(made, container, client.streams)
    await client.stdout.has(b"got one\n")
    pid = int(str((await made.logs.status())["pid"]))
    os.kill(pid, signal.SIGKILL)
    await spawn.exited(pid)
    async with asyncio.timeout(PATIENCE):
        while b"got two\n" not in client.stdout.data:
            client.stdin.send(b"two\n")
            await asyncio.sleep(0.1)
    assert not session.done()
    session.cancel()
    await asyncio.wait([session])
