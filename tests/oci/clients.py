"""A client's ends of streams, in memory: what is sent, what arrived, and waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from podwright.engines.streams import Size, Streams

T = TypeVar("T")
PATIENCE = 60.0


class Sent:
    """A Source: what the client sends, until it closes."""

    def __init__(self, *chunks: bytes, closed: bool = False) -> None:
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._then: Callable[[], None] | None = None
        self.taken = 0
        """Bytes that somebody read."""
        for each in chunks:
            self.send(each)
        if closed:
            self.close()

    def send(self, data: bytes) -> None:
        self._chunks.put_nowait(data)

    def close(self) -> None:
        self._chunks.put_nowait(b"")

    def then(self, call: Callable[[], None]) -> None:
        """Call when all that was sent has been read."""
        self._then = call

    async def read(self) -> bytes:
        if self._then is not None and self._chunks.empty():
            self._then()
        data = await self._chunks.get()
        self.taken += len(data)
        if not data:
            self.close()  # the end stays the end
        return data


class Arrived:
    """A Sink: what the client got. It reads while the `gate` is open, with a `pause` (seconds) before each
    time; `broken`, it reads no more."""

    def __init__(self, *, keep: bool = True) -> None:
        self.data = bytearray()
        self.count = 0
        self.closed = False
        self.broken = False
        self.pause = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self._keep = keep
        self._news = asyncio.Condition()

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        await self.gate.wait()
        if self.pause:
            await asyncio.sleep(self.pause)
        if self.broken:
            raise BrokenPipeError
        assert not self.closed and len(data) > 0
        self.count += len(data)
        if self._keep:
            self.data += data
        async with self._news:
            self._news.notify_all()

    async def close(self) -> None:
        self.closed = True
        async with self._news:
            self._news.notify_all()

    async def until(self, wanted: Callable[[bytes], T]) -> T:
        """Wait until `wanted`, told all that has arrived, returns something."""
        async with asyncio.timeout(PATIENCE), self._news:
            while not (found := wanted(bytes(self.data))):
                assert not self.closed, f"it closed after {bytes(self.data)[-2000:]!r}"
                await self._news.wait()
            return found

    async def has(self, text: bytes) -> None:
        try:
            await self.until(lambda data: text in data)
        except TimeoutError:
            raise AssertionError(f"{text!r} did not come, but {bytes(self.data)[-2000:]!r}") from None


class Sizes:
    """The sizes of a client's terminal."""

    def __init__(self, *sizes: Size) -> None:
        self._sizes: asyncio.Queue[Size] = asyncio.Queue()
        for each in sizes:
            self.set(each)

    def set(self, size: Size) -> None:
        self._sizes.put_nowait(size)

    async def __aiter__(self) -> AsyncIterator[Size]:
        while True:
            yield await self._sizes.get()


class Client:
    """One with all streams; `streams` are what an engine is given."""

    def __init__(
        self, *sent: bytes, closed: bool = False, tty: bool = False, sizes: Sizes | None = None
    ) -> None:
        self.stdin = Sent(*sent, closed=closed)
        self.stdout = Arrived()
        self.stderr = Arrived()
        self.streams = Streams(
            self.stdin, self.stdout, None if tty else self.stderr, tty, aiter(sizes) if sizes else None
        )


def open_files() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
