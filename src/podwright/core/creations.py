"""Creations: how an object is made, undone when that fails, and what becomes of it when its client goes away.

A creation runs in a task of its own. The same request again, while the first still runs, waits for it and
gets its id. A creation whose every client has gone is parked when it ends: its record stays *creating*
(unseen, undone after a crash) until the same request comes again and claims it, or until nobody has for
two minutes and it is removed. So a client that times out and retries neither meets a reserved name nor
leaves a twin behind.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from podwright.clock import Clock, Timer
from podwright.core.records import ContainerRecord, Records, SandboxRecord
from podwright.core.states import ContainerState, SandboxState
from podwright.core.undo import unwind
from podwright.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition
from podwright.steps import Step, current, step

PARKED_FOR = 120.0
"""Seconds that an unclaimed object is kept."""
UNSEEN = (SandboxState.CREATING, ContainerState.CREATING)

log = logging.getLogger(__name__)


class Making(ABC):
    """What the making of a sandbox and that of a container differ in."""

    kind: str
    record: SandboxRecord | ContainerRecord
    """Its name is reserved, and it is unseen, until the making has ended one way or the other."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __str__(self) -> str:
        return f"{self.kind} {self.record.id} ({self.record.name})"

    @abstractmethod
    async def make(self, undo: AsyncExitStack) -> None:
        """Have the engine make it."""

    @abstractmethod
    async def unmake(self) -> None:
        """Have the engine remove whatever there is of it."""

    @abstractmethod
    def claim(self) -> None:
        """Somebody is given its id."""

    @abstractmethod
    def keep(self, why: str) -> None:
        """It could not be undone: show it, so that clients can remove it."""

    async def create(self, clock: Clock, bound: float) -> str:
        """Make it in `bound` seconds and return its id, or undo everything."""
        undo = AsyncExitStack()
        try:
            async with clock.timeout(bound):
                await self.make(undo)
        except BaseException as error:
            with step("roll back", self.record.id):
                undone = await unwind(undo, str(self))
            if undone:
                self._drop(error)
            else:
                self.keep(str(error))
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"{self}: not created after {bound:g} s") from error
            raise
        undo.pop_all()
        return self.record.id

    async def discard(self) -> None:
        """Undo it, made or half made by a crash, that nobody was given."""
        async with self.record.lock:
            record = self.record
            if record.state not in UNSEEN or self._records.names.get(record.name) != record.id:
                return  # somebody else has just done it
            try:
                with step("discard", record.id):
                    await self.unmake()
                self._records.drop(record)
            except Exception as error:
                log.error("%s, which nobody was given, could not be removed: %s", self, error)
                self.keep(str(error))
                raise

    def _drop(self, why: BaseException) -> None:
        try:
            self._records.drop(self.record)
        except Exception as error:
            log.error("%s is undone, but its record could not be removed: %s", self, error)
            self.keep(str(why))


@dataclass(eq=False, slots=True)
class Creation:
    request: bytes
    making: Making
    task: asyncio.Task[str]
    """Makes the object; its result is the id."""
    waiting: int = 0
    claimed: bool = False
    revoked: bool = False
    """The object is being removed, although somebody may be about to claim it."""
    expiry: Timer | None = None
    call: Step | None = None
    """The call that began it."""


class Creations:
    def __init__(
        self, start: Callable[[Awaitable[Any]], asyncio.Task[Any]], clock: Clock, bound: float
    ) -> None:
        self._under_way: dict[str, Creation] = {}
        self._start = start
        """Starts a task that the runtime owns."""
        self._clock = clock
        self._bound = bound

    def revoke(self, making: Making) -> Awaitable[None]:
        """From now on nobody gets it any more: its sandbox is being stopped. To be awaited, until nothing of
        it is left; raises what kept it from being removed."""
        creation = self._under_way.pop(making.record.name, None)
        if creation is not None:
            _give_up(creation)
            creation.task.cancel()
        return _undone(creation, making)

    def cancel(self) -> None:
        """End every creation that is still under way."""
        for creation in self._under_way.values():
            creation.task.cancel()

    def parked(self) -> list[Creation]:
        """Those whose object is there and waits for its client."""
        return [each for each in self._under_way.values() if each.expiry is not None]

    def close(self) -> None:
        """Leave what is parked to the next start: nothing of it may happen after the runtime has gone."""
        for creation in self._under_way.values():
            _give_up(creation)
        self._under_way.clear()

    async def join(self, name: str, request: bytes) -> str | None:
        """Wait for the creation of `name` as another client of the same request and return the object's id;
        None when there is no such creation. One that is parked gives way to a different request.

        Raises AlreadyExists when a different request is being carried out: the name is taken by that.
        """
        creation = self._under_way.get(name)
        if creation is None:
            return None
        if creation.request == request:
            with step("wait for creation", creation.making.record.id):
                return await self._wait(creation)
        if creation.expiry is None:
            raise AlreadyExists(
                f"the name {name!r} is reserved: a different request for it is being carried out"
            )
        await asyncio.shield(self._start(self.revoke(creation.making)))
        return None

    async def begin(self, making: Making, request: bytes) -> str:
        """Start a creation and wait for it. The caller has reserved the name."""
        task: asyncio.Task[str] = self._start(making.create(self._clock, self._bound))
        here = current()
        creation = Creation(request, making, task, call=here.call if here is not None else None)
        self._under_way[making.record.name] = creation
        task.add_done_callback(lambda _: self._ended(creation))
        return await self._wait(creation)

    async def _wait(self, creation: Creation) -> str:
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
                raise _stopped(creation) from None
            if creation.revoked:
                raise _stopped(creation)
            if not creation.claimed:
                # When this fails it stays unclaimed, for the next try.
                creation.making.claim()
                creation.claimed = True
                del self._under_way[creation.making.record.name]
            return id
        finally:
            creation.waiting -= 1
            if not creation.waiting and creation.task.done():
                self._ended(creation)

    def _ended(self, creation: Creation) -> None:
        name = creation.making.record.name
        if creation.claimed or creation.waiting or creation.expiry is not None:
            return
        if self._under_way.get(name) is not creation:
            return
        if creation.task.cancelled() or creation.task.exception() is not None:
            del self._under_way[name]
            return
        log.warning("%s is ready but nobody waits for it: kept %.0f s for the next try", name, PARKED_FOR)
        creation.expiry = self._clock.call_later(PARKED_FOR, self._expire, creation)

    def _expire(self, creation: Creation) -> None:
        name = creation.making.record.name
        if self._under_way.get(name) is creation and not creation.waiting:
            del self._under_way[name]
            self._start(_logged(creation.making.discard()))


async def _undone(creation: Creation | None, making: Making) -> None:
    if creation is not None:
        await asyncio.wait([creation.task])
    await making.discard()


def _give_up(creation: Creation) -> None:
    creation.revoked = True
    if creation.expiry is not None:
        creation.expiry.cancel()


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        pass  # `discard` has said it


def _stopped(creation: Creation) -> FailedPrecondition:
    name = creation.making.record.name
    return FailedPrecondition(f"{name} was not created: its sandbox is being stopped, or podwright is")


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
