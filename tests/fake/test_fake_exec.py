"""Programs run in fake containers with a client's streams, by pipes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podwright import errors
from podwright.engines.fake.sessions import HANGUP_GRACE
from podwright.engines.streams import Streams
from podwright.wire import cri_pb2 as cri
from tests.fake.containers import Case, Node
from tests.oci.clients import Arrived, Client, Sent

ALL = bytes(range(256)) * 1000


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
async def case(node: Node) -> Case:
    return await node.start("sleep", "inf", working_dir="/tmp", envs=[cri.KeyValue(key="A", value=b"b=c")])


def run(case: Case, streams: Streams, *argv: str) -> asyncio.Task[int]:
    return asyncio.ensure_future(case.node.engine.exec(case.container, argv, streams))


async def sh(case: Case, script: str, *sent: bytes, closed: bool = True) -> tuple[int, str, str]:
    client = Client(*sent, closed=closed)
    async with asyncio.timeout(30):
        code = await run(case, client.streams, "sh", "-c", script)
    assert client.stdout.closed and client.stderr.closed
    return code, client.stdout.data.decode(), client.stderr.data.decode()


def programs(case: Case) -> list[list[str]]:
    assert case.made.inside is not None
    return [each.argv for each in case.made.inside.processes.values()]


async def ended(case: Case, seconds: float = 0) -> None:
    await case.node.clock.advance(seconds)
    assert programs(case) == []


async def test_it_runs_as_the_container_does(case: Case) -> None:
    assert await sh(case, "echo $A; pwd; echo no >&2; exit 42") == (42, "b=c\n/tmp\n", "no\n")
    assert (await sh(case, "kill -9 $$"))[0] == 137
    assert (await sh(case, "tty; test -t 1"))[:2] == (1, "not a tty\n")


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
async def test_a_command_that_cannot_run_has_the_code_that_shells_give(
    case: Case, command: str, code: int
) -> None:
    client = Client()
    assert await run(case, client.streams, command) == code
    assert client.stderr.data.decode().startswith(f'exec: "{command}": ')
    assert client.stdout.data == b"" and client.stdout.closed and client.stderr.closed
    with pytest.raises(errors.CommandFailed):  # without a stream for it the reason must not get lost
        await run(case, Streams(stdout=Arrived()), command)
    client = Client(tty=True)
    assert await run(case, client.streams, command) == code
    assert client.stdout.data.endswith(b"\r\n")


async def test_the_end_of_stdin_reaches_it_and_bytes_stay_as_they_are(case: Case) -> None:
    client = Client(ALL[:1000], ALL[1000:], closed=True)
    assert await run(case, client.streams, "cat") == 0
    assert client.stdout.data == ALL
    assert await sh(case, "read a; echo [$a]; cat | wc -c", b"one\ntwo", b"three") == (0, "[one]\n8\n", "")


async def test_without_stdin_there_is_nothing_to_read_and_without_outputs_they_vanish(case: Case) -> None:
    out = Arrived()
    assert await run(case, Streams(stdout=out), "sh", "-c", "cat; echo end; yes | head -c 300000 >&2") == 0
    assert out.data == b"end\n"
    assert await run(case, Streams(stdin=Sent(closed=True)), "sh", "-c", "yes | head -c 300000") == 0


async def test_neither_side_gets_ahead_of_the_other(case: Case) -> None:
    client = Client()
    client.stdout.gate.clear()
    session = run(case, client.streams, "sh", "-c", "yes | head -c 1000000; echo done >&2")
    await case.node.clock.advance(10)
    assert client.stdout.count == 0 and client.stderr.count == 0, "it got ahead of its client"
    client.stdout.gate.set()
    async with asyncio.timeout(30):
        assert await session == 0
    assert client.stdout.count == 1_000_000
    assert client.stderr.data == b"done\n"
    client = Client(*[b"x" * 10_000] * 100)
    session = run(case, client.streams, "sh", "-c", "sleep 60; cat")
    await case.node.clock.advance(30)
    assert 0 < client.stdin.taken < 200_000, "more was taken than a pipe holds"
    client.stdin.close()
    await case.node.clock.advance(30)
    async with asyncio.timeout(30):
        assert await session == 0
    assert client.stdout.count == 1_000_000


async def test_a_client_that_reads_an_output_no_more_breaks_that_pipe_alone(case: Case) -> None:
    client = Client()
    client.stdout.broken = True
    async with asyncio.timeout(30):
        code = await run(case, client.streams, "sh", "-c", "yes; echo $? >&2")
    assert code == 0
    assert client.stderr.data == b"141\n"


async def test_input_that_nobody_reads_holds_up_nothing(case: Case) -> None:
    client, taken = Client(*[b"x" * 10_000] * 100), asyncio.Event()
    client.stdin.then(taken.set)
    session = run(case, client.streams, "sh", "-c", "exec 0<&-; echo closed; sleep 10; echo end")
    await client.stdout.has(b"closed")
    async with asyncio.timeout(30):
        await taken.wait()
    await case.node.clock.advance(10)
    assert await session == 0
    assert client.stdout.data == b"closed\nend\n"


async def test_what_stays_in_the_background_does_not_delay_the_end(case: Case) -> None:
    client = Client()
    async with asyncio.timeout(30):
        code = await run(
            case, client.streams, "sh", "-c", "sleep 100 & (sleep 5; echo late) & echo first & echo last"
        )
    assert code == 0 and sorted(client.stdout.data.split()) == [b"first", b"last"]
    assert ["sleep", "100"] in programs(case)
    await ended(case, 100)


async def test_the_containers_end_ends_it(case: Case) -> None:
    client = Client()
    session = run(case, client.streams, "sh", "-c", "echo on; sleep 100")
    await client.stdout.has(b"on")
    await case.signal(9)
    assert await session == 137
    with pytest.raises(errors.FailedPrecondition, match="has ended"):
        await run(case, client.streams, "true")


async def test_a_client_that_goes_hangs_up(case: Case) -> None:
    client = Client()
    session = run(
        case, client.streams, "sh", "-c", "trap 'echo x; echo hup > /tmp/told; exit' HUP; echo on; cat"
    )
    await client.stdout.has(b"on")
    session.cancel()
    await asyncio.wait([session])
    assert session.cancelled()
    await ended(case)
    assert (await sh(case, "cat /tmp/told"))[1] == "hup\n"


async def test_who_stays_after_a_hang_up_is_killed(case: Case) -> None:
    client = Client()
    session = run(
        case, client.streams, "sh", "-c", "trap '' HUP; echo on; while sleep 1; do yes | head; done"
    )
    await client.stdout.has(b"on")
    session.cancel()
    await asyncio.wait([session])
    await case.node.clock.advance(HANGUP_GRACE - 0.5)
    assert programs(case), "it had no time to end itself"
    await ended(case, 1)
    assert case.running


async def test_a_stream_that_fails_hangs_up(case: Case) -> None:
    class Failing(Sent):
        async def read(self) -> bytes:
            await super().read()
            raise ConnectionResetError("the client is gone")

    source, out = Failing(), Arrived()
    session = run(case, Streams(stdin=source, stdout=out), "sh", "-c", "echo on; sleep 100")
    await out.has(b"on")
    source.send(b"x")
    with pytest.raises(ConnectionResetError):
        await session
    await ended(case)


async def test_a_crash_of_the_server_takes_the_streams_and_leaves_the_program(case: Case) -> None:
    client, quiet = Client(), Client()
    talking = run(case, client.streams, "sh", "-c", "echo on; while sleep 1; do echo more; done")
    silent = run(case, quiet.streams, "sh", "-c", "cat; echo end > /tmp/end; echo x; echo no > /tmp/no")
    await client.stdout.has(b"on")
    case.node.engine.crash()
    await case.node.clock.advance(3)
    assert client.stdout.data == b"on\n", "what is gone has passed something on"
    assert programs(case) == [], "nobody reads: they die of it"
    for each in (talking, silent):
        each.cancel()
    await asyncio.wait([talking, silent])
    assert case.made.inside is not None
    assert case.made.inside.files.text("/tmp/end") == "end\n"
    assert case.made.inside.files.kind("/tmp/no") is None


def scripted(**answer: Any) -> dict[str, Any]:
    return {"containers": [{"exec": [{"command": "ask *", **answer}]}]}


async def test_the_scenario_answers(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(stdout="out\n", stderr="err\n", code=3, after="5s", times=1))
    case = await node.start("sleep", "inf")
    client = Client()
    session = run(case, client.streams, "ask", "me")
    await node.clock.advance(4.9)
    assert not session.done()
    await node.clock.advance(0.1)
    assert await session == 3
    assert client.stdout.data == b"out\n"
    assert client.stderr.data == b"err\n"
    assert await run(case, Client().streams, "ask", "me") == 127, "the answer was given often enough"


@pytest.mark.parametrize("place", ["exec.start", "attach.attach", "port_forward.connect"])
async def test_faults_strike_before_anything_is_done(tmp_path: Path, place: str) -> None:
    fault = {"on": place, "latency": "3s", "error": {"code": "Unavailable", "message": "not now"}}
    node = Node(tmp_path, {"faults": [fault]})
    case = await node.start("sleep", "inf")
    engine, streams = node.engine, Client().streams
    call: Any = {
        "exec.start": lambda: engine.exec(case.container, ["true"], streams),
        "attach.attach": lambda: engine.attach(case.container, streams),
        "port_forward.connect": lambda: engine.port_forward(case.container.sandbox, 80, None),  # type: ignore[arg-type]
    }[place]
    task = asyncio.ensure_future(call())
    await node.clock.advance(2.9)
    assert not task.done()
    await node.clock.advance(0.1)
    with pytest.raises(errors.Unavailable, match="not now"):
        await task
    assert case.made.inside is None
