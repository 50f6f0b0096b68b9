"""What an engine is given to connect a process, or a port of a pod, with a client: byte streams with an end.

The streaming server makes them of a client's connection, the engine reads and writes them. Each side waits
for the other: nothing is buffered without bound. A client that has vanished is told by cancelling the call
that these were given to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class Source(Protocol):
    """Bytes from the client."""

    async def read(self) -> bytes:
        """The next bytes, as many as are there; b"" when the client has closed this direction."""


class Sink(Protocol):
    """Bytes to the client."""

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Returns when more may be written; `data` may be used again then. BrokenPipeError when the client
        reads this stream no more; the others go on."""

    async def close(self) -> None:
        """No more will be written; the client sees an end of the stream. Twice is fine."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in characters."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one exec or attach, those that the client asked for."""

    stdin: Source | None = None
    stdout: Sink | None = None
    stderr: Sink | None = None
    """None with a terminal, whose output is one stream."""
    tty: bool = False
    sizes: AsyncIterator[Size] | None = None
    """With a terminal: its size, now and whenever it changes. It ends with the connection."""

    @property
    def complaints(self) -> Sink | None:
        """Where the client reads what goes wrong."""
        return self.stdout if self.tty else self.stderr

    async def refuse(self, words: str) -> None:
        """Tell the client why a command cannot be run, where it asked for that, and end its output."""
        if self.complaints is not None:
            try:
                await self.complaints.write(f"{words}\r\n".encode() if self.tty else f"{words}\n".encode())
            except BrokenPipeError:
                pass
        for each in (self.stdout, self.stderr):
            if each is not None:
                await each.close()


class Kept:
    """A sink that keeps the first `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.data += data[: max(0, self._limit - len(self.data))]

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection to a port of a pod."""

    source: Source
    sink: Sink
