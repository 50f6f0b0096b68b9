"""One stream of a session: read with `read`, written with `write`, ended in each direction by itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from podwright.streaming.spdy.frames import ResetStatus

if TYPE_CHECKING:
    from podwright.streaming.spdy.session import Session

_SMALL = 4096
"""Bytes up to which pieces are put together, so that a stream of tiny frames costs no more than its bytes."""


_TURN = 1 << 18
"""Bytes that may be sent before others have their turn."""


class Write:
    """What waits to be sent on a stream, and who waits for it."""

    __slots__ = ("done", "fin", "rest")

    def __init__(self, rest: memoryview, fin: bool, done: asyncio.Future[None]) -> None:
        self.rest = rest
        self.fin = fin
        self.done = done


class Stream:
    """Made by a session. A `Source` and a `Sink` of the engines at once. Of its coroutines `read` may be
    awaited by one task at a time."""

    def __init__(self, session: Session, stream_id: int, headers: Mapping[str, str], by_peer: bool) -> None:
        self._session = session
        self.id = stream_id
        self.headers = headers
        """Of the SYN_STREAM: the peer's for a stream that it opened, otherwise what `open` was given."""
        self.reply_headers: Mapping[str, str] = {}
        self.by_peer = by_peer
        self.writes: deque[Write] = deque()
        """The session's: what the windows or the transport have not taken yet."""
        self.in_turn = False
        """The session's: it waits for its turn to send."""
        self._at_once = 0
        """Bytes sent since others had their turn."""
        self._replied = not by_peer
        self._buffer: deque[bytes] = deque()
        self._received_fin = False
        self._sent_fin = False
        self._reset: int | None = None
        self._lost: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._answered: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """All that has come and was not read, in one piece; waits for the first byte. b"" when the peer has
        closed its direction. ConnectionResetError, after what had come, when the stream was reset or the
        session ended before that. What is not read counts against the whole session: `reset` a stream that is
        given up."""
        while not self._buffer:
            if self._received_fin:
                return b""
            if (why := self._why_ended()) is not None:
                raise ConnectionResetError(why)
            if self._reader is not None:
                raise RuntimeError(f"stream {self.id} is being read already")
            self.accept()
            self._reader = self._session.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._buffer.popleft() if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._session.consumed(self.id, len(data))
        return data

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Returns when all of it has been handed to the transport and more may be written. BrokenPipeError
        when the stream was closed or reset, or the session has ended. When cancelled, a part may have been
        sent."""
        self._check_writable()
        view = memoryview(data).cast("B")
        sent = 0 if self.writes else self._session.send(self, view)
        if sent < len(view):
            await self._queue(view[sent:], fin=False)
            return
        self._at_once += sent
        if self._at_once > _TURN:
            # A peer that takes everything must not keep the event loop from others, nor from its own end.
            self._at_once = 0
            await asyncio.sleep(0)

    async def close(self) -> None:
        """The peer sees the end of this direction after what was written. Nothing when it is closed already
        or the stream has ended."""
        if self._sent_fin or self._why_ended() is not None:
            return
        self._sent_fin = True
        if self.writes:
            await self._queue(memoryview(b""), fin=True)
        else:
            self._session.send_fin(self)

    def accept(self, headers: Mapping[str, str] | None = None) -> None:
        """Reply to a stream that the peer opened. The first `read`, `write` or `close` does it too. Nothing
        the second time."""
        if not self._replied:
            self._replied = True
            self._session.reply(self, headers or {})

    async def reset(self, status: int = ResetStatus.CANCEL) -> None:
        """End both directions at once; what has come and was not read is thrown away."""
        if not self.ended:
            self._session.send_reset(self, status)
        self._discard()
        # An end after what was thrown away would look as if it had been all.
        self._received_fin = False
        self.was_reset(status)

    async def wait_closed(self) -> None:
        """Returns when both directions have been closed, the stream was reset, or the session has ended."""
        if self.ended:
            return
        if self._ended is None:
            self._ended = self._session.loop.create_future()
        await asyncio.shield(self._ended)

    # What the session asks and tells

    @property
    def ended(self) -> bool:
        if self._reset is not None or self._lost is not None:
            return True
        return self._received_fin and self._sent_fin and not self.writes

    def has_ended(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def sent_all(self) -> None:
        """This side sends nothing (more)."""
        self._sent_fin = True

    async def wait_reply(self) -> None:
        """Until the peer has replied. ConnectionResetError when it refused the stream."""
        self._answered = self._session.loop.create_future()
        await self._answered

    def was_replied(self, headers: Mapping[str, str]) -> None:
        self.reply_headers = headers
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def received(self, data: bytes, fin: bool) -> None:
        if data:
            if self._buffer and len(self._buffer[-1]) + len(data) <= _SMALL:
                self._buffer[-1] += data
            else:
                self._buffer.append(data)
        self._received_fin |= fin
        self._wake_reader()

    def was_reset(self, status: int) -> None:
        """By the peer, by the protocol or by `reset`. What came before can still be read: a Go server ends
        the error stream, which carries the exit status, in this way."""
        if self._reset is None:
            self._reset = status
        self._end()

    def was_lost(self, error: BaseException) -> None:
        """The session has ended."""
        self._lost = error
        self._end()

    def _discard(self) -> None:
        length = sum(map(len, self._buffer))
        self._buffer.clear()
        if length:
            self._session.consumed(self.id, length)

    def _end(self) -> None:
        why = self._why_ended() or "the stream has ended"
        while self.writes:
            write = self.writes.popleft()
            if write.done.done():
                continue
            if write.fin:
                write.done.set_result(None)
            else:
                write.done.set_exception(BrokenPipeError(why))
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError(why))
        self._wake_reader()
        self.has_ended()

    def _check_writable(self) -> None:
        if (why := self._why_ended()) is not None:
            raise BrokenPipeError(why)
        if self._sent_fin:
            raise BrokenPipeError(f"SPDY stream {self.id} has been closed for writing")

    def _why_ended(self) -> str | None:
        if self._reset is not None:
            try:
                name = ResetStatus(self._reset).name
            except ValueError:
                name = f"status {self._reset}"
            return f"SPDY stream {self.id} was reset ({name})"
        if self._lost is not None:
            return str(self._lost)
        return None

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _queue(self, rest: memoryview, fin: bool) -> None:
        write = Write(rest, fin, self._session.loop.create_future())
        self.writes.append(write)
        self._session.wants_to_send(self)
        try:
            await write.done
        except asyncio.CancelledError:
            # An end that was asked for comes all the same; data belongs to the caller again.
            if not fin and write in self.writes:
                self.writes.remove(write)
            raise
