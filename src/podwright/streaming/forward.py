"""Port-forward as a server speaks it: connections to ports of a pod over one connection of the client.

Over SPDY (portforward.k8s.io; also tunnelled in a WebSocket) the client opens two streams for each
connection, one for its bytes and one for errors, with the headers streamtype, port and requestid. In the old
protocol over WebSocket (v4.channel.k8s.io) each port of the request has two channels, and one connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from podwright.engines.streams import Connection, Sink
from podwright.streaming import status
from podwright.streaming.channels import Channels
from podwright.streaming.spdy import ResetStatus, Session, Stream

PROTOCOL = "portforward.k8s.io"

REST = 30.0
"""Seconds in which a client whose connection the pod has ended may still end its own direction."""

Call = Callable[[int, Connection], Awaitable[None]]
"""Carries one connection to a port, and returns when both directions have ended."""

log = logging.getLogger("podwright.streaming")


@dataclass(eq=False, slots=True)
class _Pair:
    """What has come of the two streams of one connection."""

    request: str
    port: int
    streams: dict[str, Stream] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


async def over_spdy(session: Session, call: Call, patience: float) -> int:
    """Serve until the client leaves; returns how many connections there were. A pair of streams must be there
    within `patience` seconds. Cancelled, it cuts all of them."""
    serving = _Serving(call, patience)
    try:
        async with aclosing(session.accept()) as arriving:  # type: ignore[type-var]
            async for stream in arriving:
                await serving.take(stream)
    finally:
        await serving.stop()
    return serving.count


class _Serving:
    def __init__(self, call: Call, patience: float) -> None:
        self.count = 0
        self._call = call
        self._patience = patience
        self._pairs: dict[str, _Pair] = {}
        """Those that wait for their second stream."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, stream: Stream) -> None:
        kind = stream.headers.get("streamtype", "")
        port = _port(stream.headers.get("port", ""))
        if kind not in ("data", "error") or port is None:
            log.debug("port-forward: refused a stream of type %r, port %r", kind, stream.headers.get("port"))
            await stream.reset(ResetStatus.REFUSED_STREAM)
            return
        request = stream.headers.get("requestid", "") or _request(stream, kind)
        pair = self._pairs.get(request)
        if pair is None:
            pair = self._pairs[request] = _Pair(request, port)
            pair.timer = asyncio.get_running_loop().call_later(self._patience, self._late, pair)
        if kind in pair.streams or pair.port != port:
            await stream.reset(ResetStatus.PROTOCOL_ERROR)
            return
        pair.streams[kind] = stream
        stream.accept()
        if len(pair.streams) == 2:
            self._drop(pair)
            self.count += 1
            self._start(_carry(pair, self._call))

    async def stop(self) -> None:
        for pair in list(self._pairs.values()):
            self._drop(pair)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _late(self, pair: _Pair) -> None:
        self._drop(pair)
        self._start(_give_up(pair, self._patience))

    def _drop(self, pair: _Pair) -> None:
        del self._pairs[pair.request]
        if pair.timer is not None:
            pair.timer.cancel()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except (ConnectionError, TimeoutError):
        pass  # the client has left, or ended this stream


async def _carry(pair: _Pair, call: Call) -> None:
    data, error = pair.streams["data"], pair.streams["error"]
    if failure := await _failure(call, pair.port, Connection(data, data)):
        await error.write(failure.encode())
        await error.close()
        # The client shall not take it for an end that the pod has made.
        await data.reset(ResetStatus.INTERNAL_ERROR)
        return
    await data.close()
    await error.close()
    try:
        async with asyncio.timeout(REST):
            while await data.read():
                pass  # it is for a connection that is gone
    except TimeoutError:
        await data.reset()


async def _give_up(pair: _Pair, patience: float) -> None:
    if (error := pair.streams.get("error")) is not None:
        await error.write(f"the stream for data did not come within {patience:g} s".encode())
        await error.close()
    for stream in pair.streams.values():
        await stream.reset()


async def over_channels(channels: Channels, ports: list[int], call: Call) -> None:
    """The old protocol: one connection to each of `ports`, until all have ended or the client leaves."""

    async def carry(at: int, port: int) -> None:
        data, error = channels.outlet(2 * at), channels.outlet(2 * at + 1)
        name = port.to_bytes(2, "little")
        try:
            await data.write(name)
            await error.write(name)
            await _one(port, Connection(inlets[at], data), error, call)
        except BrokenPipeError:
            pass

    inlets = [channels.inlet(2 * at) for at in range(len(ports))]
    tasks = [asyncio.ensure_future(carry(at, port)) for at, port in enumerate(ports)]

    def cut(_: object = None) -> None:
        for task in tasks:
            task.cancel()

    channels.gone.add_done_callback(cut)
    try:
        await asyncio.wait(tasks)
    finally:
        cut()
        await asyncio.wait(tasks)
        channels.gone.remove_done_callback(cut)


async def _one(port: int, connection: Connection, error: Sink, call: Call) -> None:
    if failure := await _failure(call, port, connection):
        await error.write(failure.encode())


async def _failure(call: Call, port: int, connection: Connection) -> str:
    """Why the connection could not be made or carried; "" when it has ended well, or the client has cut it.

    client-go cuts every connection that the pod ends first, and takes any word about it as the end of all.
    """
    try:
        await call(port, connection)
    except ConnectionError as cut:
        log.debug("port-forward to %d: the client has cut it: %s", port, cut)
    except Exception as failure:
        log.debug("port-forward to %d: %s", port, failure)
        return f"cannot forward port {port}: {status.words(failure)}"
    return ""


def _port(text: str) -> int | None:
    digits = text.isascii() and text.isdigit() and len(text) <= 5
    return port if digits and 0 < (port := int(text)) < 65536 else None


def _request(stream: Stream, kind: str) -> str:
    """Of old clients that give none: they open the stream for errors first, and the other right after it."""
    return f"#{stream.id if kind == 'error' else stream.id - 2}"
