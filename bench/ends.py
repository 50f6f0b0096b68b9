"""A client's ends of streams that carry nothing but zeros: made and counted, as fast as that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

CHUNK = 1 << 18
"""Bytes given at a time."""

_ZEROS = bytes(CHUNK)


class Discard:
    """Takes everything and counts it."""

    def __init__(self) -> None:
        self.count = 0

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.count += len(data)

    async def close(self) -> None:
        pass


class Counted(Discard):
    """Tells when so many bytes have come."""

    def __init__(self, size: int, tell: Callable[[], None]) -> None:
        super().__init__()
        self._size = size
        self._tell = tell

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        before = self.count
        self.count += len(data)
        if before < self._size <= self.count:
            self._tell()


class Words(Discard):
    """Keeps what comes, and tells when it is two lines, as dd says them."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.text = b""
        self._tell = tell

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.text += data
        if self.text.count(b"\n") == 2:
            self._tell()


class Until:
    """Gives `chunks`, and ends at the event, if there is one."""

    def __init__(self, chunks: Iterable[bytes], event: asyncio.Event | None = None) -> None:
        self._chunks = iter(chunks)
        self._event = event

    async def read(self) -> bytes:
        if (chunk := next(self._chunks, b"")) or self._event is None:
            return chunk
        await self._event.wait()
        return b""


def zeros(size: int, first: bytes = b"") -> Iterator[bytes]:
    """`first`, then `size` zeros."""
    if first:
        yield first
    for at in range(0, size, CHUNK):
        yield _ZEROS[: size - at]
