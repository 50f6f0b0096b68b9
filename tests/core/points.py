"""Points: each step of the fake engine and each write of core to its database, one after the other.

Between two points nothing changes that outlives the process, so what can happen at any instruction happens at
some point: a crash, an error, a client that goes away. Here points are counted, waited at, made to fail, and
handed to a hook that may do anything else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from podwright.core.states import ContainerState, SandboxState
from podwright.engines.fake.subject import Subject
from podwright.state.database import Database

STATES = {state.value for state in (*SandboxState, *ContainerState)}


class Crashed(BaseException):
    """Instead of a write: the process that wanted to write is dead."""


class Points:
    def __init__(self) -> None:
        self.passed: list[str] = []
        """Names of all points: "create_sandbox.network", "insert sandboxes creating", …"""
        self.gates: dict[str, asyncio.Event] = {}
        """A step named here waits for its event before it is taken."""
        self.failures: dict[str, Exception] = {}
        """A point named here raises once instead of being passed."""
        self.hook: Callable[[str], None] | None = None
        """Called at each point, first; what it raises, the point raises."""
        self.hold: Callable[[str, Subject], Awaitable[None]] | None = None
        """Awaited at each step of the engine, last."""

    @property
    def steps(self) -> list[str]:
        """The engine's alone."""
        return [name for name in self.passed if "." in name]

    async def step(self, name: str, subject: Subject) -> None:
        """World.on_step."""
        self._pass(name)
        await asyncio.sleep(0)  # as whatever a real engine does there: others run, a cancellation strikes
        if gate := self.gates.get(name):
            await gate.wait()
        if error := self.failures.pop(name, None):
            raise error
        if self.hold is not None:
            await self.hold(name, subject)

    def write(self, sql: str, parameters: Sequence[Any]) -> None:
        words = sql.split(None, 3)
        state = [each for each in parameters if isinstance(each, str) and each in STATES]
        name = " ".join([words[0].lower(), words[2].lower(), *state])
        self._pass(name)
        if error := self.failures.pop(name, None):
            raise error

    def _pass(self, name: str) -> None:
        self.passed.append(name)
        if self.hook is not None:
            self.hook(name)


class WatchedDatabase(Database):
    """In memory, and each write is a point. What it holds outlives a crash, by `after_crash`."""

    def __init__(self, points: Points, connection: sqlite3.Connection | None = None) -> None:
        super().__init__(connection or _memory())
        self._points = points
        self._dead = False

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        if sql.lstrip()[:6].upper() == "SELECT":
            return super().execute(sql, parameters)
        if not self._dead:
            self._points.write(sql, parameters)
        if self._dead:
            raise Crashed
        return super().execute(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
            if self._dead:
                raise Crashed

    def crash(self) -> None:
        """No write of this process reaches the file any more."""
        self._dead = True

    def after_crash(self, points: Points) -> WatchedDatabase:
        """What the next process finds in the file."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        return WatchedDatabase(points, self._connection)


def _memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


_idling = 0


async def idle() -> None:
    """Until every other task waits for something that only the test can bring about."""
    global _idling
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    while True:
        _idling += 1
        try:
            await asyncio.sleep(0)
        finally:
            _idling -= 1
        if len(ready) <= _idling:  # nobody but others who ask the same
            return
