"""Waiting for the ends of sandboxes that their shims hold: one call of the sandbox service for each, asked
again when containerd comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from podwright.engines.base import Exit
from podwright.engines.containerd.sandbox_service import SandboxService
from podwright.engines.node.exits import UNKNOWN
from podwright.errors import NotFound, PodwrightError, Unimplemented

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before an answer that was an error is asked for again, doubled each time."""


class SandboxWaits:
    """One waiting task for each sandbox that is followed; all end with `close`."""

    def __init__(self, service: SandboxService, tell: Callable[[Exit], None]) -> None:
        """`tell` takes the ends."""
        self._service = service
        self._tell = tell
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def follow(self, id: str) -> None:
        """From now on its end is told, once. Twice is fine."""
        task = self._waiting.get(id)
        if task is None or task.done():
            self._waiting[id] = asyncio.create_task(self._wait(id))

    async def leave(self, id: str) -> bool:
        """Its end is nobody's concern any more. Whether it was followed."""
        task = self._waiting.pop(id, None)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def close(self) -> None:
        for id in list(self._waiting):
            await self.leave(id)

    async def _wait(self, id: str) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                ended = await self._service.wait(id)
                if await self._service.status(id) is None:
                    self._ended(id, ended.code, ended.finished_at)
                else:
                    # The end of such a shim is still told by containerd, as that of a task.
                    log.info("sandbox %s: its shim does not wait for it to end", id)
                return
            except NotFound:
                self._ended(id, UNKNOWN, 0)
                return
            except Unimplemented as error:
                log.info("sandbox %s: %s", id, error)
                return
            except PodwrightError as error:
                log.debug("sandbox %s: %s; asked again in %s s", id, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _ended(self, id: str, code: int, finished_at: int) -> None:
        self._tell(Exit(id, code, finished_at or time.time_ns(), sandbox=True))
