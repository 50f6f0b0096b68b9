"""What a fake node is made of: sandboxes and containers in memory, images, time and chance.

The world outlives the engine as a machine outlives a daemon: a crash takes the engine (and core) away at any
instruction, and the next engine finds the world as it is. Objects are kept small: a node may have tens of
thousands.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwright.clock import Clock, Timer
from podwright.engines.base import Exit, Presence, Sandbox
from podwright.engines.fake import registry
from podwright.engines.fake.addresses import Addresses
from podwright.engines.fake.connections import Connections
from podwright.engines.fake.faults import Fault, Faults
from podwright.engines.fake.images import ImageStore, Pull
from podwright.engines.fake.output import OpenLogs
from podwright.engines.fake.programs.ports import Ports
from podwright.engines.fake.scenario import NetworkUsageScript, Scenario, UsageScript
from podwright.engines.fake.stats import counted
from podwright.engines.fake.subject import Subject
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.engines.fake.inside import Inside
    from podwright.engines.fake.process import Process

FIRST_PID = 1000


@dataclass(eq=False, slots=True)
class FakeSandbox:
    id: str
    ips: tuple[str, ...] = ()
    """Held for it until it is stopped."""
    pid: int = 0
    """Of the pause process, where one is needed."""
    ready: bool = False
    created: float = 0.0
    """Clock.monotonic() when it became ready."""
    timer: Timer | None = None
    """Its scripted loss."""
    traffic: NetworkUsageScript | None = None
    """What its network carries."""
    spent: tuple[int, int, int] = (0, 0, 0)
    """What its ended containers have used up; see `stats.counted`."""
    containers: list[FakeContainer] = field(default_factory=list)
    """Those made in it and not removed since: its statistics need not look at all of the node's."""
    ports: Ports | None = None
    """Those in use in its network, once there are any."""
    forwards: Connections | None = None
    """With its scripted ports, once there were any."""

    def cut(self) -> None:
        """Its network is gone."""
        if self.forwards is not None:
            self.forwards.cut()

    @property
    def ip(self) -> str:
        """The preferred address; "" when it has none."""
        return self.ips[0] if self.ips else ""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint has kept."""

    argv: list[str]
    ran: float
    """Seconds."""
    files: dict[str, bytearray | None]
    """By path; None is a directory."""


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
    inside: Inside | None = None
    """Its files and other processes, once there are any."""
    sandbox: FakeSandbox | None = None
    image: str = ""
    """Id of its image, whose files stay as long as it is there."""
    limit: int = 0
    """Of its memory, in bytes; 0: none."""
    usage: UsageScript | None = None
    """What it uses while it runs."""
    restored: Restored | None = None
    """What it was when it was checkpointed, if it comes from a checkpoint."""

    def __post_init__(self) -> None:
        if self.sandbox is not None:
            self.sandbox.containers.append(self)


class World:
    def __init__(self, clock: Clock, scenario: Scenario | None = None) -> None:
        self.clock = clock
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.containers: dict[str, FakeContainer] = {}
        self.chance = random.Random()
        self.faults = Faults(self.chance)
        self.on_step: Callable[[str, Subject], Awaitable[None]] | None = None
        """Awaited before each step of the engine: a test can wait, fail or look there."""
        self.on_crash: Callable[[Fault], None] | None = None
        """Called when a fault crashes the server; the engine has stopped already."""
        self.logs = OpenLogs()
        self.counts: Counter[tuple[str, ...]] = Counter()
        """How often something happened that a script wants only so many times."""
        self.images = ImageStore(lambda: {each.image for each in self.containers.values()})
        self.ports = Ports()
        """Of the node's own network."""
        self.pulls: list[Pull] = []
        """The last pulls, in the order in which they began."""
        self._listener: Callable[[Exit], None] | None = None
        self._pid = FIRST_PID
        self._scenario = scenario if scenario is not None else Scenario()
        self.addresses = Addresses(self._scenario.addresses.ranges)
        self.seed()
        self.faults.follow(self._scenario.faults)
        self._place_images()

    @property
    def scenario(self) -> Scenario:
        """What happens here. It may be replaced at any time; `scenario` tells what takes effect when."""
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        before, self._scenario = self._scenario, scenario
        if scenario.seed != before.seed:
            self.seed()
        if scenario.addresses != before.addresses:
            held = [ip for sandbox in self.sandboxes.values() for ip in sandbox.ips]
            self.addresses = Addresses(scenario.addresses.ranges, held)
        if scenario.images != before.images:
            self._place_images()
        self.faults.follow(scenario.faults)

    def _place_images(self) -> None:
        for offer in registry.present(self._scenario.images):
            self.images.put(offer)

    def seed(self) -> None:
        """Start the chances of the scenario's seed anew; 0: different each time."""
        self.chance.seed(self._scenario.seed or None)

    def new_id(self) -> str:
        if self._scenario.seed:
            return f"{self.chance.getrandbits(256):064x}"
        return secrets.token_hex(32)

    def drop(self, id: str) -> None:
        """A container is gone; fine when there is none."""
        made = self.containers.pop(id, None)
        if made is not None and made.sandbox is not None:
            made.sandbox.containers.remove(made)

    def new_pid(self) -> int:
        self._pid += 1
        return self._pid

    def take_addresses(self) -> tuple[str, ...]:
        """Of the scenario's ranges, one that no pod has from each; ResourceExhausted when all are taken."""
        return self.addresses.take()

    def give_back(self, ips: tuple[str, ...]) -> None:
        self.addresses.give_back(ips)

    def ports_of(self, made: FakeSandbox | None, sandbox: Sandbox) -> Ports:
        """Those of the network that the pod is in."""
        if made is None or sandbox.config.linux.security_context.namespace_options.network == cri.NODE:
            return self.ports
        if made.ports is None:
            made.ports = Ports()
        return made.ports

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
        if container.presence is Presence.RUNNING and container.sandbox is not None:
            before, used = container.sandbox.spent, counted(self, container)
            container.sandbox.spent = (before[0] + used[0], before[1] + used[1], before[2] + used[2])
        process, container.process = container.process, None
        if process is not None:
            process.release(code)
        if container.inside is not None:
            container.inside.end()
        container.presence = Presence.EXITED
        container.exit = Exit(container.id, code, self.clock.now(), oom)
        if self._listener is not None:
            self._listener(container.exit)

    def close(self) -> None:
        """The machine is switched off: every program ends, nobody is told, no file stays open."""
        self.listen(None)
        for each in list(self.containers.values()):
            self.ended(each, 128 + signal.SIGKILL)
        for sandbox in self.sandboxes.values():
            sandbox.cut()
        self.logs.close_all()

    def pause_ended(self, sandbox: FakeSandbox) -> None:
        """The sandbox breaks: it can take no more containers."""
        sandbox.ready = False
        sandbox.cut()
        if self._listener is not None:
            self._listener(Exit(sandbox.id, 137, self.clock.now(), sandbox=True))

    def reboot(self) -> None:
        """The machine goes down and up again: no process, mount or network is left; images are. For a server
        that is down."""
        self._listener = None
        for container in list(self.containers.values()):
            self.ended(container, 137)
        self.containers.clear()
        for sandbox in self.sandboxes.values():
            sandbox.cut()
            if sandbox.timer is not None:
                sandbox.timer.cancel()
            if sandbox.ips:
                self.give_back(sandbox.ips)
        self.sandboxes.clear()


async def forever() -> None:
    """What a step of an engine that has crashed does: nothing, and it never ends."""
    await asyncio.get_running_loop().create_future()
