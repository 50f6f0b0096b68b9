"""A start under way, and the end of its container meanwhile.

A program may have ended before the runtime tells that it started; or it never ran, and the runtime is about
to tell why. So an end waits for the start to return, but not for long: a start that hangs must not hide that
its container has been killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from podwright.clock import Clock, Timer
from podwright.core.latch import Latch
from podwright.engines.base import ContainerFacts, Exit

LATE = 1.0
"""Seconds that a start may take to return after its container has ended."""
CUT = 10.0
"""Seconds, by the event loop, that an engine may take to give up a start that is cut short."""


class Start:
    __slots__ = ("_late", "cut", "exit", "over", "task")

    def __init__(self, task: asyncio.Task[ContainerFacts | None]) -> None:
        self.task = task
        """The engine's part."""
        self.over = Latch()
        """The record tells what became of it, or that its container has ended."""
        self.exit: Exit | None = None
        """Seen, but not recorded yet."""
        self.cut = False
        """Its container is being removed, or its pod stopped."""
        self._late: Timer | None = None

    def ended(self, exit: Exit, clock: Clock, record: Callable[[], None]) -> None:
        """Its container has ended. `record` is called if the start has not returned in time."""
        if self.exit is not None:
            return

        def late() -> None:
            record()
            self.over.set()

        self.exit = exit
        self._late = clock.call_later(LATE, late)

    def returned(self) -> Exit | None:
        """The engine's part is over: the end of its container, if that was seen and is not recorded yet."""
        if self._late is None or self._late.cancelled():
            return None
        self._late.cancel()
        return self.exit

    async def cut_short(self) -> None:
        """Make the engine give it up."""
        if not self.task.done():
            self.cut = True
            self.task.cancel()
            await asyncio.wait([self.task], timeout=CUT)
