"""Exec, attach and port-forward as a client: on the runtime in this process directly, on any CRI server
through its streaming server. Who calls hands over `Streams` and does not see which of the two it was.

Over the network WebSocket (`v5.channel.k8s.io`) is tried first and then SPDY/3.1, as kubectl does. WebSocket
before v5 cannot tell the end of the input, so it is spoken only by who asks for WebSocket and nothing else.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec

from podwright.api import Cri
from podwright.engines.streams import Connection, Sink, Size, Source, Streams
from podwright.errors import Unavailable
from podwright.streaming import client_status
from podwright.streaming.client_http import Refused, Tls
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.streaming.spdy import Session

Channel = Literal["stdout", "stderr", "error"]


class Transport(enum.StrEnum):
    """Over which protocol a streaming server is spoken to."""

    AUTO = "auto"
    WEBSOCKET = "websocket"
    SPDY = "spdy"


@dataclass(frozen=True, slots=True)
class Options:
    """How streaming servers are spoken to; nothing of it matters to the runtime in this process."""

    transport: Transport = Transport.AUTO
    tls: Tls = Tls()


class Wire(Protocol):
    """The connection of one exec or attach, whatever it is spoken over. ConnectionError when it is lost."""

    async def send(self, data: bytes) -> None:
        """To the process' input; returns when more may be sent."""

    async def end_input(self) -> None: ...

    async def resize(self, size: Size) -> None: ...

    async def read(self, channel: Channel) -> bytes:
        """The next bytes; b"" at the end of this channel."""

    async def leave(self, channel: Channel) -> None:
        """It is read no more; the others go on."""

    async def close(self, *, clean: bool) -> None:
        """`clean`: all has ended, and what was sent shall still arrive. Else the server sees that the client
        has gone."""


class Here(Protocol):
    """The runtime in this process: no server in between."""

    async def exec_streams(self, container_id: str, argv: Sequence[str], streams: Streams) -> int: ...

    async def attach_streams(self, container_id: str, streams: Streams) -> None: ...

    async def port_forward_connection(self, sandbox_id: str, port: int, connection: Connection) -> None: ...


def _here(runtime: Cri) -> Here | None:
    return cast(Here, runtime) if hasattr(runtime, "exec_streams") else None


async def exec(
    runtime: Cri, container_id: str, argv: Sequence[str], streams: Streams, options: Options = Options()
) -> int:
    """Run `argv` in the container, connected with `streams`; its exit code, 0..255.

    Cancelled, the command gets a hang-up. Errors are those of the engine; Unavailable when the connection is
    lost before the code is known.
    """
    if (here := _here(runtime)) is not None:
        return await here.exec_streams(container_id, argv, streams)
    request = cri.ExecRequest(
        container_id=container_id,
        cmd=argv,
        tty=streams.tty,
        stdin=streams.stdin is not None,
        stdout=streams.stdout is not None,
        stderr=streams.stderr is not None,
    )

    async def ask() -> str:
        return (await runtime.exec(request)).url

    async with _connected(ask, streams, options) as wire:
        status = await _converse(wire, streams)
    return client_status.exit_code(status)


async def attach(runtime: Cri, container_id: str, streams: Streams, options: Options = Options()) -> None:
    """Connect `streams` with the container's first process; returns when it has ended, or nothing more can
    come. Cancelled, the container goes on. `streams.tty` must be as the container has it."""
    if (here := _here(runtime)) is not None:
        await here.attach_streams(container_id, streams)
        return
    request = cri.AttachRequest(
        container_id=container_id,
        tty=streams.tty,
        stdin=streams.stdin is not None,
        stdout=streams.stdout is not None,
        stderr=streams.stderr is not None,
    )

    async def ask() -> str:
        return (await runtime.attach(request)).url

    async with _connected(ask, streams, options) as wire:
        status = await _converse(wire, streams)
    client_status.exit_code(status)


async def made_with(runtime: Cri, container_id: str) -> tuple[bool, bool]:
    """Whether a container's input is open, and whether it has a terminal: who attaches must say the same.

    The verbose status says it, each runtime in its way; where it does not, the input is tried and no terminal
    is expected.
    """
    request = cri.ContainerStatusRequest(container_id=container_id, verbose=True)
    info = msgspec.json.decode((await runtime.container_status(request)).info.get("info", "{}"))
    config, spec = info.get("config") or {}, info.get("runtimeSpec") or {}
    tty = bool(config.get("tty") or (spec.get("process") or {}).get("terminal"))
    return bool(config.get("stdin", not config)), tty


class Forwarding:
    """Connections to the ports of one pod.

    Over the network each has a session of its own, though one could carry many: a server written in Go that
    does not read from one of a session's streams (its port refuses) holds up others of the same session.
    """

    def __init__(self, runtime: Cri, sandbox_id: str, ports: Sequence[int], options: Options) -> None:
        self._runtime = runtime
        self._sandbox = sandbox_id
        self._request = cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        self._ways = _sessions(options)
        self._spare: Session | None = None
        self._here = _here(runtime)

    async def open(self) -> None:
        """Reach the streaming server already now: raises what a connection would."""
        if self._here is None:
            self._spare = await self._session()

    async def connect(self, port: int, connection: Connection) -> None:
        """Carry one connection to `port` of the pod until the pod's side has ended it; cancelled, it is cut.

        Raises PodwrightError in the words of the engine when the port cannot be reached, Unavailable when the
        streaming server is lost.
        """
        if self._here is not None:
            await self._here.port_forward_connection(self._sandbox, port, connection)
            return
        from podwright.streaming.client_forward import carry

        session, self._spare = self._spare, None
        if session is None or session.closed.done():
            session = await self._session()
        try:
            await carry(session, port, connection)
        finally:
            session.abort()

    def close(self) -> None:
        if self._spare is not None:
            self._spare.abort()
            self._spare = None

    async def _session(self) -> Session:
        way, session = await _first(self._ask, self._ways)
        self._ways = [way]
        return cast("Session", session)

    async def _ask(self) -> str:
        return (await self._runtime.port_forward(self._request)).url


