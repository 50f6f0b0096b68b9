"""Clients attached to the first process of a fake container."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from podwright import errors
from podwright.engines.streams import Size, Streams
from tests.fake.containers import Case, Node
from tests.oci.clients import Arrived, Client, Sent, Sizes

ECHO = 'while read line; do echo "got $line"; echo "err $line" >&2; done; echo end of stdin; exit 5'


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def attach(case: Case, streams: Streams) -> asyncio.Task[None]:
    return asyncio.ensure_future(case.node.engine.attach(case.container, streams))


async def over(session: asyncio.Task[None]) -> None:
    async with asyncio.timeout(30):
        await session


async def gone(session: asyncio.Task[None]) -> None:
    session.cancel()
    await asyncio.wait([session])
    assert session.cancelled()


async def test_stdin_and_all_output_and_the_end(node: Node) -> None:
    case = await node.start("sh", "-c", ECHO, stdin=True, stdin_once=True)
    client = Client()
    session = attach(case, client.streams)
    client.stdin.send(b"one\n")
    await client.stdout.has(b"got one\n")
    await client.stderr.has(b"err one\n")
    client.stdin.send(b"two\n")
    client.stdin.close()
    await over(session)
    assert client.stdout.data == b"got one\ngot two\nend of stdin\n"
    assert client.stderr.data == b"err one\nerr two\n"
    assert client.stdout.closed and client.stderr.closed
    assert case.code == 5
    assert case.output() == client.stdout.data.decode()


async def test_a_stdin_for_several_clients_outlives_each(node: Node) -> None:
    case = await node.start("sh", "-c", ECHO, stdin=True)
    for word in (b"one", b"two"):
        client = Client(word + b"\n", closed=True)
        session = attach(case, client.streams)
        await client.stdout.has(b"got " + word)
        await gone(session)
    await node.clock.advance(1)
    assert case.running


@pytest.mark.parametrize("how", ["goes", "ends its input", "crash"])
async def test_a_stdin_for_one_client_ends_with_it(node: Node, how: str) -> None:
    case = await node.start("sh", "-c", ECHO, stdin=True, stdin_once=True)
    listener, first = Client(), Client(b"one\n")
    deaf = attach(case, Streams(stdout=listener.stdout))
    await node.clock.advance(0)
    await gone(deaf)
    session = attach(case, first.streams)
    await first.stdout.has(b"got one")
    if how == "goes":
        await gone(session)
    elif how == "crash":
        node.engine.crash()
        session.cancel()
    else:
        first.stdin.close()
    await node.clock.advance(0)
    assert case.code == 5
    await asyncio.wait([session])


async def test_several_hear_the_same_from_when_they_came(node: Node) -> None:
    case = await node.start("sh", "-c", "while sleep 10; do echo out; echo err >&2; done")
    clients = [Client(), Client()]
    first = attach(case, clients[0].streams)
    await node.clock.advance(10)
    second = attach(case, clients[1].streams)
    await node.clock.advance(10)
    assert [bytes(each.stdout.data) for each in clients] == [b"out\nout\n", b"out\n"]
    await gone(first)
    await node.clock.advance(10)
    assert clients[1].stderr.data == b"err\nerr\n"
    await case.signal(9)
    await over(second)
    assert case.output() == "out\n" * 3


async def test_what_the_scenario_writes_is_heard_and_waits_for_slow_clients(tmp_path: Path) -> None:
    line = "x" * 1000
    node = Node(tmp_path, {"containers": [{"logs": [{"text": line, "every": "1s", "after": "1s"}]}]})
    case = await node.start("sleep", "inf")
    client = Client()
    client.stdout.gate.clear()
    session = attach(case, client.streams)
    await node.clock.advance(1000)
    written = len(case.lines())
    assert 60 <= written < 200, "nobody waits for the client, or nobody goes on"
    client.stdout.gate.set()
    await node.clock.advance(10)
    assert len(case.lines()) >= written + 10
    assert client.stdout.count == 1001 * len(case.lines())
    client.stdout.gate.clear()
    await node.clock.advance(1000)
    held_up = len(case.lines())
    await gone(session)
    await node.clock.advance(10)
    assert len(case.lines()) >= held_up + 10, "it still waits for a client that has gone"


async def test_who_reads_too_slowly_slows_the_container_down(node: Node) -> None:
    case = await node.start("sh", "-c", "sleep 1; yes | head -c 1000000; exit 3")
    client = Client()
    client.stdout.gate.clear()
    session = attach(case, client.streams)
    for _ in range(100):
        await node.clock.advance(1)
    assert case.running
    client.stdout.gate.set()
    await over(session)
    assert (client.stdout.count, case.code) == (1_000_000, 3)


async def test_input_that_nobody_wants_is_dropped(node: Node) -> None:
    case = await node.start("sh", "-c", "cat; echo empty; sleep 10")
    client = Client(*[b"x" * 10_000] * 100)
    session = attach(case, client.streams)
    taken = asyncio.Event()
    client.stdin.then(taken.set)
    async with asyncio.timeout(30):
        await taken.wait()
    await node.clock.advance(10)
    await over(session)
    assert case.output() == "empty\n"


async def test_it_returns_when_nothing_more_can_come(node: Node) -> None:
    case = await node.start("sh", "-c", "read a; while sleep 1; do echo x; done", stdin=True)
    await over(attach(case, Streams(stdin=Sent(b"a\n", closed=True))))
    out = Arrived()
    out.broken = True
    session = attach(case, Streams(stdin=Sent(closed=True), stdout=out))
    await node.clock.advance(2)
    await over(session)
    assert case.running


async def test_only_what_runs_can_be_attached_to(node: Node) -> None:
    created = await node.create("sleep", "inf")
    with pytest.raises(errors.FailedPrecondition):
        await attach(created, Client().streams)
    ended = await node.run("true")
    with pytest.raises(errors.FailedPrecondition, match="has ended"):
        await attach(ended, Client().streams)


async def test_a_shell_on_its_terminal(node: Node) -> None:
    case = await node.start("sh", tty=True, stdin=True)
    sizes = Sizes(Size(90, 25))
    client, watcher = Client(tty=True, sizes=sizes), Client(tty=True)
    session, watching = attach(case, client.streams), attach(case, Streams(stdout=watcher.stdout))
    client.stdin.send(b"stty size; tty\r")
    await client.stdout.has(b"25 90\r\n/dev/pts/0\r\n/ # ")
    client.stdin.send(b"sleep 1000\r")
    await client.stdout.has(b"sleep 1000\r\n")
    await node.clock.advance(0)
    client.stdin.send(b"\x03")
    await client.stdout.has(b"^C\r\n/ # ")
    client.stdin.send(b"trap 'stty size' WINCH\r")
    await client.stdout.has(b"WINCH\r\n/ # ")
    sizes.set(Size(40, 10))
    await client.stdout.has(b"10 40\r\n")
    await gone(session)
    again = Client(b"echo again; exit 6\r", tty=True)
    await over(attach(case, again.streams))
    await over(watching)
    assert again.stdout.data.endswith(b"again\r\n")
    assert case.code == 6
    assert watcher.stdout.data.endswith(again.stdout.data) and watcher.stdout.count > client.stdout.count
    assert case.log_file.read_bytes().count(b"stty size") == 2, "what is typed is in the log"


async def test_ctrl_c_at_the_first_process(node: Node) -> None:
    case = await node.start("sleep", "inf", tty=True, stdin=True)
    client = Client(b"typed\x03", tty=True)
    await over(attach(case, client.streams))
    assert client.stdout.data == b"typed^C"
    assert case.code == 130


async def test_a_terminals_stdin_for_one_client_ends_with_it(node: Node) -> None:
    case = await node.start("sh", "-c", "cat; echo end", tty=True, stdin=True, stdin_once=True)
    client = Client(b"a\r", closed=True, tty=True)
    await over(attach(case, client.streams))
    assert client.stdout.data.endswith(b"a\r\nend\r\n")
