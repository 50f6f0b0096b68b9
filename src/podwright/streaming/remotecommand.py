"""Exec and attach as a server speaks them: the streams out of a connection, the call, how it ended.

The streams come over SPDY (v1 to v4.channel.k8s.io: one SPDY stream each, named by its header `streamtype`)
or over WebSocket (`channels`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from podwright.engines.streams import Sink, Streams
from podwright.errors import DeadlineExceeded, Unavailable
from podwright.streaming import channels, status
from podwright.streaming.channels import Channels
from podwright.streaming.sizes import Sizes
from podwright.streaming.spdy import ResetStatus, Session, Stream

PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
"""Over SPDY, the best first; the last is v1, also meant by clients that name none."""

LAST_WORDS = 2.0
"""Seconds that a client has to take the status of a session that is ended by the server's stop."""


class ClientLeft(Exception):
    """Nobody is there any more to hear how it went."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The streams that the client's request was for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(slots=True)
class Remote:
    """The client's end of an exec or attach."""

    streams: Streams
    error: Sink
    structured: bool
    """The error stream carries a document, not text."""
    gone: asyncio.Future[None] | asyncio.Future[Exception | None]
    """Done when the client has left."""
    resize: Stream | None = None
    sizes: Sizes | None = None


async def over_spdy(session: Session, asked: Asked, protocol: str, patience: float) -> Remote:
    """Wait for the streams that the client opens, at most `patience` seconds.

    ClientLeft; DeadlineExceeded when some are missing, which the error stream is told if there is one.
    """
    structured = protocol == "v4.channel.k8s.io"
    wanted = ["error", *(name for name in ("stdin", "stdout", "stderr") if getattr(asked, name))]
    if asked.tty and protocol in ("v4.channel.k8s.io", "v3.channel.k8s.io"):
        wanted.append("resize")
    found: dict[str, Stream] = {}
    try:
        async with asyncio.timeout(patience):
            await _gather(session, wanted, found)
    except TimeoutError:
        missing = ", ".join(name for name in wanted if name not in found)
        late = DeadlineExceeded(f"the client did not open these streams within {patience:g} s: {missing}")
        if "error" in found:
            await _say(found["error"], status.failed(late, structured=structured), LAST_WORDS)
        raise late from None
    sizes = Sizes() if asked.tty else None
    streams = Streams(found.get("stdin"), found.get("stdout"), found.get("stderr"), asked.tty, sizes)
    return Remote(streams, found["error"], structured, session.closed, found.get("resize"), sizes)


async def _gather(session: Session, wanted: list[str], found: dict[str, Stream]) -> None:
    async with aclosing(session.accept()) as arriving:  # type: ignore[type-var]
        async for stream in arriving:
            name = stream.headers.get("streamtype", "")
            if name not in wanted or name in found:
                await stream.reset(ResetStatus.REFUSED_STREAM)
                continue
            found[name] = stream
            stream.accept()
            if len(found) == len(wanted):
                return
    raise ClientLeft


async def over_websocket(connection: Channels, asked: Asked, subprotocol: str) -> Remote:
    """The channels are there from the beginning. ClientLeft."""
    sizes = Sizes() if asked.tty else None
    if sizes is not None:
        connection.listen(channels.RESIZE, sizes.feed)
    streams = Streams(
        connection.inlet(channels.STDIN) if asked.stdin else None,
        connection.outlet(channels.STDOUT) if asked.stdout else None,
        connection.outlet(channels.STDERR) if asked.stderr else None,
        asked.tty,
        sizes,
    )
    # The peers say so that the connection stands, and clients wait for it.
    first = channels.STDOUT if asked.stdout else channels.STDERR if asked.stderr else channels.ERROR
    try:
        await connection.send(first, b"")
    except BrokenPipeError:
        raise ClientLeft from None
    structured = subprotocol.startswith(("v4.", "v5."))
    return Remote(streams, connection.outlet(channels.ERROR), structured, connection.gone, sizes=sizes)


async def conduct(remote: Remote, call: Callable[[Streams], Awaitable[int]]) -> int | BaseException:
    """Let `call` have the streams, and tell the client how it went: the exit code, or what it failed with.

    When the client leaves, `call` is cancelled: ClientLeft. When this is cancelled, so is `call`, the client
    is told that the server stops, and CancelledError goes on.
    """
    work = asyncio.ensure_future(call(remote.streams))
    hang_up: Callable[[object], object] = lambda _: work.cancel()  # noqa: E731
    remote.gone.add_done_callback(hang_up)
    resizing = asyncio.ensure_future(_resize(remote)) if remote.resize is not None else None
    try:
        await asyncio.wait([work])
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.wait([work])
        stopping = Unavailable("podwright is stopping")
        await _tell(remote, status.failed(stopping, structured=remote.structured), LAST_WORDS)
        raise
    finally:
        remote.gone.remove_done_callback(hang_up)
        if resizing is not None:
            resizing.cancel()
            await asyncio.wait([resizing])
        if remote.sizes is not None:
            remote.sizes.end()
    if remote.gone.done():
        if not work.cancelled():
            work.exception()  # nobody is there to hear it
        raise ClientLeft
    return await _ended(remote, work)


async def _ended(remote: Remote, work: asyncio.Future[int]) -> int | BaseException:
    outcome: int | BaseException
    if work.cancelled():
        outcome = Unavailable("the session was cut off")
    else:
        outcome = work.exception() or work.result()
    if isinstance(outcome, BaseException):
        said = status.failed(outcome, structured=remote.structured)
    else:
        said = status.exited(outcome, structured=remote.structured)
    await _tell(remote, said)
    return outcome


async def _resize(remote: Remote) -> None:
    assert remote.resize is not None and remote.sizes is not None
    try:
        while data := await remote.resize.read():
            remote.sizes.feed(data)
    except ConnectionResetError:
        pass


async def _tell(remote: Remote, said: bytes, patience: float | None = None) -> None:
    """The ends of the output, and last how it went: clients take that for the end of all."""
    for sink in (remote.streams.stdout, remote.streams.stderr):
        if sink is not None:
            try:
                async with asyncio.timeout(patience):
                    await sink.close()
            except (BrokenPipeError, TimeoutError):
                pass
    await _say(remote.error, said, patience)


async def _say(error: Sink, said: bytes, patience: float | None) -> None:
    try:
        async with asyncio.timeout(patience):
            if said:
                await error.write(said)
            await error.close()
    except (BrokenPipeError, TimeoutError):
        pass
