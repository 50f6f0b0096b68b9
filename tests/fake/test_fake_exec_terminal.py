"""Programs run in fake containers on a terminal."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
from pathlib import Path

import pytest

from podwright.engines.streams import Size
from tests.fake.containers import Case, Node
from tests.fake.test_fake_exec import ended, programs, run
from tests.oci.clients import Client, Sizes


@pytest.fixture
async def case(tmp_path: Path) -> Case:
    return await Node(tmp_path).start("sleep", "inf")


async def finished(session: asyncio.Task[int]) -> int:
    async with asyncio.timeout(30):
        return await session


async def test_a_terminal_is_one_stream_with_carriage_returns_and_a_size(case: Case) -> None:
    client = Client(tty=True, sizes=Sizes(Size(100, 30)))
    script = "tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo err >&2"
    assert await finished(run(case, client.streams, "sh", "-c", script)) == 0
    assert client.stdout.data == b"/dev/pts/0\r\n30 100\r\nxterm\r\nerr\r\n"


async def test_a_change_of_size_is_seen_and_told(case: Case) -> None:
    sizes = Sizes(Size(80, 24))
    client = Client(tty=True, sizes=sizes)
    script = "trap 'stty size' WINCH; stty size; while read line; do echo got $line; done"
    session = run(case, client.streams, "sh", "-c", script)
    await client.stdout.has(b"24 80\r\n")
    sizes.set(Size(132, 43))
    await client.stdout.has(b"43 132\r\n")
    client.stdin.close()
    assert await finished(session) == 0


KEYS = [
    b"plain words\n",
    b"return\r",
    b"one twx\x7fo\n",
    b"\x7f\x7fnothing to erase\n",
    b"two words\x17gone\n",
    b"a.b--\x17c d_e  \x17f\n",
    b"all of it\x15new\n",
    b"\x01\x02x\x7f\x7fy\n",
    b"\x1b[A\n",
    b"\xc3\xa4\xc3\xa4\x7f\x7f\n",
    b"no newline\x04",
]


@pytest.mark.parametrize("keys", KEYS)
async def test_what_is_typed_is_echoed_and_edited_as_the_kernel_does_it(case: Case, keys: bytes) -> None:
    client = Client(keys, b"\x04", tty=True)
    assert await finished(run(case, client.streams, "cat")) == 0
    assert client.stdout.data == await asyncio.to_thread(of_the_kernel, keys)


def of_the_kernel(keys: bytes) -> bytes:
    """What cat on a real terminal shows."""
    master, slave = os.openpty()
    cat = subprocess.Popen(["cat"], stdin=slave, stdout=slave, stderr=slave)
    try:
        os.write(master, keys)
        os.write(master, b"\4")
        seen = bytearray()
        while cat.poll() is None or select.select([master], [], [], 0)[0]:
            if select.select([master], [], [], 0.01)[0]:
                seen += os.read(master, 1 << 16)
        return bytes(seen)
    finally:
        cat.kill()
        cat.wait()
        os.close(slave)
        os.close(master)


async def test_ctrl_d_in_a_line_ends_only_what_is_read(case: Case) -> None:
    client = Client(b"half\x04", b"\x04", b"more\n", tty=True)
    script = "stty -echo; cat; echo; read line; echo [$line]"
    assert await finished(run(case, client.streams, "sh", "-c", script)) == 0
    assert client.stdout.data.endswith(b"half\r\n[more]\r\n")


async def test_the_end_of_a_clients_input_ends_that_of_the_program(case: Case) -> None:
    for sent in (b"a\n", b"a"):
        client = Client(sent, closed=True, tty=True)
        assert await finished(run(case, client.streams, "sh", "-c", "cat; echo end")) == 0
        assert client.stdout.data.endswith(b"end\r\n")


async def test_ctrl_c_ends_what_runs(case: Case) -> None:
    client = Client(tty=True)
    session = run(case, client.streams, "sh", "-c", "echo on; sleep 1000; echo never")
    await client.stdout.has(b"on")
    client.stdin.send(b"\x03")
    assert await finished(session) == 130
    assert client.stdout.data == b"on\r\n^C"
    await ended(case)


async def test_a_signal_takes_away_what_was_typed_before(case: Case) -> None:
    client = Client(b"old\nhalf\x03new\n", tty=True)
    session = run(case, client.streams, "sh", "-c", "trap : INT; sleep 5; read a; echo [$a]")
    await case.node.clock.advance(5)
    assert await finished(session) == 0
    assert client.stdout.data.endswith(b"[new]\r\n")


async def test_ctrl_c_reaches_a_program_that_writes_without_end(case: Case) -> None:
    client = Client(tty=True)
    client.stdout.gate.clear()
    session = run(case, client.streams, "yes")
    await case.node.clock.advance(0)
    client.stdin.send(b"\x03")
    await case.node.clock.advance(0)
    assert programs(case) == []
    client.stdout.gate.set()
    assert await finished(session) == 130


async def test_a_shell_that_somebody_types_to_outlives_ctrl_c(case: Case) -> None:
    client = Client(tty=True)
    session = run(case, client.streams, "sh")
    await client.stdout.has(b"/ # ")
    client.stdin.send(b"while :; do sleep 1; done\r")
    while ["sleep", "1"] not in programs(case):
        await case.node.clock.advance(0)
    client.stdin.send(b"\x03")
    await client.stdout.has(b"^C\r\n/ # ")
    client.stdin.send(b"echo status $?; half a li\x03")
    await client.stdout.has(b"half a li^C\r\n/ # ")
    client.stdin.send(b"sleep 50 & echo begun\r")
    await client.stdout.has(b"begun\r\n/ # ")
    client.stdin.send(b"\x03\x1cecho still here; exit 9\r")
    assert await finished(session) == 9
    assert client.stdout.data.endswith(b"still here\r\n")
    assert programs(case) == [["sleep", "50"]], "what is in the background has nothing to do with keys"


async def test_raw_bytes_go_through_as_they_are(case: Case) -> None:
    client = Client(tty=True)
    session = run(
        case, client.streams, "sh", "-c", "stty raw -echo; echo ready; head -c 4 | wc -c; stty sane"
    )
    await client.stdout.has(b"ready\n")
    client.stdin.send(b"\x03\x04\r\x7f")
    assert await finished(session) == 0
    assert client.stdout.data == b"ready\n4\n"


async def test_a_line_has_bounds(case: Case) -> None:
    client = Client(b"x" * 5000 + b"\n", b"\x04", tty=True)
    assert await finished(run(case, client.streams, "wc", "-c")) == 0
    assert client.stdout.data.split() == [b"x" * 5000, b"4096"]


async def test_a_terminals_input_has_bounds(case: Case) -> None:
    client = Client(*[b"x" * 1000 + b"\n"] * 100, tty=True)
    session = run(case, client.streams, "sh", "-c", "stty -echo; sleep 10; wc -c")
    await case.node.clock.advance(5)
    assert client.stdin.taken < 20_000, "more was taken than a terminal holds"
    client.stdin.close()
    await case.node.clock.advance(5)
    assert await finished(session) == 0
    assert client.stdout.data.endswith(b"100100\r\n")


async def test_a_vanished_client_closes_the_terminal(case: Case) -> None:
    client = Client(tty=True)
    script = "trap 'echo lost; echo $? > /tmp/wrote; exit' HUP; echo on; read line"
    session = run(case, client.streams, "sh", "-c", script)
    await client.stdout.has(b"on")
    session.cancel()
    await asyncio.wait([session])
    await ended(case)
    assert case.made.inside is not None
    assert case.made.inside.files.text("/tmp/wrote") == "1\n", "one could still write to it"


async def test_a_crash_of_the_server_closes_the_terminal(case: Case) -> None:
    client = Client(tty=True)
    session = run(case, client.streams, "sh")
    await client.stdout.has(b"/ # ")
    case.node.engine.crash()
    await ended(case)
    session.cancel()
    await asyncio.wait([session])
