"""Carrying a workload out: up to a point, past it, and over again.

Time passes only when nothing else can happen, from one timer to the next.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from podwright.errors import NotFound, PodwrightError
from tests.core.client import Account, Client, Watch
from tests.core.node import Node
from tests.core.points import Crashed, idle
from tests.core.workloads import Ids, Workload

DEEP = os.environ.get("PODWRIGHT_PROOF") == "deep"
deep = pytest.mark.skipif(not DEEP, reason="takes minutes: PODWRIGHT_PROOF=deep")
LONGEST = 1000
"""Timers that may pass before a call has ended."""


@contextmanager
def telling(*what: object) -> Iterator[None]:
    """An error says at which of thousands of runs it came up."""
    try:
        yield
    except BaseException as error:
        error.add_note(" ".join(map(str, what)))
        raise


class Injected(PodwrightError):
    """What a point raises that was made to fail."""

    def __init__(self, point: str) -> None:
        super().__init__(f"{point} does not work")
        self.point = point


class Run:
    """One workload on one node, from before its first point."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.node = Node(workload.scenario)
        self.account = Account()
        self.ids: Ids = {}
        self.calls: dict[str, asyncio.Task[object]] = {}
        """Those that are carried out at once, by name."""
        self.watch: Watch

    async def prepare(self) -> None:
        await self.node.start()
        self.watch = Watch(self.node)
        await idle()
        await drive(self.node, self.workload.before(self.client(), self.ids))
        await idle()
        self.node.points.passed.clear()

    def client(self, *, patient: bool = False) -> Client:
        client = Client(self.node, self.account)
        client.patient = patient
        return client

    async def act(self, *, patient: bool = False) -> BaseException | None:
        """The workload's calls; what they raised, or None. Returns early when the node dies."""
        return await drive(
            self.node,
            self.workload.act(self.client(patient=patient), self.ids),
            lambda: self.node.dead,
        )

    def crash_at(self, number: int) -> None:
        """The process dies at its point `number`, counted from now."""
        points = self.node.points
        points.passed.clear()

        def hook(name: str) -> None:
            if len(points.passed) > number and not self.node.dead:
                self.node.kill()
                if "." not in name:
                    raise Crashed

        points.hook = hook

    def fail_at(self, *numbers: int) -> list[Injected]:
        """The points `numbers`, counted from now, raise; the errors, one for each that was reached."""
        points, raised = self.node.points, list[Injected]()
        points.passed.clear()

        def hook(name: str) -> None:
            if len(points.passed) - 1 in numbers:
                raised.append(Injected(name))
                raise raised[-1]

        points.hook = hook
        return raised

    async def leave_at(self, number: int, *, return_at_once: bool) -> bool:
        """The client goes away at point `number`, and may come again with the same request while the first is
        being carried out; whether that point was reached. Returns when all calls have ended."""
        points, left = self.node.points, False
        points.passed.clear()
        calls = [asyncio.ensure_future(self.workload.act(self.client(), self.ids))]

        def hook(name: str) -> None:
            nonlocal left
            if len(points.passed) - 1 == number:
                left = calls[0].cancel()
                if left and return_at_once:
                    again = self.workload.act(self.client(patient=True), self.ids)
                    calls.append(asyncio.ensure_future(again))

        points.hook = hook
        for call in calls:
            raised = await drive(self.node, call)
            assert raised is None, f"{call}: {raised!r}"
        points.hook = None
        return left

    async def crash(self) -> None:
        """The process dies now, if it has not died yet."""
        self.node.points.hook = None
        await self.node.crash()

    async def restart(self) -> None:
        """The next process; returns early when it dies, too."""
        raised = await drive(self.node, self.node.start(), lambda: self.node.dead)
        if raised is not None:
            raise AssertionError("the start failed") from raised
        if not self.node.dead:
            await self.settle()
            self.watch = Watch(self.node)
            await idle()

    async def settle(self) -> None:
        """Until nothing can happen but by time, and until what goes on by itself has ended."""
        for _ in range(LONGEST):
            await idle()
            if self.node.dead or not self.node.ground._tasks or not await tick(self.node):
                return

    async def ends_as_it_should(self) -> None:
        for name, state in self.workload.leads_to.items():
            assert await shown_state(self.node, self.ids.get(name, "")) == state, name


async def drive(node: Node, work: Awaitable[Any], ended: Callable[[], bool] = bool) -> BaseException | None:
    """Let time pass until `work` has ended, or until `ended()`: what it raised."""
    task = asyncio.ensure_future(work)
    for _ in range(LONGEST):
        await idle()
        if ended():
            return None
        if task.done():
            return None if task.cancelled() else task.exception()
        if not await tick(node):
            break
    states = [f"{each.name}: {each.state}" for each in node.runtime.records.containers]
    task.cancel()
    raise AssertionError(f"hangs after {node.points.passed}; {states}")


async def tick(node: Node) -> bool:
    """Let time pass until the next timer; False when there is none."""
    pending = node.clock.pending()
    if not pending:
        return False
    await node.clock.advance(max(min(timer.when() for timer in pending) - node.clock.monotonic(), 0))
    return True


async def shown_state(node: Node, id: str) -> int | None:
    if not id:
        return None
    try:
        return int((await node.status(id)).state)
    except NotFound:
        pass
    try:
        return int((await node.sandbox_status(id)).state)
    except NotFound:
        return None
