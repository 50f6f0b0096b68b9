"""A record's lock: one call at a time changes an object, and who waits for it is told for what call."""

from __future__ import annotations

import asyncio
from typing import Literal

from podwright.steps import Step, current, step


class Turn(asyncio.Lock):
    def __init__(self) -> None:
        super().__init__()
        self._holder: Step | None = None

    async def acquire(self) -> Literal[True]:
        if self.locked():
            holder = self._holder.call.name if self._holder is not None else ""
            with step("wait for turn", holder):
                await super().acquire()
        else:
            await super().acquire()
        self._holder = current()
        return True

    def release(self) -> None:
        self._holder = None
        super().release()
