"""port-forward: ports of this machine that lead to ports of a pod, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwright.cli.find import Found, find
from podwright.cli.output import in_words
from podwright.engines.streams import Connection
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError, Unavailable
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.streaming.client import Forwarding, Options

LOCALHOST = ("127.0.0.1", "::1")
READ_SIZE = 1 << 16
POLL = 1.0
"""Seconds between two looks whether the pod is there still: a CRI without events has no other way."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A port here, 0 for any that is free, and one of the pod."""

    local: int
    remote: int


async def port_forward(
    door: Door, word: str, ports: Sequence[str], addresses: Sequence[str], options: Options
) -> None:
    """Listen at each of `addresses` for each of `ports` ("8080:80", "80", ":80"), and carry every connection
    to the pod that `word` names. Returns after SIGINT or SIGTERM; FailedPrecondition when the pod has ended,
    Unavailable when the server goes away and does not come back."""
    from podwright.cli.share import lasting
    from podwright.streaming.client import forwarding

    pairs = [pair(text) for text in ports]
    async with lasting(door, None) as runtime:
        pod = await find(runtime, word, ("pod",))
        if not pod.is_up:
            raise FailedPrecondition(f"pod {pod.title} is not ready")
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
        async with (
            forwarding(runtime, pod.id, [each.remote for each in pairs], options) as tunnel,
            _listening(tunnel, pairs, addresses),
        ):
            watch = asyncio.ensure_future(_until_gone(runtime, pod))
            left = asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait([watch, left], return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    watch.result()
            finally:
                watch.cancel()
                left.cancel()
                await asyncio.gather(watch, left, return_exceptions=True)


async def _until_gone(runtime: Cri, pod: Found) -> None:
    """Raise what the connections to come would fail with. Those of a server that starts anew do not."""
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
    while True:
        try:
            state = (await runtime.pod_sandbox_status(request)).status.state
        except NotFound:
            state = cri.SANDBOX_NOTREADY
        if state != cri.SANDBOX_READY:
            raise FailedPrecondition(f"pod {pod.title} has ended")
        await asyncio.sleep(POLL)


def pair(text: str) -> Pair:
    """ "8080:80" -> 8080 here, 80 there; "80" is "80:80", ":80" any free port here. InvalidArgument."""
    local, colon, remote = text.partition(":")
    if not colon:
        remote = local
    try:
        found = Pair(int(local or "0"), int(remote))
    except ValueError:
        found = Pair(-1, -1)
    if not (0 <= found.local <= 65535 and 1 <= found.remote <= 65535):
        raise InvalidArgument("PORT", f"{text!r} is not [LOCAL:]REMOTE with ports from 1 to 65535")
    return found


@asynccontextmanager
async def _listening(
    tunnel: Forwarding, pairs: Sequence[Pair], addresses: Sequence[str]
) -> AsyncIterator[None]:
    carried: set[asyncio.Task[None]] = set()
    async with AsyncExitStack() as stack:
        for each in pairs:
            for address in addresses:
                for server in await _servers(tunnel, each, address, carried):
                    stack.callback(server.close)
        try:
            yield
        finally:
            for task in carried:
                task.cancel()
            await asyncio.gather(*carried, return_exceptions=True)


async def _servers(
    tunnel: Forwarding, pair: Pair, address: str, carried: set[asyncio.Task[None]]
) -> list[asyncio.Server]:
    """Those of one port at one address; "localhost" is both families, of which one suffices."""

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carried.add(task)
        task.add_done_callback(carried.discard)
        local = writer.get_extra_info("sockname")[1]
        await _carry(tunnel, Pair(local, pair.remote), reader, writer)

    made: list[asyncio.Server] = []
    failed: list[OSError] = []
    port = pair.local
    for host in LOCALHOST if address == "localhost" else (address,):
        try:
            server = await asyncio.start_server(arrived, host, port)
        except OSError as error:
            failed.append(error)
            continue
        made.append(server)
        for listener in server.sockets:
            name = listener.getsockname()
            port = port or name[1]
            shown = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
            print(f"Forwarding from {shown}:{name[1]} -> {pair.remote}", flush=True)
    if not made:
        raise Unavailable(f"cannot listen at {address}, port {pair.local}: {in_words(failed[0])}")
    return made


async def _carry(
    tunnel: Forwarding, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    task = asyncio.current_task()
    assert task is not None
    end = _End(reader, writer, task)
    try:
        await tunnel.connect(pair.remote, Connection(end, end))
    except PodwrightError as error:
        print(f"podwright: {pair.local} -> {pair.remote}: {error}", file=sys.stderr, flush=True)
        _reset(writer)
    except (BrokenPipeError, asyncio.CancelledError):
        _reset(writer)
    finally:
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """So that the client does not take what it has got for all there is."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        # What lingers for no second is not closed but reset (socket(7), tcp(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _End:
    """The local side of one connection. When its client has gone, `task`, which carries it, is cancelled."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        self._reader, self._writer, self._task = reader, writer, task

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_SIZE)
        except ConnectionError:
            self._task.cancel()
            await asyncio.Event().wait()  # until it is cancelled
            raise

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        try:
            self._writer.write(bytes(data))
            await self._writer.drain()
        except ConnectionError:
            raise BrokenPipeError("the client has gone") from None

    async def close(self) -> None:
        if self._writer.can_write_eof() and not self._writer.is_closing():
            try:
                self._writer.write_eof()
            except OSError:
                pass  # it has gone
