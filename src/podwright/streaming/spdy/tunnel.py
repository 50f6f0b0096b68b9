"""SPDY over something that is no asyncio transport: anything with a coroutine to receive and one to send
bytes, as WebSocket messages for port-forward."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from podwright.streaming.spdy.session import Session

Receive = Callable[[], Awaitable[bytes]]
"""The next bytes; b"" at the end."""
Send = Callable[[bytes], Awaitable[None]]
"""Returns when more may be sent."""

_MESSAGE = 1 << 16


async def carry(session: Session, receive: Receive, send: Send) -> None:
    """Give `session` these two as its pipe; returns when it has closed. What they raise ends the session, and
    is its error. Cancelled, it aborts the session. Closing what is below them is the caller's."""
    pipe = _CoroutinePipe(session)
    session.connection_made(pipe)
    tasks = [asyncio.create_task(pipe.pull(receive)), asyncio.create_task(pipe.push(send))]
    error: Exception | None = None
    try:
        await asyncio.wait({*tasks, pipe.over}, return_when=asyncio.FIRST_COMPLETED)
        # The end of the input ends the session; what it wrote before may still go out.
        done = {task for task in tasks if task.done()}
        for task in done:
            if isinstance(failure := task.exception(), Exception):
                error = failure
        if error is None and not pipe.over.done():
            await asyncio.wait({tasks[1], pipe.over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session.connection_lost(error)


class _CoroutinePipe:
    """A session's pipe whose bytes two tasks carry."""

    def __init__(self, session: Session) -> None:
        self.over: asyncio.Future[None] = session.loop.create_future()
        """Done when nothing is to be carried any more."""
        self._session = session
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._high = 1 << 16
        self._low = 1 << 14
        self._paused = False
        self._ending = False
        self._wanted = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()

    async def pull(self, receive: Receive) -> None:
        while True:
            await self._reads.wait()
            data = await receive()
            if not data:
                break
            self._session.data_received(data)
        self._session.eof_received()
        self.close()

    async def push(self, send: Send) -> None:
        while True:
            while not self._chunks:
                if self._ending:
                    return
                self._wanted.clear()
                await self._wanted.wait()
            data = self._next()
            await send(data)
            self._size -= len(data)
            if self._paused and self._size <= self._low:
                self._paused = False
                self._session.resume_writing()

    def _next(self) -> bytes:
        """A message's worth of what waits."""
        data = self._chunks.popleft()
        if not self._chunks or len(data) + len(self._chunks[0]) > _MESSAGE:
            return data
        parts, length = [data], len(data)
        while self._chunks and length + len(self._chunks[0]) <= _MESSAGE:
            parts.append(self._chunks.popleft())
            length += len(parts[-1])
        return b"".join(parts)

    def write(self, data: bytes, /) -> None:
        if self._ending:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._wanted.set()
        self._check_full()

    def _check_full(self) -> None:
        if not self._paused and self._size > self._high:
            self._paused = True
            self._session.pause_writing()

    def pause_reading(self) -> None:
        self._reads.clear()

    def resume_reading(self) -> None:
        self._reads.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = self._high if high is None else high
        self._low = self._high // 4 if low is None else low
        self._check_full()

    def get_write_buffer_size(self) -> int:
        return self._size

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise OSError("this pipe has no half of an end")

    def close(self) -> None:
        self._ending = True
        self._wanted.set()

    def abort(self) -> None:
        self._chunks.clear()
        self._ending = True
        if not self.over.done():
            self.over.set_result(None)
