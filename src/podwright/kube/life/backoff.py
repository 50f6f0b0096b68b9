"""How long a failing thing is left alone: 10 s, doubling to 5 minutes, forgotten after a long quiet. One rule
for containers that crash and for images that cannot be pulled (client-go's flowcontrol.Backoff).
"""

from __future__ import annotations

from dataclasses import dataclass

from podwright.clock import SYSTEM, Clock

FIRST, LIMIT, RESET = 10.0, 300.0, 600.0
"""Seconds: the first delay, the longest, and the quiet after which the delays begin anew."""
TICK = 0.001
"""Seconds that are no delay any more: a timer may fire a little before its moment."""


@dataclass(slots=True)
class _Entry:
    delay: float
    since: int
    """When the delay was last raised, nanoseconds since the epoch."""


class Backoff:
    """Delays by key. Times are nanoseconds since the epoch by the clock given, delays seconds."""

    def __init__(
        self, clock: Clock = SYSTEM, first: float = FIRST, limit: float = LIMIT, reset: float = RESET
    ) -> None:
        """With a `limit` below `first` the first delay is the limit already (the kubelet's
        crashLoopBackOff.maxContainerRestartPeriod)."""
        self._clock = clock
        self._first, self._limit, self._reset = min(first, limit), limit, reset
        self._entries: dict[str, _Entry] = {}

    def get(self, key: str) -> float:
        """The delay that holds for `key`; 0 when there is none."""
        entry = self._entries.get(key)
        return entry.delay if entry else 0.0

    def remaining(self, key: str, event: int) -> float:
        """Seconds that are left of the delay, counted from `event` (a container's end, a failed pull)."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, event):
            return 0.0
        left = entry.delay - (self._clock.now() - event) / 1e9
        return left if left >= TICK else 0.0

    def within(self, key: str) -> float:
        """Seconds that are left of the delay since it was last raised."""
        entry = self._entries.get(key)
        return self.remaining(key, entry.since) if entry else 0.0

    def next(self, key: str, event: int) -> None:
        """It is tried again, or has failed again: the next delay is twice as long. `event` as in
        `remaining`."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, event):
            delay = self._first
        else:
            delay = min(self._limit, 2 * entry.delay)
        self._entries[key] = _Entry(delay, self._clock.now())

    def forget(self, prefix: str = "") -> None:
        """Begin anew with all keys that start so."""
        for key in [one for one in self._entries if one.startswith(prefix)]:
            del self._entries[key]

    def _expired(self, entry: _Entry, event: int) -> bool:
        return (event - entry.since) / 1e9 > self._reset
