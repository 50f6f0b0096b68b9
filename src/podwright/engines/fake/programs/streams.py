"""What the file descriptors of a fake process stand for: pipes, files, devices, the container's output.

A stream counts its holders, as the kernel does: a pipe has ended when the last process that could write to
it has closed it. Data are bytes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

PIPE_CAPACITY = 1 << 16
"""Bytes a writer is ahead of its reader at most (pipe(7))."""


class BrokenPipe(Exception):
    """Nobody reads any more what is written: a program dies of SIGPIPE."""


class Stream:
    """Reads as empty, takes what is written and forgets it: /dev/null."""

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        self._holders = 1

    def share(self) -> Stream:
        """One more holder."""
        self._holders += 1
        return self

    def close(self) -> None:
        """One holder less; the last one ends it."""
        self._holders -= 1
        if self._holders == 0:
            self._closed()

    def _closed(self) -> None:
        pass

    @property
    def terminal(self) -> bool:
        return False

    async def read(self, size: int, *, line: bool = False) -> bytes:
        """At most `size` bytes, b"" at the end; with `line` nothing beyond the next newline."""
        return b""

    async def write(self, data: bytes) -> None:
        """All of it. BrokenPipe; OSError."""


class Device(Stream):
    """Endless bytes from `source`; what is written is forgotten, or refused with `full`."""

    __slots__ = ("_full", "_source")

    def __init__(self, source: Callable[[int], bytes], *, full: bool = False) -> None:
        super().__init__()
        self._source = source
        self._full = full

    async def read(self, size: int, *, line: bool = False) -> bytes:
        await asyncio.sleep(0)  # it never ends, others want their turn
        return self._source(size)

    async def write(self, data: bytes) -> None:
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Text(Stream):
    """What is there to be read: a here-document."""

    __slots__ = ("_rest",)

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._rest = content

    async def read(self, size: int, *, line: bool = False) -> bytes:
        end = self._rest.find(b"\n", 0, size) + 1 or size if line else size
        found, self._rest = self._rest[:end], self._rest[end:]
        return found


class Capture(Stream):
    """Keeps the first `limit` bytes, and forgets the others."""

    __slots__ = ("_limit", "kept")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.kept = bytearray()
        self._limit = limit

    async def write(self, data: bytes) -> None:
        self.kept += data[: max(0, self._limit - len(self.kept))]


class Pipe:
    """Two streams: what is written to `writer` is read from `reader`, in order."""

    __slots__ = ("_buffer", "_deaf", "_error", "_finished", "_waiting", "reader", "writer")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: list[asyncio.Future[None]] = []
        self._deaf = False
        self._finished = False
        self._error: OSError | None = None
        self.reader: Stream = _Reader(self)
        self.writer: Stream = _Writer(self)

    async def take(self, size: int, line: bool = False) -> bytes:
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            await self._changed()
        end = min(size, len(self._buffer))
        if line:
            end = self._buffer.find(b"\n", 0, end) + 1 or end
        found = bytes(self._buffer[:end])
        del self._buffer[:end]
        self.wake()
        return found

    async def put(self, data: bytes) -> None:
        while not self._deaf:
            if self._error is not None:
                raise self._error
            if self._finished or self.reader._holders <= 0:
                raise BrokenPipe
            room = PIPE_CAPACITY - len(self._buffer)
            if room > 0:
                self._buffer += data[:room]
                data = data[room:]
                self.wake()
            if not data:
                return
            await self._changed()

    def push(self, data: bytes) -> None:
        """As `put`, but now, however full it is; nothing when nobody reads."""
        if not (self._deaf or self._finished or self._error) and self.reader._holders > 0:
            self._buffer += data
            self.wake()

    def offer(self, data: bytes) -> None:
        """As `push`, if there is room."""
        if not self.full:
            self.push(data)

    @property
    def full(self) -> bool:
        """Whether a writer would wait."""
        return len(self._buffer) >= PIPE_CAPACITY

    async def settled(self) -> None:
        """Until a writer would not wait."""
        while self.full:
            await self._changed()

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more but what is there."""
        return self._finished or self.writer._holders <= 0

    def finish(self) -> None:
        """The end of what is read is here, whoever could still write: they are told as if nobody read."""
        self._finished = True
        self.wake()

    def discard(self) -> None:
        """Forget what is there, and from now on what is written."""
        self._deaf = True
        self._buffer.clear()
        self.wake()

    def abandon(self) -> None:
        """Its reader is gone, with all that was to be read."""
        self._buffer.clear()
        self.reader.close()
        self.wake()

    def fail(self, error: OSError) -> None:
        """From now on reading and writing raise `error`; what is there is lost."""
        self._error = error
        self._buffer.clear()
        self.wake()

    async def _changed(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)


class _Reader(Stream):
    __slots__ = ("_pipe",)

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    async def read(self, size: int, *, line: bool = False) -> bytes:
        return await self._pipe.take(size, line)

    async def write(self, data: bytes) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _closed(self) -> None:
        self._pipe.wake()


class _Writer(Stream):
    __slots__ = ("_pipe",)

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    async def read(self, size: int, *, line: bool = False) -> bytes:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    async def write(self, data: bytes) -> None:
        await self._pipe.put(data)

    def _closed(self) -> None:
        self._pipe.wake()
