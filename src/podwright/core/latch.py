"""A thing that happens once, and whoever waits for it."""

from __future__ import annotations

import asyncio


class Latch:
    """As an asyncio.Event that is never cleared, at a twentieth of its size: every container has one, and
    hardly any has somebody waiting."""

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return when it has happened."""
        if self._set:
            return
        if self._waiting is None:
            self._waiting = []
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if self._waiting is not None:
                self._waiting.remove(future)
