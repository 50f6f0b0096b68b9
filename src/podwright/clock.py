"""The time that pods live by: the system's, or one that a test turns by hand.

Core and the engines take every time stamp and every wait that belongs to a pod's life from one `Clock`, the
engine's. Bounds on our own work (how long a roll-back may take) go by the event loop, not by this.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

SETTLE = 100
"""Turns of the event loop that the tasks woken by a timer get before a virtual clock goes on."""


class Timer(Protocol):
    def cancel(self) -> None: ...

    def cancelled(self) -> bool: ...

    def when(self) -> float:
        """On the scale of `Clock.monotonic`."""


class Clock(Protocol):
    def now(self) -> int:
        """Nanoseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        """Call in `delay` seconds, from the event loop."""

    async def sleep(self, delay: float) -> None: ...

    def timeout(self, delay: float | None) -> AbstractAsyncContextManager[object]:
        """TimeoutError when the block takes longer than `delay` seconds; None: as long as it likes."""


class SystemClock:
    """The machine's."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback, *arguments)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)

    def timeout(self, delay: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(delay)


SYSTEM = SystemClock()


class VirtualTimer:
    __slots__ = ("_arguments", "_callback", "_when")

    def __init__(self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._arguments = arguments

    def cancel(self) -> None:
        self._callback, self._arguments = None, ()

    def cancelled(self) -> bool:
        return self._callback is None

    def when(self) -> float:
        return self._when

    def fire(self) -> None:
        callback, arguments = self._callback, self._arguments
        if callback is not None:
            self.cancel()
            callback(*arguments)


class VirtualClock:
    """Stands still until `advance`. Time stamps differ nevertheless: each is a nanosecond after the last."""

    def __init__(
        self, start: int = 1_700_000_000_000_000_000, settle: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`start` is in nanoseconds since the epoch. `settle` lets the tasks run that a timer has woken: one
        who knows the event loop can tell better than by counting turns when they have."""
        self._start = start
        self._settle = settle or _settle
        self._elapsed = 0.0
        self._last = 0
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._order = itertools.count()

    def now(self) -> int:
        self._last = max(self._last + 1, self._start + round(self._elapsed * 1e9))
        return self._last

    def monotonic(self) -> float:
        return self._elapsed

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> VirtualTimer:
        timer = VirtualTimer(self._elapsed + max(delay, 0.0), callback, arguments)
        if delay <= 0:
            # Due already: nobody needs to let time pass for it.
            asyncio.get_running_loop().call_soon(timer.fire)
            return timer
        heapq.heappush(self._timers, (timer.when(), next(self._order), timer))
        return timer

    def pending(self) -> list[VirtualTimer]:
        """Timers that wait for their moment."""
        return [timer for _, _, timer in self._timers if not timer.cancelled()]

    async def sleep(self, delay: float) -> None:
        if delay <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, delay: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(None) if delay is None else self._timeout(delay)

    @asynccontextmanager
    async def _timeout(self, delay: float) -> AsyncIterator[object]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as bound:
            timer = self.call_later(delay, lambda: bound.reschedule(loop.time()))
            try:
                yield bound
            finally:
                timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: every timer that falls due is called at its own moment, in order, and what it
        woke runs before the next."""
        end = self._elapsed + seconds
        await self._settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.cancelled():
                continue
            self._elapsed = max(self._elapsed, when)
            timer.fire()
            await self._settle()
        self._elapsed = end
        await self._settle()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _settle() -> None:
    for _ in range(SETTLE):
        await asyncio.sleep(0)
