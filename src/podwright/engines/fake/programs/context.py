"""What a program of a fake container gets, and all that it gets.

A program is an async function from a `Context` to its exit status. It waits by the context's clock only, and
holds nothing of the world: where its output goes and who signals it is the process's affair.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from podwright.clock import Clock
from podwright.engines.fake.programs.files import Files, Kind
from podwright.engines.fake.programs.streams import Stream

if TYPE_CHECKING:
    from podwright.engines.fake.inside import Inside
    from podwright.engines.fake.process import Process

CHUNK = 1 << 16

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class OutOfMemory(Exception):
    """The process holds more than its container may have: the kernel kills it."""


class Become(Exception):
    """Instead of ending, the process goes on as a program that only waits, without a task: exec(3)."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Context:
    __slots__ = ("argv", "cwd", "env", "fds", "process")

    def __init__(
        self, process: Process, argv: list[str], env: dict[str, str], cwd: str, fds: dict[int, Stream]
    ) -> None:
        self.process = process
        self.argv = argv
        """As execve(2) gives it; bytes that are no UTF-8 as surrogate escapes."""
        self.env = env
        self.cwd = cwd
        self.fds = fds
        """Open descriptors; the process closes them when it ends."""

    @property
    def name(self) -> str:
        return posixpath.basename(self.argv[0])

    @property
    def inside(self) -> Inside:
        return self.process.inside

    @property
    def files(self) -> Files:
        return self.process.inside.files

    @property
    def clock(self) -> Clock:
        return self.process.inside.clock

    @property
    def stdin(self) -> Stream:
        return self.fds.get(0) or _CLOSED

    async def out(self, data: str | bytes) -> None:
        await (self.fds.get(1) or _CLOSED).write(encoded(data))

    async def error(self, text: str) -> None:
        """A line on standard error, the program's name in front."""
        await self.complain(f"{self.name}: {text}")

    async def complain(self, line: str) -> None:
        try:
            await (self.fds.get(2) or _CLOSED).write(encoded(f"{line}\n"))
        except OSError:
            pass  # there is nobody left to tell

    def path(self, path: str) -> str:
        """`path` seen from the working directory: absolute, without "." and ".."."""
        found = posixpath.normpath(posixpath.join(self.cwd, path))
        return found[1:] if found.startswith("//") else found

    def open(self, path: str, mode: str = "r") -> Stream:
        """`mode` as for `Files.open`. OSError."""
        full = self._named(path)
        if full == "/dev/tty":
            return self._terminal().share()
        fd = _STANDARD.get(full)
        if fd is None and full.startswith("/dev/fd/") and full[8:].isdecimal():
            fd = int(full[8:])
        if fd is not None and fd in self.fds:
            return self.fds[fd].share()
        return self.files.open(full, mode)

    def kind(self, path: str) -> Kind | None:
        """What is at `path`; None: nothing that can be seen."""
        full = self._named(path)
        if full in _STANDARD:
            return Kind("c", 0)
        try:
            return self.files.kind(full)
        except OSError:
            return None

    def _terminal(self) -> Stream:
        for stream in self.fds.values():
            if stream.terminal:
                return stream
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def _named(self, path: str) -> str:
        full = self.path(path)
        if full == "/proc/self" or full.startswith("/proc/self/"):
            return f"/proc/{self.process.pid}{full[10:]}"
        return full

    async def read_all(self, stream: Stream) -> bytes:
        """Everything up to the end. OutOfMemory when the container may not hold so much."""
        parts, size = [], 0
        while chunk := await stream.read(CHUNK):
            parts.append(chunk)
            size += len(chunk)
            self.hold(size)
        return b"".join(parts)

    def hold(self, size: int) -> None:
        """The program has `size` bytes in memory. OutOfMemory."""
        if size > self.inside.memory_limit:
            raise OutOfMemory


Program = Callable[[Context], Awaitable[int]]

_CLOSED = Stream()


def encoded(data: str | bytes) -> bytes:
    return data.encode(errors="surrogateescape") if isinstance(data, str) else data
