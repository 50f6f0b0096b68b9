"""A bounded pipe inside this process: what one side writes, the other reads. `Source` and `Sink` at once."""

from __future__ import annotations

import asyncio
from collections import deque

ROOM = 1 << 18
"""Bytes that may wait in a pipe for their reader."""


class Pipe:
    """One writer, one reader."""

    def __init__(self, room: int = ROOM) -> None:
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._room = room
        self._closed = False
        self._broken = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes as they were written; b"" when the writer has closed. Raises what `fail` got."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._closed or self._broken:
                return b""
            await self._change()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk)
        self._tell()
        return chunk

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Returns when there is room for more. BrokenPipeError when nobody reads it, or after `close`."""
        if self._closed or self._broken:
            raise BrokenPipeError("nobody reads what is written here")
        if not data:
            return
        chunk = bytes(data)
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        self._tell()
        while self._waiting > self._room:
            await self._change()
        if self._broken:
            raise BrokenPipeError("nobody reads what is written here")

    async def close(self) -> None:
        """The writer's: the reader sees the end after what was written. Twice is fine."""
        self._closed = True
        self._tell()

    def fail(self, error: BaseException) -> None:
        """The writer's: the reader gets `error` after what was written."""
        self._error, self._closed = error, True
        self._tell()

    def leave(self) -> None:
        """The reader's: it reads no more, and the writer gets BrokenPipeError."""
        self._broken = True
        self._chunks.clear()
        self._waiting = 0
        self._tell()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
