"""A process of a fake container: something that runs until it ends or a signal ends it."""

from __future__ import annotations

import signal
from collections.abc import Callable

from podwright.clock import Clock, Timer


class Process:
    """Runs until signalled. Programs that do something are in `programs`."""

    __slots__ = ("_clock", "_ended", "_ignored", "_stopping", "_timer")

    def __init__(
        self, clock: Clock, ended: Callable[[int], None], ignored: frozenset[int], stopping: float
    ) -> None:
        self._clock = clock
        self._ended = ended
        self._ignored = ignored
        self._stopping = stopping
        self._timer: Timer | None = None

    def signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            if self._timer is not None:
                self._timer.cancel()
            self._ended(128 + number)
        elif number not in self._ignored and self._timer is None:
            self._timer = self._clock.call_later(self._stopping, self._ended, 128 + number)
