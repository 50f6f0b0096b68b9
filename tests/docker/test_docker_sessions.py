"""Exec, attach and port-forward on a real Docker Engine: codes, streams, terminals, and nothing left."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.engines.base import Container
from podwright.engines.streams import Connection, Size, Streams
from podwright.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from podwright.linux import proc
from tests.docker.daemon import Daemon
from tests.docker.room import STAY, Room, load_image, opened
from tests.oci.clients import PATIENCE, Arrived, Client, Sent, Sizes

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def images(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> None:
    load_image(daemon, tmp_path_factory.mktemp("image") / "root")


@pytest.fixture
async def room(daemon: Daemon, images: None, tmp_path: Path) -> AsyncIterator[Room]:
    async with opened(daemon, tmp_path) as made:
        yield made


def processes_with(text: str) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in each.read_bytes() and proc.alive(int(each.parent.name)):
                found.append(int(each.parent.name))
        except OSError:
            continue
    return found


async def gone(mark: str) -> None:
    """Wait until no process has `mark` in its command."""
    async with asyncio.timeout(PATIENCE):
        while processes_with(mark):  # noqa: ASYNC110 - the kernel tells nobody else
            await asyncio.sleep(0.02)


async def test_codes_streams_and_what_a_command_is_run_with(room: Room) -> None:
    container = await room.container(STAY)
    script = "echo $FROM_IMAGE; echo oops >&2; exit 7"
    assert await room.run(container, "/bin/sh", "-c", script) == (7, b"yes\n", b"oops\n")
    assert (await room.run(container, "/bin/sh", "-c", "kill -9 $$"))[0] == 137
    # Docker says of both 126, on the standard output.
    code, out, errors = await room.run(container, "/no/such/program")
    assert (code, out) == (127, b"") and errors.startswith(b'exec: "/no/such/program": stat')
    code, out, errors = await room.run(container, "/etc/passwd")
    assert (code, out) == (126, b"") and b"permission denied" in errors
    # What a program says in Docker's own words is the program's.
    words = "OCI runtime exec failed: no, it did not"
    assert await room.run(container, "/bin/echo", words) == (0, f"{words}\n".encode(), b"")
    done = await room.sessions.exec_sync(container, ["/bin/sh", "-c", "seq 9999; seq 9999 >&2"], None, 1000)
    assert len(done.stdout) == len(done.stderr) == 1000 and done.code == 0


async def test_a_container_that_does_not_run_takes_nobody(room: Room) -> None:
    container = await room.container(["/bin/true"])
    await room.docker.call("POST", f"/containers/{room.made[0]}/wait")
    with pytest.raises(FailedPrecondition, match="is not running"):
        await room.run(container, "/bin/true")
    with pytest.raises(FailedPrecondition, match="does not run"):
        await room.sessions.attach(container, Client().streams)


async def test_a_directory_is_no_command(room: Room) -> None:
    container = await room.container(STAY)
    await room.run(container, "/bin/sh", "-c", "rm /bin/sleep; mkdir /bin/sleep")
    assert (await room.run(container, "/bin/sleep"))[0] == 126


async def test_a_timeout_kills_the_process_group(room: Room) -> None:
    container = await room.container(STAY)
    mark = f"98{secrets.randbelow(10**6):06}"
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded, match="timed out"):
        await room.run(container, "/bin/sh", "-c", f"sleep {mark} & sleep {mark}; :", timeout=1.0)
    assert asyncio.get_running_loop().time() - began < 30
    await gone(mark)
    assert (await room.run(container, "/bin/true"))[0] == 0


async def test_a_daemonised_child_holds_neither_code_nor_end(room: Room) -> None:
    container = await room.container(STAY)
    async with asyncio.timeout(20):
        assert await room.run(container, "/bin/sh", "-c", "sleep 60 & echo out; exit 3") == (3, b"out\n", b"")
        assert await room.run(container, "/bin/sh", "-c", "exec >&- 2>&-; sleep 0.4; exit 5") == (5, b"", b"")


async def test_stdin_reaches_it_with_its_end_and_bytes_stay_as_they_are(room: Room) -> None:
    container = await room.container(STAY)
    data = bytes(range(256)) * 4096
    client = Client(data, closed=True)
    code = await room.sessions.exec(
        container, ["/bin/sh", "-c", "cat; cat /etc/group >&2; exit 4"], client.streams
    )
    assert code == 4 and bytes(client.stdout.data) == data and b"nogroup" in client.stderr.data
    assert client.stdout.closed and client.stderr.closed


async def test_a_terminal_has_a_size_and_an_end_of_input(room: Room) -> None:
    container = await room.container(STAY)
    sizes = Sizes(Size(100, 33))
    client = Client(tty=True, sizes=sizes)
    argv = ["/bin/sh", "-c", "echo ready; read x; stty size; echo got-$x; cat; exit 6"]
    running = asyncio.ensure_future(room.sessions.exec(container, argv, client.streams))
    await client.stdout.has(b"ready")
    await until_size(room, container, "33 100")
    sizes.set(Size(90, 20))
    await until_size(room, container, "20 90")
    client.stdin.send(b"\x10")  # Ctrl-P is not held back as the beginning of Docker's "detach"
    await client.stdout.has(b"^P")
    client.stdin.send(b"abc\n")
    await client.stdout.has(b"20 90\r\ngot-\x10abc\r\n")
    client.stdin.send(b"no newline")
    client.stdin.close()
    async with asyncio.timeout(PATIENCE):
        assert await running == 6
    assert bytes(client.stdout.data).endswith(b"no newlineno newline")


async def until_size(room: Room, container: Container, size: str) -> None:
    async with asyncio.timeout(PATIENCE):
        argv = ["/bin/sh", "-c", "stty size </dev/pts/0"]
        while size.encode() not in (await room.run(container, *argv))[1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_terminal_is_told_why_nothing_runs(room: Room) -> None:
    container = await room.container(STAY)
    client = Client(tty=True)
    assert await room.sessions.exec(container, ["/no/such"], client.streams) == 127
    assert b"no such file" in client.stdout.data and client.stdout.closed


@pytest.mark.parametrize("tty", [False, True])
async def test_a_client_that_vanishes_hangs_it_up(room: Room, tty: bool) -> None:
    container = await room.container(STAY)
    client = Client(tty=tty)
    script = "trap 'echo hup >/tmp/hup; exit' HUP; echo ready; while :; do sleep 0.1; done"
    running = asyncio.ensure_future(room.sessions.exec(container, ["/bin/sh", "-c", script], client.streams))
    await client.stdout.has(b"ready")
    running.cancel()
    await asyncio.wait([running], timeout=PATIENCE)
    assert running.cancelled()
    assert (await room.run(container, "/bin/cat", "/tmp/hup"))[1] == b"hup\n"


async def test_who_does_not_go_is_killed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podwright.engines.docker.exec.HANGUP_GRACE", 0.3)
    container = await room.container(STAY)
    mark = f"97{secrets.randbelow(10**6):06}"
    client = Client()
    script = f"trap '' HUP; echo ready; while :; do sleep 0.1; done; : {mark}"
    running = asyncio.ensure_future(room.sessions.exec(container, ["/bin/sh", "-c", script], client.streams))
    await client.stdout.has(b"ready")
    assert processes_with(mark)
    running.cancel()
    await asyncio.wait([running], timeout=PATIENCE)
    await gone(mark)


async def test_a_slow_client_gets_all_of_it_and_a_deaf_one_stops_nobody(room: Room) -> None:
    container = await room.container(STAY)
    client = Client(closed=True)
    client.stdout.gate.clear()
    running = asyncio.ensure_future(
        room.sessions.exec(container, ["/bin/sh", "-c", "seq 200000; exit 2"], client.streams)
    )
    await asyncio.sleep(1.5)  # longer than others may hold the output
    client.stdout.gate.set()
    assert await running == 2
    assert bytes(client.stdout.data).endswith(b"\n199999\n200000\n")
    deaf = Client(closed=True)
    deaf.stdout.broken = True
    assert await room.sessions.exec(container, ["/bin/sh", "-c", "seq 100; echo e >&2"], deaf.streams) == 0
    assert bytes(deaf.stderr.data) == b"e\n"


async def test_it_ends_with_its_container(room: Room) -> None:
    container = await room.container(STAY)
    client = Client()
    running = asyncio.ensure_future(
        room.sessions.exec(container, ["/bin/sh", "-c", "echo ready; sleep 600"], client.streams)
    )
    await client.stdout.has(b"ready")
    await room.docker.call("POST", f"/containers/{room.made[0]}/kill")
    async with asyncio.timeout(PATIENCE):
        assert await running == 137


async def test_attach_hears_all_speaks_and_ends_with_the_container(room: Room) -> None:
    script = "echo before; while read x; do echo out $x; echo err $x >&2; done; echo bye"
    container = await room.container(["/bin/sh", "-c", script], {"OpenStdin": True, "StdinOnce": True})
    first, second = Client(), Client()
    listening = Streams(stdout=second.stdout, stderr=second.stderr)
    tasks = [
        asyncio.ensure_future(room.sessions.attach(container, first.streams)),
        asyncio.ensure_future(room.sessions.attach(container, listening)),
    ]
    await said(first, second)
    first.stdin.close()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*tasks)
    for each in (first, second):
        assert bytes(each.stdout.data).endswith(b"bye\n") and each.stdout.closed
        assert b"err again" in each.stderr.data


async def said(first: Client, second: Client) -> None:
    """Both hear what the first says: whoever is attached a little later hears a later line."""
    async with asyncio.timeout(PATIENCE):
        while b"out again" not in second.stdout.data or b"out again" not in first.stdout.data:
            first.stdin.send(b"again\n")
            await asyncio.sleep(0.05)


async def test_a_stdin_for_several_clients_outlives_each(room: Room) -> None:
    container = await room.container(["/bin/cat"], {"OpenStdin": True})
    first, second = Client(b"one\n", closed=True), Client()
    tasks = [asyncio.ensure_future(room.sessions.attach(container, each.streams)) for each in (first, second)]
    await first.stdout.has(b"one\n")
    second.stdin.send(b"two\n")
    await first.stdout.has(b"two\n")  # who has said all still hears
    for each in tasks:
        each.cancel()
    await asyncio.wait(tasks)
    assert (await room.docker.call("GET", f"/containers/{room.made[0]}/json"))["State"]["Running"]


async def test_attach_to_a_terminal(room: Room) -> None:
    container = await room.container(["/bin/sh"], {"OpenStdin": True, "Tty": True})
    sizes = Sizes(Size(70, 25))
    client = Client(tty=True, sizes=sizes)
    attached = asyncio.ensure_future(room.sessions.attach(container, client.streams))
    await until_size(room, container, "25 70")
    client.stdin.send(b"echo $((40+2)); exit 3\n")
    await client.stdout.has(b"42\r\n")
    async with asyncio.timeout(PATIENCE):
        await attached


async def test_without_a_stdin_what_is_sent_is_dropped_and_who_hears_nothing_is_done(room: Room) -> None:
    container = await room.container(STAY)
    sent = Sent(b"x" * 100000, closed=True)
    async with asyncio.timeout(PATIENCE):
        await room.sessions.attach(container, Streams(stdin=sent))
    assert sent.taken == 100000


async def test_a_port_is_dialled_in_the_pod(room: Room) -> None:
    container = await room.container(
        ["/bin/sh", "-c", "ip link set lo up; nc -l -p 8080 -e /bin/cat"], CAP_NET
    )
    for attempt in range(200):
        source, sink = Sent(b"hello", closed=True), Arrived()
        try:
            await room.sessions.port_forward(container.sandbox, 8080, Connection(source, sink))
            break
        except FailedPrecondition:
            assert attempt < 199
            await asyncio.sleep(0.05)
    assert bytes(sink.data) == b"hello" and sink.closed
    with pytest.raises(InvalidArgument):
        await room.sessions.port_forward(container.sandbox, 0, Connection(source, sink))


CAP_NET = {"HostConfig": {"NetworkMode": "none", "CapAdd": ["NET_ADMIN"]}}
