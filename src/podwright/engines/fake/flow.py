"""Bytes on their way between a client and what is inside a fake world; neither gets ahead of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from podwright.engines.fake.programs.context import CHUNK
from podwright.engines.fake.programs.streams import BrokenPipe, Pipe, Stream
from podwright.engines.fake.programs.terminal import Terminal
from podwright.engines.streams import Sink, Size, Source


async def inward(source: Source, stream: Stream) -> None:
    """Hand on what the client sends, and its end by closing `stream`.

    When nobody reads that any more the rest is dropped: it must not hold up the client's other streams.
    """
    heard = True
    while data := await source.read():
        if heard:
            try:
                await stream.write(bytes(data))
            except (BrokenPipe, OSError):
                heard = False
    stream.close()


async def typed(source: Source, terminal: Terminal) -> None:
    """`inward` for a terminal, whose input has no end but a key that means it."""
    while data := await source.read():
        await terminal.feed(bytes(data))
    terminal.end_input()


async def outward(
    pipe: Pipe, sink: Sink, *, unseen: bool = False, taken: Callable[[], None] = lambda: None
) -> None:
    """Hand on what comes out of `pipe`, up to its end, and close `sink` then.

    When the client does not read this stream any more, whoever writes to the pipe is told by its being
    broken; or goes on `unseen`. `taken` is called after each part.
    """
    try:
        while data := await pipe.take(CHUNK):
            taken()
            await sink.write(data)
    except BrokenPipeError:
        if unseen:
            pipe.discard()
        else:
            pipe.abandon()
    await sink.close()


async def follow(terminal: Terminal, sizes: AsyncIterator[Size]) -> None:
    """The terminal becomes as large as the client's."""
    async for size in sizes:
        if size.width > 0 and size.height > 0:
            terminal.resize(size.width, size.height)


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    living = list(tasks)
    for each in living:
        each.cancel()
    if living:
        await asyncio.wait(living)
