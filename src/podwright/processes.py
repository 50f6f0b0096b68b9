"""Commands in containers and connections to pods, as the library gives them: streams to be read and written,
wherever the container is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

from podwright.engines.streams import Connection, Size, Streams
from podwright.errors import PodwrightError
from podwright.streaming.pipe import Pipe


class Reader:
    """Bytes that come. Whoever sends waits while they are not read. Where something failed behind it, that is
    raised after the bytes that had come."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._rest = b""

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, as soon as there are some; -1: all until the end. b"" at the end."""
        if size == 0:
            return b""
        if size < 0:
            parts = [self._rest]
            self._rest = b""
            while part := await self._pipe.read():
                parts.append(part)
            return b"".join(parts)
        data = self._rest or await self._pipe.read()
        self._rest = data[size:]
        return data[:size]

    async def readline(self) -> bytes:
        """A line with its newline, which only the last one may lack; b"" at the end."""
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            part = await self._pipe.read()
            if not part:
                self._rest = b""
                return b"".join(parts)
            parts.append(part)
        line, newline, self._rest = parts[-1].partition(b"\n")
        return b"".join([*parts[:-1], line, newline])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if line := await self.readline():
            return line
        raise StopAsyncIteration


class Writer:
    """Bytes that go."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when more may be written. BrokenPipeError when nobody reads it any more."""
        await self._pipe.write(data)

    async def close(self) -> None:
        """The other side sees the end after what was written. Twice is fine."""
        await self._pipe.close()


class Process:
    """A command in a container, or the container's own; it runs while the `async with` block does.

    Leaving the block before it has ended hangs up: a command is ended then, a container that was attached to
    goes on.
    """

    def __init__(
        self,
        talk: Callable[[Streams], Awaitable[int | None]],
        *,
        tty: bool,
        size: tuple[int, int],
        exit_code: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        """`talk` gives the exit code, or None when the streams have ended and `exit_code` knows it."""
        stdin, stdout, stderr = Pipe(), Pipe(), Pipe()
        self.stdin = Writer(stdin)
        """Its input; close it when there is no more."""
        self.stdout = Reader(stdout)
        self.stderr = Reader(stderr)
        """Empty with a terminal, whose output is one stream."""
        self._pipes = (stdin, stdout, stderr)
        self._talk = talk
        self._exit_code = exit_code or _unknown
        self._tty = tty
        self._sizes = _Sizes(Size(*size))
        self._task: asyncio.Task[int] | None = None

    async def wait(self) -> int:
        """Its exit code, once it has ended and its output has been taken.

        Raises what the engine says when it could not be run, Unavailable when its server is lost.
        """
        assert self._task is not None, "a process runs inside its `async with` block"
        return await asyncio.shield(self._task)

    async def resize(self, width: int, height: int) -> None:
        """Tell a terminal's size in characters."""
        self._sizes.set(Size(width, height))

    async def __aenter__(self) -> Process:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> int:
        stdin, stdout, stderr = self._pipes
        streams = Streams(
            stdin=stdin,
            stdout=_Outward(stdout),
            stderr=None if self._tty else _Outward(stderr),
            tty=self._tty,
            sizes=self._sizes if self._tty else None,
        )
        code: int | None = await _ended(self._talk(streams), stdin, (stdout, stderr))
        return code if code is not None else await self._exit_code()


class PodConnection:
    """A connection to a port of a pod; it lasts as long as the `async with` block, or the pod wants it."""

    def __init__(self, carry: Callable[[Connection], Awaitable[None]]) -> None:
        self._up, self._down = Pipe(), Pipe()
        self._carry = carry
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> tuple[Reader, Writer]:
        work = self._carry(Connection(self._up, self._down))
        self._task = asyncio.get_running_loop().create_task(_ended(work, self._up, (self._down,)))
        return Reader(self._down), Writer(self._up)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


async def _ended(work: Awaitable[Any], inward: Pipe, outward: tuple[Pipe, ...]) -> Any:
    """What `work` gives; the pipes end with it, those outward with its error."""
    try:
        result = await work
    except BaseException as error:
        for pipe in outward:
            pipe.fail(error if isinstance(error, Exception) else BrokenPipeError("it was given up"))
        raise
    finally:
        inward.leave()
    for pipe in outward:
        await pipe.close()
    return result


class _Outward:
    """The `Sink` of a pipe whose reader hears of the end only when it is known how it ended."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        await self._pipe.write(data)

    async def close(self) -> None:
        pass


async def _unknown() -> int:
    raise PodwrightError("it ended without an exit code")


class _Sizes(AsyncIterator[Size]):
    """Of a terminal: the newest size, those between are left out."""

    def __init__(self, first: Size) -> None:
        self._newest = first
        self._changed = asyncio.Event()
        self._changed.set()

    def set(self, size: Size) -> None:
        self._newest = size
        self._changed.set()

    async def __anext__(self) -> Size:
        await self._changed.wait()
        self._changed.clear()
        return self._newest
