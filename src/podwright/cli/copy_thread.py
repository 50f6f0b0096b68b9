"""cp: a tar is written or read in a thread, which may block; what talks with the container is on the loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from io import FileIO
from typing import BinaryIO

from podwright.engines.streams import Sink, Source
from podwright.linux.readiness import readable, write_all

READ_SIZE = 1 << 16


def report(words: str) -> None:
    print(f"podwright: {words}", file=sys.stderr)


async def fed(work: Callable[[BinaryIO], None], talk: Callable[[Source], Awaitable[None]]) -> None:
    """`talk` with what `work` writes in a thread; the first error of either ends both."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_fd, False)

    def run() -> None:
        with open(write_fd, "wb", buffering=READ_SIZE) as file:
            work(file)

    with FileIO(read_fd, "r") as reading:
        thread = asyncio.ensure_future(asyncio.to_thread(run))
        try:
            await talk(_Reading(reading, thread))
        finally:
            reading.close()  # whoever still writes learns that nobody reads
            await asyncio.gather(thread, return_exceptions=True)


async def drained(work: Callable[[BinaryIO], None], talk: Callable[[Sink], Awaitable[None]]) -> None:
    """`talk` with what `work` reads in a thread; the first error of either ends both."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write_fd, False)

    def run() -> None:
        with open(read_fd, "rb", buffering=READ_SIZE) as file:
            work(file)

    with FileIO(write_fd, "w") as writing:
        thread = asyncio.ensure_future(asyncio.to_thread(run))
        talking = asyncio.ensure_future(talk(_Writing(writing)))
        try:
            await asyncio.wait([thread, talking], return_when=asyncio.FIRST_COMPLETED)
            # An archive that is cut short is no news when there is something to say of why.
            if thread.done() and not writing.closed:
                thread.result()
            await talking
            writing.close()
            await thread
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            writing.close()  # whoever still reads learns that nothing comes
            await asyncio.gather(thread, return_exceptions=True)


class _Reading:
    def __init__(self, file: FileIO, producer: asyncio.Task[None]) -> None:
        self._file, self._producer = file, producer

    async def read(self) -> bytes:
        while (data := self._file.read(READ_SIZE)) is None:
            await readable(self._file.fileno())
        if not data:
            await self._producer  # an archive that was cut short must not count as a whole one
        return data


class _Writing:
    def __init__(self, file: FileIO) -> None:
        self._file = file

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        await write_all(self._file, data)

    async def close(self) -> None:
        self._file.close()
