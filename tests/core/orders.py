"""Every order in which concurrent calls can take their steps.

Each step of the engine is held until it is chosen, as is each exit before core is told of it. What is chosen
next is all that differs from one order to another, so a row of choices is an order, and all rows are gone
through, depth first. What is not a call (a program ends, a client goes away, time passes, the process dies)
is an act that can be chosen like a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from podwright.engines.base import Exit
from podwright.engines.fake.subject import Subject
from tests.core.driving import LONGEST, Run, tick
from tests.core.points import idle

WHO: ContextVar[str] = ContextVar("WHO", default="core")
"""The call on whose behalf something is done."""

Act = Callable[[Run], Awaitable[object] | None]
Call = Callable[[Run], Awaitable[object]]


@dataclass
class Order:
    """One order, as it is carried out."""

    wanted: list[int]
    """The first choices; all later ones are 0."""
    taken: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    """At each choice: how many possibilities there were."""
    story: list[str] = field(default_factory=list)

    def next(self) -> list[int] | None:
        """The first choices of the order that comes after this one; None when this was the last."""
        for at in reversed(range(len(self.taken))):
            if self.taken[at] + 1 < self.open[at]:
                return [*self.taken[:at], self.taken[at] + 1]
        return None

    async def carry_out(self, run: Run, calls: Mapping[str, Call], acts: Mapping[str, Act]) -> dict[str, Any]:
        """What each call answered, or the error it raised; None for one that was cut off."""
        held: dict[str, asyncio.Event] = {}
        waiting: dict[str, Call | Act] = {**calls, **acts}
        tasks: dict[str, asyncio.Task[object]] = {}

        async def hold(name: str, subject: Subject) -> None:
            label = f"{WHO.get()}: {name} {subject.container or subject.pod}"
            while label in held:
                label += "'"
            held[label] = asyncio.Event()
            await held[label].wait()

        async def hold_exit(exit: Exit) -> None:
            await hold("told of an exit", Subject(pod=exit.id[:4] if exit.sandbox else ""))

        run.node.points.hold = hold
        run.node.engine.hold_exit = hold_exit
        for _ in range(LONGEST):
            await idle()
            if run.node.dead:
                break
            possible = [*sorted(held), *waiting]
            if not possible:
                if all(task.done() for task in tasks.values()):
                    break
                assert await tick(run.node), f"hangs: {self.story}"
                self.story.append("time passes")
                continue
            chosen = possible[self._choose(len(possible))]
            self.story.append(chosen)
            if chosen in held:
                held.pop(chosen).set()
                continue
            token = WHO.set(chosen)
            made = waiting.pop(chosen)(run)
            if chosen in calls:
                assert made is not None
                tasks[chosen] = run.calls[chosen] = asyncio.ensure_future(made)
            elif made is not None:
                await made
            WHO.reset(token)
        run.node.points.hold = run.node.engine.hold_exit = None
        return {name: _outcome(task) for name, task in tasks.items()}

    def _choose(self, possibilities: int) -> int:
        at = len(self.taken)
        choice = self.wanted[at] if at < len(self.wanted) else 0
        self.taken.append(choice)
        self.open.append(possibilities)
        return choice


def _outcome(task: asyncio.Task[object]) -> object:
    if task.cancelled() or not task.done():
        return None
    return task.exception() or task.result()
