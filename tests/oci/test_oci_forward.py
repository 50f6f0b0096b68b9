"""Connections into pods."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from podwright.engines.base import Sandbox
from podwright.engines.streams import Connection
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import namespaces
from tests.oci.bench import NODE, POD, Bench
from tests.oci.clients import Arrived, Sent, open_files
from tests.oci.test_oci_handlers import HANDLERS

pytestmark = pytest.mark.root


async def listening(bench: Bench, sandbox: Sandbox, address: str = "127.0.0.1") -> socket.socket:
    """A listener inside the pod; the test is the program behind it."""

    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.bind((address, 0))
        made.listen(100)
        made.setblocking(False)
        return made

    if sandbox.config.linux.security_context.namespace_options.network == NODE:
        return make()
    pin = Path(bench.config.run, "sandboxes", sandbox.id, "ns", "net")
    return await namespaces.inside(pin, "net", make)


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


async def accepted(listener: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    return await asyncio.open_connection(sock=connection)


class Forwarded:
    """A forwarded connection and its client."""

    def __init__(self, bench: Bench, sandbox: Sandbox, port: int) -> None:
        self.sent, self.arrived = Sent(), Arrived()
        connection = Connection(self.sent, self.arrived)
        self.task = asyncio.ensure_future(bench.engine.port_forward(sandbox, port, connection))


@pytest.mark.parametrize("network", [POD, NODE])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_each_direction_ends_by_itself(bench: Bench, network: int, address: str) -> None:
    sandbox = await bench.sandbox(network=network)
    with await listening(bench, sandbox, address) as listener:
        forwarded = Forwarded(bench, sandbox, port_of(listener))
        reader, writer = await accepted(listener)
        forwarded.sent.send(b"question")
        forwarded.sent.close()
        assert await reader.read() == b"question"
        assert not forwarded.task.done()
        writer.write(b"answer")
        writer.close()
        await asyncio.wait_for(forwarded.task, 30)
    assert forwarded.arrived.data == b"answer" and forwarded.arrived.closed


async def test_the_listener_may_end_first(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    with await listening(bench, sandbox) as listener:
        forwarded = Forwarded(bench, sandbox, port_of(listener))
        reader, writer = await accepted(listener)
        writer.write(b"greeting")
        writer.write_eof()
        await forwarded.arrived.has(b"greeting")
        forwarded.sent.send(b"late")
        forwarded.sent.close()
        assert await reader.read() == b"late"
        await asyncio.wait_for(forwarded.task, 30)
        writer.close()
    assert forwarded.arrived.closed


async def test_pods_are_apart(bench: Bench) -> None:
    one, other = await bench.sandbox(network=POD), await bench.sandbox(network=POD)
    with await listening(bench, one) as listener:
        with pytest.raises(FailedPrecondition, match=rf"port {port_of(listener)} of pod test/pod-.*inside"):
            await Forwarded(bench, other, port_of(listener)).task
        with pytest.raises(FailedPrecondition, match=r"127\.0\.0\.1: Connection refused; ::1: "):
            await Forwarded(bench, other, port_of(listener)).task


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_impossible_ports(bench: Bench, port: int) -> None:
    with pytest.raises(InvalidArgument, match=f"port: {port} is no port"):
        await Forwarded(bench, await bench.sandbox(network=POD), port).task


async def test_a_pod_that_is_gone(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    await bench.engine.stop_sandbox(sandbox)
    with pytest.raises(FailedPrecondition, match="has no network any more"):
        await Forwarded(bench, sandbox, 80).task


async def test_a_client_that_vanishes_resets_the_connection(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    with await listening(bench, sandbox) as listener:
        forwarded = Forwarded(bench, sandbox, port_of(listener))
        reader, writer = await accepted(listener)
        forwarded.sent.send(b"x")
        assert await reader.read(1) == b"x"
        forwarded.task.cancel()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_reset_is_told(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    with await listening(bench, sandbox) as listener:
        forwarded = Forwarded(bench, sandbox, port_of(listener))
        _, writer = await accepted(listener)
        writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        writer.transport.abort()
        with pytest.raises(FailedPrecondition, match=r"reset by peer"):
            await asyncio.wait_for(forwarded.task, 30)


async def test_each_side_waits_for_the_other(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    with await listening(bench, sandbox) as listener:
        forwarded = Forwarded(bench, sandbox, port_of(listener))
        forwarded.arrived.gate.clear()
        reader, writer = await accepted(listener)
        for _ in range(1000):
            forwarded.sent.send(b"i" * 65536)
        sending = asyncio.ensure_future(_write(writer, b"o" * 65536, 1000))
        await asyncio.sleep(0.5)
        assert not sending.done() and forwarded.sent.taken < 500 * 65536
        forwarded.sent.close()
        forwarded.arrived.gate.set()
        total = 0
        while chunk := await reader.read(1 << 20):
            total += len(chunk)
        await sending
        writer.close()
        await asyncio.wait_for(forwarded.task, 60)
    assert total == forwarded.arrived.count == 1000 * 65536


async def _write(writer: asyncio.StreamWriter, data: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(data)
        await writer.drain()


async def test_many_at_once_and_nothing_is_left(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    with await listening(bench, sandbox) as listener:

        async def echo(times: int) -> None:
            for _ in range(times):
                reader, writer = await accepted(listener)
                writer.write(await reader.read())
                writer.close()
                await writer.wait_closed()

        async def round(n: int) -> None:
            forwarded = Forwarded(bench, sandbox, port_of(listener))
            forwarded.sent.send(b"%d" % n)
            forwarded.sent.close()
            await forwarded.task
            assert forwarded.arrived.data == b"%d" % n

        await asyncio.gather(round(0), echo(1))
        before, threads = open_files(), threading.active_count()
        await asyncio.gather(*(round(n) for n in range(100)), echo(100))
        assert open_files() <= before
        assert threading.active_count() <= threads


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_program_in_the_pod(bench: Bench, handler: str) -> None:
    sandbox = await bench.sandbox(network=POD, handler=handler)
    container = await bench.container(sandbox, "nc", "-ll", "-p", "8080", "-e", "cat")
    async with asyncio.timeout(30):
        while True:
            forwarded = Forwarded(bench, sandbox, 8080)
            forwarded.sent.send(b"hello")
            forwarded.sent.close()
            try:
                await forwarded.task
            except FailedPrecondition:  # it does not listen yet
                await asyncio.sleep(0.05)
            else:
                if forwarded.arrived.data or handler != "runsc":
                    break
                # gVisor takes connections while nc is not yet there for them, and ends them.
    assert forwarded.arrived.data == b"hello", container
