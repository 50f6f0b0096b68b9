"""A program in a container at the user's standard streams: what exec and attach have in common."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

from podwright.cli import terminal
from podwright.cli.standard import Input, Output
from podwright.engines.streams import Source, Streams

T = TypeVar("T")

STDIN, STDOUT, STDERR = 0, 1, 2


class Detached(Exception):
    """The user has typed the detach keys."""


def has_terminal(*, stdin: bool) -> bool:
    """Whether there is a terminal for -t: the input's, or without an input the output's."""
    return os.isatty(STDIN if stdin else STDOUT)


async def converse(
    talk: Callable[[Streams], Coroutine[Any, Any, T]], *, stdin: bool, tty: bool, keys: bytes = b""
) -> T:
    """`talk` with this process' standard streams; what it returns.

    With `tty` and `stdin` the terminal is raw meanwhile. Raises Detached when the user typed `keys`,
    BrokenPipeError when nobody reads standard output any more, SystemExit with 128 and the number of a signal
    that ended it. In each of these cases `talk` has been cancelled and has ended.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = Output(STDOUT), Output(STDERR)
    source: Source | None = Input(STDIN) if stdin else None
    watched = terminal.Watched(source, keys) if source is not None and tty and keys else None
    with ExitStack() as stack:
        signals = stack.enter_context(terminal.ended_by_signals())
        if tty and stdin:
            stack.enter_context(terminal.raw(STDIN))
        streams = Streams(
            stdin=watched or source,
            stdout=out,
            stderr=None if tty else err,
            tty=tty,
            sizes=terminal.sizes(STDIN if stdin else STDOUT) if tty else None,
        )
        try:
            return await _first(talk(streams), watched.detached if watched else None, out.broken)
        except asyncio.CancelledError:
            if signals:
                raise SystemExit(128 + signals[0]) from None
            raise
        finally:
            await out.close()
            await err.close()


async def _first(talk: Coroutine[Any, Any, T], detached: asyncio.Event | None, broken: asyncio.Event) -> T:
    task = asyncio.ensure_future(talk)
    others: dict[asyncio.Future[Any], type[Exception]] = {
        asyncio.ensure_future(broken.wait()): BrokenPipeError
    }
    if detached is not None:
        others[asyncio.ensure_future(detached.wait())] = Detached
    every: list[asyncio.Future[Any]] = [task, *others]
    try:
        await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise next(error for each, error in others.items() if each.done())()
    finally:
        for each in every:
            each.cancel()
        await asyncio.gather(*every, return_exceptions=True)
