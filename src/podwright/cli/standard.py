"""The standard streams of this process as ends of a session: read and written as others are ready.

Standard streams are shared with whoever started the program, so they are never made non-blocking: a shell
would find its terminal changed. What waits is the loop.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat

from podwright.linux.readiness import readable, writable

READ_SIZE = 1 << 16


class Input:
    """A descriptor as a `Source`: a terminal, a pipe, a file, a socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._file = _is_file(fd)

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, also that of a terminal that has gone."""
        while True:
            if not self._file:
                await readable(self._fd)
            try:
                if self._file:
                    return await asyncio.to_thread(os.read, self._fd, READ_SIZE)
                return os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                continue  # whoever shares it made it non-blocking, and has read first
            except OSError:
                return b""


class Output:
    """A descriptor as a `Sink`. `broken` is set when its reader has gone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._file = _is_file(fd)
        self._own = None if self._file else _opened_anew(fd)
        self.broken = asyncio.Event()

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        try:
            await self._write(memoryview(data))
        except BrokenPipeError:
            self.broken.set()
            raise

    async def _write(self, rest: memoryview) -> None:
        if self._file:
            while rest:
                rest = rest[await asyncio.to_thread(os.write, self._fd, rest) :]
            return
        fd, size = (self._fd, select.PIPE_BUF) if self._own is None else (self._own, len(rest))
        while rest:
            try:
                # A shared pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7), select(2)).
                if self._own is None:
                    await writable(fd)
                rest = rest[os.write(fd, rest[:size]) :]
            except BlockingIOError:
                await writable(fd)

    async def close(self) -> None:
        """What belongs to others stays open."""
        if self._own is not None:
            os.close(self._own)
            self._own = None


def _is_file(fd: int) -> bool:
    """Whether it is always ready, so that epoll refuses it: a file, a directory, /dev/null and its like."""
    mode = os.fstat(fd).st_mode
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)))


def _opened_anew(fd: int) -> int | None:
    """The same pipe through a description of our own, which may be non-blocking; None where that is not
    allowed, or it is no pipe."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
