"""Waiting until a file can be read or written, without a thread: pipes, terminals and sockets that are in
non-blocking mode."""

from __future__ import annotations

import asyncio
from io import FileIO
from typing import Any


async def readable(
    fd: int, *, until: asyncio.Future[Any] | None = None, timeout: float | None = None
) -> None:
    """Return when `fd` has something to read or is at its end, when `until` is done, or after `timeout`
    seconds; one waiter a file."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake(*_: object) -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    timer = loop.call_later(timeout, wake) if timeout is not None else None
    if until is not None:
        until.add_done_callback(wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()
        if until is not None:
            until.remove_done_callback(wake)


async def writable(fd: int) -> None:
    """Return when `fd` takes something again, or nobody reads it any more; one waiter a file."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


async def write_all(file: FileIO, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, waiting for room. Raises BrokenPipeError and other errors of write(2)."""
    rest = memoryview(data)
    while rest:
        written = file.write(rest)
        if written is None:
            await writable(file.fileno())
        else:
            rest = rest[written:]


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
