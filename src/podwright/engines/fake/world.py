"""What a fake node is made of: sandboxes and containers in memory, images, time and chance.

The world outlives the engine as a machine outlives a daemon: a crash takes the engine (and core) away at any
instruction, and the next engine finds the world as it is. Objects are kept small: a node may have tens of
thousands.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwright.clock import Clock, Timer
from podwright.engines.base import Exit, Presence
from podwright.engines.fake.scenario import Scenario
from podwright.engines.fake.subject import Subject

if TYPE_CHECKING:
    from podwright.engines.fake.process import Process

FIRST_PID = 1000


@dataclass(eq=False, slots=True)
class FakeSandbox:
    id: str
    network: bool = False
    """An address is held for it."""
    ip: str = ""
    pid: int = 0
    """Of the pause process, where one is needed."""
    ready: bool = False
    created: float = 0.0
    """Clock.monotonic() when it became ready."""


@dataclass(eq=False, slots=True)
class FakeContainer:
    id: str
    presence: Presence = Presence.MISSING
    pid: int = 0
    started: float = 0.0
    """Clock.monotonic() when its program started."""
    exit: Exit | None = None
    process: Process | None = None
    """Its first process while that runs."""
    timer: Timer | None = None
    """Its scripted exit."""


@dataclass(eq=False, slots=True)
class World:
    clock: Clock
    scenario: Scenario = field(default_factory=Scenario)
    sandboxes: dict[str, FakeSandbox] = field(default_factory=dict)
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    chance: random.Random = field(default_factory=random.Random)
    on_step: Callable[[str, Subject], Awaitable[None]] | None = None
    """Awaited before each step of the engine: a test can wait, fail or look there."""
    _listener: Callable[[Exit], None] | None = None
    _pid: int = FIRST_PID
    _free: deque[str] = field(default_factory=deque)
    _addresses: int = 0

    def seed(self) -> None:
        """Start the chances of the scenario's seed anew; 0: different each time."""
        self.chance = random.Random(self.scenario.seed or None)

    def new_id(self) -> str:
        if self.scenario.seed:
            return f"{self.chance.getrandbits(256):064x}"
        return secrets.token_hex(32)

    def new_pid(self) -> int:
        self._pid += 1
        return self._pid

    def take_address(self) -> str:
        """One of the scenario's range that no pod has; ResourceExhausted when all are taken."""
        if self._free:
            return self._free.popleft()
        self._addresses += 1
        return self.scenario.address(self._addresses)

    def give_back(self, address: str) -> None:
        self._free.append(address)

    def listen(self, listener: Callable[[Exit], None] | None) -> None:
        """Exits go to `listener` from now on: one engine's at a time."""
        self._listener = listener

    def ended(self, container: FakeContainer, code: int, *, oom: bool = False) -> None:
        """The first process of `container` has ended."""
        if container.presence is not Presence.RUNNING and container.presence is not Presence.CREATED:
            return
        if container.timer is not None:
            container.timer.cancel()
            container.timer = None
        container.process = None
        container.presence = Presence.EXITED
        container.exit = Exit(container.id, code, self.clock.now(), oom)
        if self._listener is not None:
            self._listener(container.exit)

    def pause_ended(self, sandbox: FakeSandbox) -> None:
        """The sandbox breaks: it can take no more containers."""
        sandbox.ready = False
        if self._listener is not None:
            self._listener(Exit(sandbox.id, 137, self.clock.now(), sandbox=True))


async def forever() -> None:
    """What a step of an engine that has crashed does: nothing, and it never ends."""
    await asyncio.get_running_loop().create_future()
