"""SPDY sessions for tests: over a socket, and over a pipe that the test holds in its hands."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from podwright.streaming.spdy import Limits, Session, Stream, frames
from podwright.streaming.spdy.frames import Ping, SynReply, SynStream
from podwright.streaming.spdy.headers import Compressor


class HeldPipe:
    """A pipe whose transport does what the test says."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._compressor = Compressor()
        self._decoder = frames.Decoder(1 << 20)
        self._written = bytearray()
        self.reading = True
        self.closed = False
        self.aborted = False
        self.size = 0
        self.half = False

    def write(self, data: bytes, /) -> None:
        self._written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.size

    def can_write_eof(self) -> bool:
        return self.half

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._session.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def say(self, *said: frames.Frame) -> None:
        self._session.data_received(b"".join(map(frames.encode, said)))

    def syn(self, number: int, fin: bool = False) -> None:
        self.say(SynStream(number, self._compressor.block({"n": str(number)}), fin))

    def reply(self, number: int) -> None:
        self.say(SynReply(number, self._compressor.block({})))

    def heard(self) -> list[frames.Frame]:
        found = list(self._decoder.feed(bytes(self._written)))
        self._written.clear()
        return found


def held(limits: Limits | None = None) -> tuple[Session, HeldPipe]:
    """A server's session; its client has sent a PING."""
    session = Session(client=False, limits=limits or Limits())
    pipe = HeldPipe(session)
    session.connection_made(pipe)
    pipe.say(Ping(1))
    pipe.heard()
    return session, pipe


async def arrived(session: Session) -> Stream:
    async for stream in session.accept():
        return stream
    raise AssertionError("no stream came")


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[Session, Session]]:
    """A client and a server joined by a socket."""
    loop = asyncio.get_running_loop()
    sessions = Session(client=True), Session(client=False)
    for session, side in zip(sessions, socket.socketpair(), strict=True):
        await loop.create_connection(lambda session=session: session, sock=side)  # type: ignore[misc]
    try:
        yield sessions
    finally:
        for session in sessions:
            session.abort()
            await session.closed


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def echo(source: Stream, sink: Stream) -> None:
    """Until the end of `source`, or of either by force."""
    try:
        while data := await source.read():
            await sink.write(data)
        await sink.close()
    except ConnectionError:
        await source.reset()
        await sink.reset()


async def echo_all(session: Session) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for stream in session.accept():
            tasks.create_task(echo(stream, stream))
