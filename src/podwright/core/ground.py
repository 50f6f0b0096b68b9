"""What the operations of core share: the engine, the records, the events, and the tasks they start.

Nothing here knows the rules; `sandboxes`, `containers` and `images` do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from podwright.clock import Timer
from podwright.config import Config
from podwright.core.creations import Creations
from podwright.core.events import Events
from podwright.core.records import ContainerRecord, Records, SandboxRecord
from podwright.core.starting import Start
from podwright.core.states import CONTAINER, SANDBOX, ContainerEvent, ContainerState, SandboxEvent, next_state
from podwright.core.views import event_statuses_wire
from podwright.engines.base import Engine
from podwright.steps import Step
from podwright.wire import cri_pb2 as cri

T = TypeVar("T")
log = logging.getLogger(__name__)


class Ground:
    def __init__(self, config: Config, engine: Engine, records: Records) -> None:
        self.config = config
        self.engine = engine
        self.records = records
        self.clock = engine.clock
        self.events = Events(self.clock)
        self.creations = Creations(self.start, self.clock, config.create_timeout)
        self.starts: dict[str, Start] = {}
        self.endings: dict[str, asyncio.Task[None]] = {}
        self.checkpoints: dict[str, asyncio.Task[None]] = {}
        """Starts under way, containers that are being killed, and such that are being checkpointed, by the
        container's id."""
        self.stops: dict[str, Step] = {}
        """Of containers whose grace period runs, the call that began it."""
        self.look_again: Timer | None = None
        """Some object could not be looked at; it will be once more."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Awaitable[T]) -> asyncio.Task[T]:
        """Run `work` as a task of its own: it outlives the call that began it, not the runtime."""
        task = asyncio.get_running_loop().create_task(_awaited(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def detached(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` so that a client that goes away does not stop it half-way."""
        return await asyncio.shield(self.start(work))

    def cancel(self) -> set[asyncio.Task[Any]]:
        """Cancel every task; returns those that have not ended."""
        for task in self._tasks:
            task.cancel()
        return set(self._tasks)

    async def close(self, patience: float = 30.0) -> None:
        """Roll back what is being created, let everything else end, at most `patience` seconds."""
        self.creations.cancel()
        for checkpoint in self.checkpoints.values():
            checkpoint.cancel()
        while self._tasks:
            done, _ = await asyncio.wait(self._tasks, timeout=patience)
            if not done:
                log.error("%d operations did not end within %.0f s", len(self._tasks), patience)
                break
        self.creations.close()
        if self.look_again is not None:
            self.look_again.cancel()
        for container in self.records.containers:
            if container.kill_timer is not None:
                container.kill_timer.cancel()

    # State changes: the only callers of the tables. What is about to be done is not done when it cannot be
    # written: the state stays, and the call fails. What has `happened` is true whether it can be written or
    # not: the state changes, and should the process die before the next write, recovery sees for itself.

    def step_sandbox(self, record: SandboxRecord, event: SandboxEvent, *, happened: bool = False) -> None:
        before = record.state
        record.state = next_state(SANDBOX, before, event, f"pod sandbox {record.id}")
        try:
            self.records.save(record)
        except Exception as error:
            if not happened:
                record.state = before
                raise
            self._only_remember(record, error)

    def step_container(
        self, record: ContainerRecord, event: ContainerEvent, *, happened: bool = False
    ) -> None:
        before = record.state
        record.state = next_state(CONTAINER, before, event, f"container {record.id}")
        try:
            self.records.save(record)
        except Exception as error:
            if not happened:
                record.state = before
                raise
            self._only_remember(record, error)
        if record.state is ContainerState.EXITED:
            record.exited.set()
            self.stops.pop(record.id, None)
            if record.kill_timer is not None:
                record.kill_timer.cancel()

    def _only_remember(self, record: SandboxRecord | ContainerRecord, error: Exception) -> None:
        log.error("%s is %s, which cannot be written: %s", record.id, record.state.value, error)
        self.records.show(record)

    def tell(self, kind: cri.ContainerEventType, record: SandboxRecord | ContainerRecord) -> None:
        sandbox = record if isinstance(record, SandboxRecord) else record.sandbox
        self.events.emit(kind, record.id, lambda: event_statuses_wire(sandbox))


async def _awaited(work: Awaitable[T]) -> T:
    return await work
