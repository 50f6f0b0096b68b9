"""How core learns that a container has ended: told by the engine, or seen when it looks for itself."""

from __future__ import annotations

from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord
from podwright.core.states import ContainerEvent, ContainerState
from podwright.engines.base import Exit, Presence
from podwright.wire import cri_pb2 as cri

LIVING = (ContainerState.CREATED, ContainerState.STARTING, ContainerState.RUNNING)
START_ERROR_CODE = 128


def exited(ground: Ground, record: ContainerRecord, exit: Exit) -> None:
    """Its first process has ended."""
    if record.state not in LIVING:
        return
    if record.state is ContainerState.STARTING and (start := ground.starts.get(record.id)) is not None:
        # The start is about to tell whether the program ever ran; if it hangs, the end counts without it.
        start.ended(exit, ground.clock, lambda: record_exit(ground, record, exit))
        return
    record_exit(ground, record, exit)


def record_exit(ground: Ground, record: ContainerRecord, exit: Exit) -> None:
    if exit.refusal and record.state is ContainerState.STARTING:
        never_ran(ground, record, exit.refusal, exit.finished_at)
        return
    if record.state is ContainerState.RUNNING:
        # A short program may have ended before the runtime told that it started.
        record.started_at = min(record.started_at, exit.finished_at)
    elif record.state is ContainerState.STARTING:
        # Whoever hears of its start is shown a container that runs, however short that was.
        started(ground, record, exit.finished_at)
    record.exit_code, record.finished_at = exit.code, exit.finished_at
    record.reason = "OOMKilled" if exit.oom_killed else "Completed" if exit.code == 0 else "Error"
    ground.step_container(record, ContainerEvent.EXIT, happened=True)
    ground.tell(cri.CONTAINER_STOPPED_EVENT, record)


def never_ran(ground: Ground, record: ContainerRecord, why: str, at: int) -> None:
    """Its start has failed."""
    record.exit_code, record.reason, record.message = START_ERROR_CODE, "StartError", why
    record.started_at, record.finished_at = 0, at
    ground.step_container(record, ContainerEvent.EXIT, happened=True)
    ground.tell(cri.CONTAINER_STOPPED_EVENT, record)


def started(ground: Ground, record: ContainerRecord, at: int) -> None:
    record.started_at = at
    ground.step_container(record, ContainerEvent.STARTED, happened=True)
    ground.tell(cri.CONTAINER_STARTED_EVENT, record)


def vanished(ground: Ground, record: ContainerRecord) -> None:
    """Nothing is left that could tell how it ended."""
    if record.state not in LIVING:
        return  # its end was reported meanwhile
    record.exit_code, record.reason, record.finished_at = 255, "Unknown", ground.clock.now()
    record.message = "the container vanished: nothing is left that could tell how it ended"
    ground.step_container(record, ContainerEvent.EXIT, happened=True)
    ground.tell(cri.CONTAINER_STOPPED_EVENT, record)


async def look(ground: Ground, record: ContainerRecord) -> None:
    """Make the record say what is really there."""
    seen = await ground.engine.observe_container(record.seen_by_engine())
    if record.state not in LIVING:
        return  # its end was reported meanwhile
    if seen.presence is Presence.EXITED and seen.exit is not None:
        exited(ground, record, seen.exit)
    elif record.id in ground.starts:
        return  # that tells what became of it
    elif seen.presence is Presence.MISSING:
        vanished(ground, record)
    elif seen.presence is Presence.RUNNING and record.state is not ContainerState.RUNNING:
        # The start had been ordered, and happened; when exactly is not known any more.
        if record.state is ContainerState.CREATED:
            ground.step_container(record, ContainerEvent.START)
        started(ground, record, ground.clock.now())
    elif seen.presence is Presence.CREATED and record.state is ContainerState.STARTING:
        ground.step_container(record, ContainerEvent.NOT_STARTED, happened=True)
