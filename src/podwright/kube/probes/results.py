"""What the probes of a pod have found out, by kind and container id. No I/O, no time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import Enum


class Kind(Enum):
    """The three questions; the values are the words of events."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"
    """Not found out yet: neither is a startup probe done nor has it failed."""


class Results:
    """The latest outcome of each probe, after its thresholds."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set with each change; whoever waits for it clears it."""
        self._outcomes: dict[tuple[Kind, str], Outcome] = {}

    def get(self, kind: Kind, container_id: str) -> Outcome | None:
        """None where no probe of this kind looks after the container, or has not begun to."""
        return self._outcomes.get((kind, container_id))

    def set(self, kind: Kind, container_id: str, outcome: Outcome) -> None:
        if self._outcomes.get((kind, container_id)) is not outcome:
            self._outcomes[kind, container_id] = outcome
            self.changed.set()

    def forget(self, kind: Kind, container_id: str) -> None:
        self._outcomes.pop((kind, container_id), None)

    def keep(self, container_ids: Collection[str]) -> None:
        """Forget all containers but these."""
        for kind, container_id in list(self._outcomes):
            if container_id not in container_ids:
                del self._outcomes[kind, container_id]

    def startup(self, container_id: str) -> Outcome | None:
        return self.get(Kind.STARTUP, container_id)

    def liveness(self, container_id: str) -> Outcome | None:
        return self.get(Kind.LIVENESS, container_id)

    def readiness(self, container_id: str) -> Outcome | None:
        return self.get(Kind.READINESS, container_id)
