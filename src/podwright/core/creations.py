"""Creations under way, and what becomes of them when their client goes away.

A creation runs in a task of its own. The same request again, while the first still runs, waits for it and
gets its id. A creation whose every client has gone is parked when it ends: its record stays *creating*
(unseen, undone after a crash) until the same request comes again and claims it, or until nobody has for
two minutes and it is removed. So a client that times out and retries neither meets a reserved name nor
leaves a twin behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from podwright.clock import Clock, Timer
from podwright.errors import AlreadyExists, FailedPrecondition

PARKED_FOR = 120.0
"""Seconds that an unclaimed object is kept."""

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Creation:
    request: bytes
    task: asyncio.Task[str]
    """Makes the object; its result is the id."""
    claim: Callable[[], None]
    discard: Callable[[], Awaitable[None]]
    waiting: int = 0
    claimed: bool = False
    forgotten: bool = False
    """The object is being removed, although somebody may be about to claim it."""
    expiry: Timer | None = None


class Creations:
    def __init__(self, start: Callable[[Awaitable[None]], object], clock: Clock) -> None:
        self._under_way: dict[str, Creation] = {}
        self._start = start
        """Starts a task that the runtime owns."""
        self._clock = clock

    def get(self, name: str) -> Creation | None:
        return self._under_way.get(name)

    def forget(self, name: str) -> None:
        """Nobody shall claim it any more: its sandbox is being stopped."""
        creation = self._under_way.pop(name, None)
        if creation is not None:
            creation.forgotten = True
            if creation.expiry is not None:
                creation.expiry.cancel()

    def cancel(self) -> None:
        """End every creation that is still under way."""
        for creation in self._under_way.values():
            creation.task.cancel()

    def close(self) -> None:
        """Leave what is parked to the next start: nothing of it may happen after the runtime has gone."""
        for name in list(self._under_way):
            self.forget(name)

    async def join(self, name: str, creation: Creation, request: bytes) -> str:
        """Wait for `creation` as another client of the same request and return the object's id.

        Raises AlreadyExists when `request` is a different one: the name is taken by the first.
        """
        if creation.request != request:
            raise AlreadyExists(
                f"the name {name!r} is reserved: a different request for it is being carried out"
            )
        return await self._wait(name, creation)

    async def begin(self, name: str, creation: Creation) -> str:
        """Enter a new creation and wait for it. The caller has reserved the name."""
        self._under_way[name] = creation
        creation.task.add_done_callback(lambda _: self._ended(name, creation))
        return await self._wait(name, creation)

    async def _wait(self, name: str, creation: Creation) -> str:
        creation.waiting += 1
        if creation.expiry is not None:
            creation.expiry.cancel()
            creation.expiry = None
        try:
            try:
                id = await asyncio.shield(creation.task)
            except asyncio.CancelledError:
                if not creation.task.cancelled() or _cancelling():
                    raise  # the client has gone
                raise _stopped(name) from None
            if creation.forgotten:
                raise _stopped(name)
            if not creation.claimed:
                creation.claimed = True
                self._under_way.pop(name, None)
                creation.claim()
            return id
        finally:
            creation.waiting -= 1
            if not creation.waiting and creation.task.done():
                self._ended(name, creation)

    def _ended(self, name: str, creation: Creation) -> None:
        if creation.claimed or creation.waiting or creation.expiry is not None:
            return
        if self._under_way.get(name) is not creation:
            return
        if creation.task.cancelled() or creation.task.exception() is not None:
            del self._under_way[name]
            return
        log.warning("%s is ready but nobody waits for it: kept %.0f s for the next try", name, PARKED_FOR)
        creation.expiry = self._clock.call_later(PARKED_FOR, self._expire, name, creation)

    def _expire(self, name: str, creation: Creation) -> None:
        if self._under_way.get(name) is creation and not creation.waiting:
            del self._under_way[name]
            self._start(creation.discard())


def _stopped(name: str) -> FailedPrecondition:
    return FailedPrecondition(f"{name} was not created: its sandbox is being stopped, or podwright is")


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
