"""The life of sandboxes and containers: one table each, and nothing else changes a state.

A state is stored before the act it announces (CREATING, STARTING, STOPPING, REMOVING: intents) and after
the act is done (the others: facts). After a crash an intent tells recovery what was going on.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

from podwright.errors import FailedPrecondition


class SandboxState(enum.Enum):
    CREATING = "creating"
    READY = "ready"
    LOST = "lost"
    """Cannot take containers any more, but was not stopped: network and namespaces may still be held."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    REMOVING = "removing"


class SandboxEvent(enum.Enum):
    CREATED = "created"
    LOSE = "lose"
    STOP = "stop"
    STOPPED = "stopped"
    REMOVE = "remove"


class ContainerState(enum.Enum):
    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    REMOVING = "removing"


class ContainerEvent(enum.Enum):
    CREATED = "created"
    START = "start"
    STARTED = "started"
    NOT_STARTED = "not started"
    """Recovery found that an announced start never happened."""
    EXIT = "exit"
    REMOVE = "remove"


_S, _SE = SandboxState, SandboxEvent
SANDBOX: Mapping[tuple[SandboxState, SandboxEvent], SandboxState] = {
    (_S.CREATING, _SE.CREATED): _S.READY,
    (_S.CREATING, _SE.LOSE): _S.LOST,  # its roll-back failed: StopPodSandbox can finish it
    (_S.READY, _SE.LOSE): _S.LOST,
    (_S.READY, _SE.STOP): _S.STOPPING,
    (_S.LOST, _SE.STOP): _S.STOPPING,
    (_S.STOPPING, _SE.STOP): _S.STOPPING,  # repeated after a failure or a crash
    (_S.STOPPING, _SE.STOPPED): _S.STOPPED,
    (_S.STOPPED, _SE.REMOVE): _S.REMOVING,
    (_S.REMOVING, _SE.REMOVE): _S.REMOVING,
}

_C, _CE = ContainerState, ContainerEvent
CONTAINER: Mapping[tuple[ContainerState, ContainerEvent], ContainerState] = {
    (_C.CREATING, _CE.CREATED): _C.CREATED,
    (_C.CREATING, _CE.REMOVE): _C.REMOVING,
    (_C.CREATED, _CE.START): _C.STARTING,
    (_C.CREATED, _CE.EXIT): _C.EXITED,  # killed before it was started, with its sandbox
    (_C.CREATED, _CE.REMOVE): _C.REMOVING,
    (_C.STARTING, _CE.STARTED): _C.RUNNING,
    (_C.STARTING, _CE.NOT_STARTED): _C.CREATED,
    (_C.STARTING, _CE.EXIT): _C.EXITED,  # the start failed, or the exit was seen first
    (_C.RUNNING, _CE.EXIT): _C.EXITED,
    (_C.EXITED, _CE.REMOVE): _C.REMOVING,
    (_C.REMOVING, _CE.REMOVE): _C.REMOVING,
}

State = TypeVar("State", SandboxState, ContainerState)
Event = TypeVar("Event", SandboxEvent, ContainerEvent)


def next_state(table: Mapping[tuple[State, Event], State], state: State, event: Event, what: str) -> State:
    """The state that follows; FailedPrecondition when the table has no such step."""
    try:
        return table[state, event]
    except KeyError:
        raise FailedPrecondition(f"{what} is {state.value}: it cannot {event.value} now") from None
