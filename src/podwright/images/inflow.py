"""Taking a blob out of a pipe: written, counted and hashed in a thread, which a cancellation ends; or handed
on piece by piece."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import select
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self, TypeVar

from podwright.linux.threads import in_fresh_thread
from podwright.linux.waiting import to_the_end

T = TypeVar("T")

CHUNK = 1 << 20
"""Bytes: as many as a pipe may hold, so that a writer seldom waits."""
QUIET = 1.0
"""Seconds without a byte after which it is asked whether there will be more."""

Progress = Callable[[int], None]
"""Is told, in the thread that writes, how many bytes have come since the last time."""


class Inflow:
    """The reading end of a pipe, closed at the end of the context."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        os.set_blocking(fd, False)
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)
        except OSError:
            pass  # slower

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """At once; the end of the context does no more then."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._stop)
            self._fd = -1

    async def read(self) -> bytes:
        """All that comes until the end."""
        parts: list[bytes] = []
        await self._in_thread(lambda: self._pump(lambda part: parts.append(bytes(part)), None, lambda: None))
        return b"".join(parts)

    async def pieces(self, size: int, *, quiet: Callable[[], None]) -> AsyncIterator[bytes]:
        """What comes, piece by piece, until it is `size` bytes or the pipe ends. `quiet` as in `save`."""
        came = 0
        while came < size:
            try:
                part = os.read(self._fd, min(CHUNK, size - came))
            except BlockingIOError:
                await self._something(quiet)
                continue
            if not part:
                return
            came += len(part)
            yield part

    async def save(
        self, target: Path, digest: str, size: int, progress: Progress, *, quiet: Callable[[], None]
    ) -> str:
        """Write what comes to the new file `target` until it has `size` bytes or the pipe ends; "" when that
        is what `digest` (sha256) says, else what is wrong. `quiet` is called in the loop when nothing comes.

        The file is gone when this raises.
        """
        loop = asyncio.get_running_loop()

        def ask() -> None:
            loop.call_soon_threadsafe(quiet)

        def work() -> str:
            hashed = hashlib.sha256()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(target, flags, 0o600), "wb", buffering=0) as file:

                def take(part: memoryview) -> None:
                    hashed.update(part)
                    written = 0
                    while written < len(part):
                        written += file.write(part[written:])
                    progress(len(part))

                came = self._pump(take, size, ask)
            if came < size:
                return f"{digest}: only {came} of {size} bytes came"
            if (found := f"sha256:{hashed.hexdigest()}") != digest:
                return f"{digest}: what came is {found}"
            return ""

        try:
            return await self._in_thread(work)
        except FileExistsError:
            raise  # it is somebody else's
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    async def _something(self, quiet: Callable[[], None]) -> None:
        """Wait until there is something to read, or the end."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        waiting = asyncio.ensure_future(ready.wait())
        try:
            while not (await asyncio.wait({waiting}, timeout=QUIET))[0]:
                quiet()
        finally:
            waiting.cancel()
            loop.remove_reader(self._fd)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        future = in_fresh_thread(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            os.eventfd_write(self._stop, 1)
            await to_the_end(asyncio.wait([future]))
            raise

    def _pump(self, take: Callable[[memoryview], None], size: int | None, quiet: Callable[[], None]) -> int:
        """Hand on what comes, up to `size` bytes; how many they were at the end or when it was stopped."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        room, came = memoryview(bytearray(CHUNK)), 0
        while size is None or came < size:
            ready = poll.poll(QUIET * 1000)
            if not ready:
                quiet()
                continue
            if any(fd == self._stop for fd, _ in ready):
                break
            count = os.readv(self._fd, [room if size is None else room[: size - came]])
            if not count:
                break
            take(room[:count])
            came += count
        return came
