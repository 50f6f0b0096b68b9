"""Waiting that a cancellation does not cut short, and waiting for two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def to_the_end(work: Awaitable[T]) -> T:
    """Await `work` although the caller may be cancelled meanwhile; then CancelledError once it has ended.

    For what cannot be stopped half-way, such as a thread, and must be over before anything is undone.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: it has no other reader
        raise cancelled
    return task.result()


async def together(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Await both side by side. When one fails, or the caller is cancelled, the other is cancelled, and has
    ended when this raises."""
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return first.result(), second.result()
