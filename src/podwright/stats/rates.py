"""How fast counters grow: two samples of each, about a period apart."""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST = 500_000_000
"""Nanoseconds between two samples at least: CPU time is accounted in ticks, less would be noise."""

Sample = tuple[int, int]
"""When (nanoseconds) and what the counter said."""


class Rates:
    def __init__(self) -> None:
        self._samples: dict[str, tuple[Sample, Sample]] = {}
        """Of each counter an older and the newest sample."""

    def keys(self) -> Iterable[str]:
        return list(self._samples)

    def note(self, key: str, at: int, value: int) -> None:
        """One that comes too soon after the newest, or is not later, is not taken."""
        known = self._samples.get(key)
        if known is None:
            self._samples[key] = ((at, value), (at, value))
        elif at - known[1][0] >= SHORTEST:
            self._samples[key] = (known[1], (at, value))

    def rate(self, key: str, at: int, value: int) -> int | None:
        """How much the counter grows in a second, since the newest sample that is old enough; None as long as
        there is none."""
        known = self._samples.get(key)
        if known is None:
            return None
        for then, before in reversed(known):
            if at - then >= SHORTEST:
                return max(0, value - before) * 1_000_000_000 // (at - then)
        return None

    def drop(self, key: str) -> None:
        self._samples.pop(key, None)

    def clear(self) -> None:
        self._samples.clear()
