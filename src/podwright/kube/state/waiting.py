"""Why something does not run yet: the reason that programs read, and the message for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """The reason and message of a container's state "waiting"."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the pod as a whole has failed (DeadlineExceeded, …)."""

    reason: str
    message: str
