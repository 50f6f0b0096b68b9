"""Work that several callers wait for, turns at what is scarce, and what several use until the last of them
has left. Nothing of images.

A `Work` belongs to all who take part in it: it goes on while one of them is there, and ends, promptly, with
the last. So a pull that two clients asked for, or a blob that two pulls need, is fetched once, whoever of
them gives up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from podwright.errors import PodwrightError
from podwright.linux.waiting import to_the_end
from podwright.steps import step

T = TypeVar("T")
log = logging.getLogger(__name__)


class Work(Generic[T]):
    """Something under way."""

    def __init__(self) -> None:
        self.task: asyncio.Task[T]
        self.parties = 0
        """Who takes part."""
        self.active = False
        """It has had its turn and is being worked on."""
        self.done = 0
        """How much of it is done, in its own unit."""

    def add(self, more: int) -> None:
        """So much more is done. May be called in a thread, by one at a time."""
        self.done += more

    async def result(self) -> T:
        """Wait for its end; a cancellation ends the wait alone."""
        return await asyncio.shield(self.task)


class Shared(Generic[T]):
    """Works under way, by what they are about."""

    def __init__(self) -> None:
        self._works: dict[Hashable, Work[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    @asynccontextmanager
    async def part(
        self, key: Hashable, begin: Callable[[Work[T]], Coroutine[Any, Any, T]]
    ) -> AsyncIterator[tuple[Work[T], bool]]:
        """Take part in the work `key`, which `begin` does unless it is under way; and whether it was.

        Leaving the block before its end as the last one cancels it, and waits until it has ended.
        """
        work = self._works.get(key)
        joined = work is not None
        if work is None:
            work = self._works[key] = Work()
            work.task = asyncio.get_running_loop().create_task(begin(work))
            self._tasks.add(work.task)
            work.task.add_done_callback(lambda task: self._ended(key, task))
        work.parties += 1
        try:
            yield work, joined
        finally:
            work.parties -= 1
            if not work.parties and not work.task.done():
                # Who asks from now on begins anew, and does not meet one that is ending.
                self._forget(key, work.task)
                work.task.cancel()
                await asyncio.wait({work.task})

    async def close(self) -> None:
        """Cancel everything and wait for its end."""
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        self._forget(key, task)
        # Nobody may be left to be told.
        _ = task.cancelled() or task.exception()

    def _forget(self, key: Hashable, task: asyncio.Task[T]) -> None:
        work = self._works.get(key)
        if work is not None and work.task is task:
            del self._works[key]


class Turns:
    """At most `bound` at a time, fair between owners: a free place goes to who has the fewest, of several to
    who has waited longest. An owner's own come in the order in which they asked."""

    def __init__(self, bound: int) -> None:
        self._free = bound
        self._having: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], Hashable] = {}

    @asynccontextmanager
    async def turn(self, owner: Hashable) -> AsyncIterator[None]:
        """Wait for a place, and have it for the block."""
        if self._free and not self._waiting:
            self._take(owner)
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    async def _wait(self, owner: Hashable) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting[place] = owner
        try:
            with step("wait for place"):
                await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give_back(owner)  # it was called up at the same moment
            raise
        finally:
            self._waiting.pop(place, None)

    def _take(self, owner: Hashable) -> None:
        self._free -= 1
        self._having[owner] += 1

    def _give_back(self, owner: Hashable) -> None:
        self._free += 1
        self._having[owner] -= 1
        if not self._having[owner]:
            del self._having[owner]
        while self._free and self._waiting:
            # min() takes the first of equals: a dictionary keeps the order of arrival.
            place = min(self._waiting, key=lambda each: self._having[self._waiting[each]])
            owner = self._waiting.pop(place)
            if not place.done():
                self._take(owner)
                place.set_result(None)


class Lent(Generic[T]):
    """A context that is open while somebody uses what it gives, and is left in the task that entered it."""

    def __init__(self, context: AbstractAsyncContextManager[T]) -> None:
        self._context = context
        self._users = 0
        self._given: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[T]:
        """Use it for the block. Who leaves last waits until the context has been left. It opens only once:
        afterwards it raises PodwrightError."""
        if self._over.is_set():
            raise PodwrightError("what was asked for has been closed meanwhile")
        self._users += 1
        try:
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._hold())
            yield await asyncio.shield(self._given)
        finally:
            self._users -= 1
            if not self._users:
                self._over.set()
                await to_the_end(self._closed())

    async def _hold(self) -> None:
        try:
            async with self._context as value:
                self._given.set_result(value)
                await self._over.wait()
        except asyncio.CancelledError:
            self._given.cancel()
            raise
        except Exception as error:
            if self._given.done():
                log.warning("closing after a pull: %s", error)
            else:
                self._given.set_exception(error)
                self._given.exception()  # seen: who borrows may have left

    async def _closed(self) -> None:
        assert self._task is not None
        if not self._given.done():
            self._task.cancel()
        await asyncio.wait({self._task})