@asynccontextmanager
async def forwarding(
    runtime: Cri, sandbox_id: str, ports: Sequence[int], options: Options = Options()
) -> AsyncIterator[Forwarding]:
    """To the ports `ports` of a pod. Raises what PortForward raises; Unavailable."""
    made = Forwarding(runtime, sandbox_id, ports, options)
    try:
        await made.open()
        yield made
    finally:
        made.close()


Way = Callable[[str], Coroutine[Any, Any, Any]]
"""From a URL to what is connected; raises Refused when the server does not speak so."""


async def _first(ask: Callable[[], Awaitable[str]], ways: Sequence[Way]) -> tuple[Way, Any]:
    """The first of `ways` that the server goes along with, and what it led to. Each needs a URL of its own: a
    URL works once."""
    for way in ways[:-1]:
        try:
            return way, await way(await ask())
        except Refused:
            continue
    try:
        return ways[-1], await ways[-1](await ask())
    except Refused as refused:
        raise refused.error from None


@asynccontextmanager
async def _connected(
    ask: Callable[[], Awaitable[str]], streams: Streams, options: Options
) -> AsyncIterator[Wire]:
    _, wire = await _first(ask, _wires(streams, options))
    clean = False
    try:
        yield wire
        clean = True
    finally:
        await wire.close(clean=clean)


def _wires(streams: Streams, options: Options) -> list[Way]:
    """The ways to a `Wire`, in the order they are tried."""
    from podwright.streaming import client_spdy, client_websocket

    spdy = partial(client_spdy.wire, streams, options.tls)
    websocket = partial(client_websocket.wire, streams, options.tls)
    match options.transport:
        case Transport.AUTO:
            return [partial(websocket, client_websocket.NEWEST), spdy]
        case Transport.WEBSOCKET:
            return [partial(websocket, client_websocket.ALL)]
        case Transport.SPDY:
            return [spdy]


def _sessions(options: Options) -> list[Way]:
    """The ways to the SPDY session of a port-forward."""
    from podwright.streaming import client_spdy, client_websocket

    spdy, websocket = partial(client_spdy.tunnel, options.tls), partial(client_websocket.tunnel, options.tls)
    match options.transport:
        case Transport.AUTO:
            return [websocket, spdy]
        case Transport.WEBSOCKET:
            return [websocket]
        case Transport.SPDY:
            return [spdy]


class _Status:
    """What the error stream has said. Nothing comes after it: servers written in Go end the other streams by
    resetting them then, those of WebSocket by the end of the connection."""

    def __init__(self) -> None:
        self.document = bytearray()
        self.over = asyncio.Event()

    async def collect(self, wire: Wire) -> None:
        try:
            while data := await wire.read("error"):
                self.document += data
        except ConnectionError as error:
            if not self.document:
                raise _lost(error) from None
        finally:
            self.over.set()


async def _converse(wire: Wire, streams: Streams) -> bytes:
    """Carry everything both ways until the server has ended it; what the error stream said."""
    status = _Status()
    outward = [status.collect(wire)]
    for channel, sink in (("stdout", streams.stdout), ("stderr", streams.stderr)):
        if sink is not None:
            outward.append(_receive(wire, cast(Channel, channel), sink, status))
    inward: list[Coroutine[Any, Any, None]] = []
    if streams.stdin is not None:
        inward.append(_send(streams.stdin, wire))
    if streams.sizes is not None:
        inward.append(_resize(streams.sizes, wire))
    await _until_all(outward, inward)
    return bytes(status.document)


async def _until_all(
    needed: Sequence[Coroutine[Any, Any, None]], beside: Sequence[Coroutine[Any, Any, None]]
) -> None:
    """Until all `needed` have ended, or one of them or of those `beside` them has failed: then the others are
    cancelled, and its error is raised."""
    main = [asyncio.ensure_future(work) for work in needed]
    tasks = [*main, *(asyncio.ensure_future(work) for work in beside)]
    try:
        while not all(task.done() for task in main):
            pending = [task for task in tasks if not task.done()]
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(source: Source, wire: Wire) -> None:
    while True:
        data = await source.read()
        try:
            if not data:
                await wire.end_input()
                return
            await wire.send(data)
        except ConnectionError:
            return  # the command reads no more; its status tells whether that matters


async def _resize(sizes: AsyncIterator[Size], wire: Wire) -> None:
    async for size in sizes:
        try:
            await wire.resize(size)
        except ConnectionError:
            return


async def _receive(wire: Wire, channel: Channel, sink: Sink, status: _Status) -> None:
    try:
        while data := await _read(wire, channel, status):
            try:
                await sink.write(data)
            except BrokenPipeError:
                await wire.leave(channel)
                return
    finally:
        await sink.close()


async def _read(wire: Wire, channel: Channel, status: _Status) -> bytes:
    try:
        return await wire.read(channel)
    except ConnectionError as error:
        await status.over.wait()
        if status.document:
            return b""
        raise _lost(error) from None


def _lost(error: ConnectionError) -> Unavailable:
    return Unavailable(f"the connection to the streaming server is lost: {error}")
