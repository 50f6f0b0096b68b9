"""Clients' connections with the first process of a container, by way of the conmon that has its streams.

conmon listens on a socket in the bundle. Each client has all output as packets, the first byte of which names
the stream; what it sends is the process's stdin. Sizes of a terminal go through the control FIFO.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from podwright.engines.attaching import until_over
from podwright.engines.oci import conmon
from podwright.engines.streams import Sink, Source, Streams
from podwright.errors import FailedPrecondition
from podwright.linux import sockets, spawn
from podwright.linux.readiness import readable, writable
from podwright.wire import cri_pb2 as cri

STDOUT, STDERR = 2, 3
"""First bytes of conmon's packets."""
OUTPUT_PACKET = 8192
"""Bytes of output in a packet at most."""
INPUT_PACKET = 16384
"""Bytes in a packet of ours; conmon cuts those off that are longer than 32768."""
BUFFER = 1 << 17


class Attachments:
    def __init__(self) -> None:
        self._parked: dict[Path, list[socket.socket]] = {}
        self._watches: set[asyncio.Task[None]] = set()

    async def attach(self, bundle: Path, config: cri.ContainerConfig, streams: Streams) -> None:
        """As `Engine.attach`, with the container of `bundle`."""
        try:
            connection = await sockets.connect_unix(bundle / "attach", socket.SOCK_SEQPACKET)
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError) as error:
            raise FailedPrecondition(f"nobody has the streams of {bundle.name}: it has ended") from error
        heard = config.stdin and streams.stdin is not None
        keep = False
        try:
            deaf = asyncio.Event()
            output = asyncio.ensure_future(_output(connection, streams, deaf))
            spoken, beside = [], []
            if streams.stdin is not None:
                spoken.append(asyncio.ensure_future(_input(streams.stdin, connection, heard)))
            if config.tty and streams.sizes is not None:
                beside.append(asyncio.ensure_future(_resize(bundle, streams)))
            keep = config.stdin and config.stdin_once and not heard
            ended = await until_over(output, spoken, deaf, beside)
            keep = keep and not ended
        finally:
            if keep:
                self._park(bundle, connection)
            else:
                connection.close()
        for sink in (streams.stdout, streams.stderr):
            if sink is not None:
                await sink.close()

    def close(self) -> None:
        for watch in self._watches:
            watch.cancel()
        for connections in self._parked.values():
            for each in connections:
                each.close()
        self._parked.clear()

    def _park(self, bundle: Path, connection: socket.socket) -> None:
        """Keep the connection of a client that only listened, and went, until the container ends: conmon
        would take any client's going for the one that ends stdin (stdin_once)."""
        # It writes nothing to us any more.
        connection.shutdown(socket.SHUT_RD)
        if bundle in self._parked:
            self._parked[bundle].append(connection)
            return
        self._parked[bundle] = [connection]
        watch = asyncio.ensure_future(self._unpark(bundle))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _unpark(self, bundle: Path) -> None:
        await spawn.exited(conmon.supervisor(bundle))
        for each in self._parked.pop(bundle, ()):
            each.close()


async def _output(connection: socket.socket, streams: Streams, deaf: asyncio.Event) -> None:
    """Hand on the packets until conmon has no more; `deaf` is set when no client wants any."""
    sinks: dict[int, Sink | None] = {STDOUT: streams.stdout, STDERR: streams.stderr}
    first = bytearray(1)
    buffer = memoryview(bytearray(BUFFER))
    kind, filled = 0, 0

    async def flush() -> None:
        nonlocal filled
        data, filled = buffer[:filled], 0
        sink = sinks.get(kind)
        if data and sink is not None:
            try:
                await sink.write(data)
            except BrokenPipeError:
                sinks[kind] = None

    while True:
        if not any(sinks.values()):
            deaf.set()
        try:
            count = connection.recvmsg_into([first, buffer[filled:]])[0]
        except BlockingIOError:
            await flush()
            await readable(connection.fileno())
            continue
        except ConnectionResetError:
            continue  # it has not read all that we sent; told once, and what it sent before comes after
        if not count:
            await flush()
            return
        if first[0] != kind and filled:
            # The packet lies behind what belongs to the other stream.
            new = bytes(buffer[filled : filled + count - 1])
            await flush()
            buffer[: len(new)] = new
        kind = first[0]
        filled += count - 1
        if len(buffer) - filled < OUTPUT_PACKET:
            await flush()


async def _input(source: Source, connection: socket.socket, heard: bool) -> None:
    """Hand on what the client sends, and its end; dropped where nobody hears it, so that it does not hold up
    the client's other streams."""
    while data := await source.read():
        rest = memoryview(data)
        while rest and heard:
            try:
                rest = rest[connection.send(rest[:INPUT_PACKET]) :]
            except BlockingIOError:
                await writable(connection.fileno())
            except OSError:
                heard = False
    if heard:
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the container has ended


async def _resize(bundle: Path, streams: Streams) -> None:
    assert streams.sizes is not None
    async for size in streams.sizes:
        conmon.resize(bundle, size.width, size.height)
