"""Ends on their way to `Engine.exits`: those that a daemon's stream of events brings, and those that the
engine knows of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from podwright.engines.base import Exit
from podwright.errors import Unavailable


class Ends:
    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Exit | BaseException] = asyncio.Queue()

    def tell(self, exit: Exit) -> None:
        self._waiting.put_nowait(exit)

    async def following(self, follow: Coroutine[Any, Any, None], daemon: str) -> AsyncGenerator[Exit, None]:
        """Whatever is told, while `follow` reads the stream of `daemon`, a name for people. When that ends,
        its error is raised; Unavailable when it has none."""
        told = self._waiting
        task = asyncio.ensure_future(follow)

        def end(task: asyncio.Task[None]) -> None:
            told.put_nowait(_why(task, daemon))

        task.add_done_callback(end)
        try:
            while True:
                each = await told.get()
                if isinstance(each, BaseException):
                    raise each
                yield each
        finally:
            task.remove_done_callback(end)
            task.cancel()
            await asyncio.wait([task])


def _why(task: asyncio.Task[None], daemon: str) -> BaseException:
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or Unavailable(f"{daemon} has ended its stream of events")
