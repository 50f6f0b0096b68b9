"""Programs run inside containers on a terminal."""

from __future__ import annotations

import asyncio
import os
import termios
from io import FileIO

import pytest

from podwright.engines.base import Container
from podwright.engines.streams import Size
from podwright.linux import terminals
from tests.oci.bench import Bench
from tests.oci.clients import Client, Sizes
from tests.oci.test_oci_handlers import HANDLERS

pytestmark = pytest.mark.root


@pytest.fixture(params=HANDLERS)
async def container(bench: Bench, request: pytest.FixtureRequest) -> Container:
    return await bench.container(await bench.sandbox(handler=request.param), "sleep", "1000")


async def test_it_is_a_terminal(bench: Bench, container: Container) -> None:
    client = Client(tty=True)
    script = "test -t 0 -a -t 1 -a -t 2 && echo yes; echo $TERM; exit 3"
    assert await bench.engine.exec(container, ["sh", "-c", script], client.streams) == 3
    assert client.stdout.data == b"yes\r\nxterm\r\n" and client.stdout.closed


async def test_its_size_follows_the_clients(bench: Bench, container: Container) -> None:
    sizes = Sizes(Size(0, 0), Size(132, 43))
    client = Client(tty=True, sizes=sizes)
    script = 'trap "stty size" WINCH; while :; do stty size; read line && exit 9; done'
    running = asyncio.ensure_future(bench.engine.exec(container, ["sh", "-c", script], client.streams))
    await client.stdout.has(b"43 132\r\n")
    sizes.set(Size(100, 30))
    await client.stdout.has(b"30 100\r\n")
    client.stdin.send(b"\n")
    assert await running == 9


async def test_an_interactive_shell(bench: Bench, container: Container) -> None:
    client = Client(tty=True)
    running = asyncio.ensure_future(bench.engine.exec(container, ["sh", "-i"], client.streams))
    client.stdin.send(b"echo $((40+2))\n")
    await client.stdout.has(b"42\r\n")
    # A job is stopped and goes on, and the interrupt reaches the foreground alone.
    job = b"""sh -c 'trap "echo again" CONT; echo up; while :; do sleep 0.05; done'\n"""
    client.stdin.send(job)
    await client.stdout.has(b"\r\nup\r\n")
    client.stdin.send(b"\x1a")
    await client.stdout.has(b"Stopped")
    client.stdin.send(b"fg\n")
    await client.stdout.has(b"\nagain\r\n")
    client.stdin.send(b"\x03")
    await client.stdout.until(lambda data: b"# " in data.partition(b"^C")[2])
    client.stdin.send(b"echo over:$?\n")
    await client.stdout.has(b"over:130")
    client.stdin.send(b"exit 7\n")
    assert await running == 7


async def test_the_end_of_stdin_is_a_typed_end_of_file(bench: Bench, container: Container) -> None:
    client = Client(b"a line\n", b"and a half", closed=True, tty=True)
    assert await bench.engine.exec(container, ["cat"], client.streams) == 0
    assert client.stdout.data.endswith(b"and a half")


@pytest.mark.parametrize("count", [300, 3000, 20000])  # less and more than a terminal holds
async def test_no_output_is_lost_at_the_end(bench: Bench, container: Container, count: int) -> None:
    client = Client(tty=True)
    client.stdout.gate.clear()
    command = ["sh", "-c", f"seq 1 {count}; touch /over"]
    running = asyncio.ensure_future(bench.engine.exec(container, command, client.streams))
    if count < 1000:
        await bench.exec(container, "sh", "-c", "until test -e /over; do sleep 0.01; done; sleep 0.2")
    client.stdout.gate.set()
    assert await running == 0
    assert client.stdout.data.split() == [str(n).encode() for n in range(1, count + 1)]


def test_newlines_become_what_terminals_expect_also_of_runtimes_that_turn_it_off() -> None:
    master, slave = os.openpty()
    try:
        settings = termios.tcgetattr(slave)
        settings[1] &= ~termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        terminals.return_carriages(master)
        os.write(slave, b"a\nb")
        assert os.read(master, 100) == b"a\r\nb"
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("command, code", [("true", 0), ("no-such-program", 127)])
async def test_an_end_that_is_seen_before_the_terminal(
    bench: Bench, container: Container, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    receive = terminals.Console.receive

    async def late(console: terminals.Console) -> FileIO:
        await asyncio.sleep(0.3)
        return await receive(console)

    monkeypatch.setattr(terminals.Console, "receive", late)
    client = Client(tty=True)
    assert await bench.engine.exec(container, [command], client.streams) == code
    assert (command.encode() in client.stdout.data) == (code == 127)


async def test_a_command_that_is_not_there(bench: Bench, container: Container) -> None:
    client = Client(tty=True)
    assert await bench.engine.exec(container, ["no-such-program"], client.streams) == 127
    assert b"no-such-program" in bytes(client.stdout.data) and client.stdout.data.endswith(b"\r\n")
