"""A pod's events: what happened to it, told as the kubelet tells it, equal ones counted. In memory; who wants
more subscribes (`records` writes them to a file).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from podwright.clock import SYSTEM, Clock

KEPT = 1000
"""Different events that are remembered; the oldest go first."""
SIMILAR, SIMILAR_SECONDS = 10, 600
"""So many events of one object and reason within so many seconds may differ in their message; more become one
(client-go's event aggregator)."""
COMBINED = "(combined from similar events): "


@dataclass(frozen=True, slots=True)
class Event:
    type: Literal["Normal", "Warning"]
    reason: str
    object: str
    """"containers{main}"; "" for the pod."""
    message: str
    count: int
    first: str
    last: str
    """RFC 3339, UTC, whole seconds, as the API has them."""


class Recorder:
    """The events of one pod."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._events: dict[tuple[str, str, str, str], Event] = {}
        self._similar: dict[tuple[str, str, str], dict[str, float]] = {}
        self._listeners: list[Callable[[Event], None]] = []

    def restore(self, earlier: Iterable[Event]) -> None:
        """Know what a former process has recorded of the pod; it comes before what was recorded since."""
        since = self._events
        self._events = {_key(one): one for one in earlier} | since

    @property
    def events(self) -> tuple[Event, ...]:
        """By their first appearance."""
        return tuple(self._events.values())

    def normal(self, reason: str, object: str, message: str) -> Event:
        return self.event("Normal", reason, object, message)

    def warning(self, reason: str, object: str, message: str) -> Event:
        return self.event("Warning", reason, object, message)

    def event(self, type: Literal["Normal", "Warning"], reason: str, object: str, message: str) -> Event:
        """Record that it happened (again); returns what is known of it now."""
        message = self._aggregated(type, reason, object, message)
        stamp = rfc3339(self._clock.now())
        key = (type, reason, object, message)
        known = self._events.get(key)
        if known is None:
            event = Event(type, reason, object, message, 1, stamp, stamp)
        else:
            event = replace(known, count=known.count + 1, last=stamp)
        self._events[key] = event
        while len(self._events) > KEPT:
            del self._events[next(iter(self._events))]
        for listener in tuple(self._listeners):
            listener(event)
        return event

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with each event from now on; returns how to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _aggregated(self, type: str, reason: str, object: str, message: str) -> str:
        now = self._clock.monotonic()
        seen = self._similar.setdefault((type, reason, object), {})
        for old in [text for text, when in seen.items() if now - when > SIMILAR_SECONDS]:
            del seen[old]
        if message not in seen and len(seen) >= SIMILAR:
            return COMBINED + next(iter(seen))
        seen[message] = now
        return message


def rfc3339(nanoseconds: int) -> str:
    """ "2026-01-02T03:04:05Z" of a time since the epoch."""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(event: Event) -> tuple[str, str, str, str]:
    return (event.type, event.reason, event.object, event.message)
