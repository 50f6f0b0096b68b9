"""One sandbox, one container: what core knows of it.

A node may have tens of thousands of records, so they are small. A parsed message takes five times the room of
the same message encoded: configurations stay encoded and are parsed when they are asked for; a few hundred
parsed ones are kept. Labels, which lists are filtered by, are plain dictionaries of shared texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from podwright.clock import Timer
from podwright.core.latch import Latch
from podwright.core.roll import Page, entry
from podwright.core.states import ContainerState, SandboxState
from podwright.core.turn import Turn
from podwright.engines.base import Container, ContainerFacts, Image, Sandbox, SandboxFacts
from podwright.wire import cri_pb2 as cri

PARSED = 256
"""Configurations of each kind that are kept parsed: those of a common node, all of them."""


@dataclass(eq=False, slots=True)
class SandboxRecord:
    id: str
    name: str
    handler: str
    config_wire: bytes
    """A PodSandboxConfig."""
    state: SandboxState = SandboxState.CREATING
    created_at: int = 0
    """Nanoseconds since the epoch."""
    facts: SandboxFacts = SandboxFacts()
    containers: dict[str, ContainerRecord] = field(default_factory=dict)
    overhead_wire: bytes | None = None
    resources_wire: bytes | None = None
    """LinuxContainerResources of the whole pod that an update has told; None: the configuration's."""
    lost: bool = False
    """What holds it together has ended, in the time of this process."""
    labels: Mapping[str, str] = field(init=False)
    page: Page | None = None
    at: int = 0
    size: int = 0
    """Where its list entry stands; None while lists do not show it."""
    status_wire: bytes = b""
    """Status, likewise; made when asked for, dropped by `Records.save`."""
    _lock: Turn | None = None

    def __post_init__(self) -> None:
        self.labels = _shared(self.config.labels)

    @property
    def config(self) -> cri.PodSandboxConfig:
        """Not to be changed: others see the same message."""
        return _sandbox_config(self.config_wire)

    @property
    def item_wire(self) -> bytearray:
        """Its list entry, encoded as it stands in a response."""
        return entry(self)

    @property
    def lock(self) -> Turn:
        if self._lock is None:
            self._lock = Turn()
        return self._lock

    @property
    def overhead(self) -> cri.LinuxContainerResources | None:
        return _resources(self.overhead_wire)

    @property
    def resources(self) -> cri.LinuxContainerResources | None:
        return _resources(self.resources_wire)

    def seen_by_engine(self) -> Sandbox:
        return Sandbox(self.id, self.name, self.config, self.handler, self.facts)


@dataclass(eq=False, slots=True)
class ContainerRecord:
    id: str
    name: str
    sandbox: SandboxRecord
    config_wire: bytes
    """A ContainerConfig."""
    image: Image
    log_path: str
    stop_signal: str
    """The effective one: "SIGTERM"."""
    target: ContainerRecord | None = None
    state: ContainerState = ContainerState.CREATING
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources_wire: bytes = b""
    """A LinuxContainerResources, what holds now: the request's, changed by updates."""
    wanted_wire: bytes | None = None
    """The same as an update under way wants it; None: there is none."""
    facts: ContainerFacts = ContainerFacts()
    exited: Latch = field(default_factory=Latch)
    soft_signal_sent: bool = False
    kill_timer: Timer | None = None
    labels: Mapping[str, str] = field(init=False)
    page: Page | None = None
    at: int = 0
    size: int = 0
    """Where its list entry stands; None while lists do not show it."""
    status_wire: bytes = b""
    """Status, likewise; made when asked for, dropped by `Records.save`."""
    _lock: Turn | None = None

    def __post_init__(self) -> None:
        self.labels = _shared(self.config.labels)

    @property
    def config(self) -> cri.ContainerConfig:
        """Not to be changed: others see the same message."""
        return _container_config(self.config_wire)

    @property
    def resources(self) -> cri.LinuxContainerResources:
        return cri.LinuxContainerResources.FromString(self.resources_wire)

    @resources.setter
    def resources(self, resources: cri.LinuxContainerResources) -> None:
        self.resources_wire = resources.SerializeToString()

    @property
    def wanted(self) -> cri.LinuxContainerResources | None:
        return _resources(self.wanted_wire)

    @wanted.setter
    def wanted(self, resources: cri.LinuxContainerResources | None) -> None:
        self.wanted_wire = None if resources is None else resources.SerializeToString()

    @property
    def item_wire(self) -> bytearray:
        """Its list entry, encoded as it stands in a response."""
        return entry(self)

    @property
    def lock(self) -> Turn:
        if self._lock is None:
            self._lock = Turn()
        return self._lock

    def seen_by_engine(self) -> Container:
        return Container(
            self.id,
            self.name,
            self.sandbox.seen_by_engine(),
            self.config,
            self.image,
            self.log_path,
            self.target.seen_by_engine() if self.target else None,
            self.facts,
        )


@lru_cache(PARSED)
def _sandbox_config(wire: bytes) -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig.FromString(wire)


@lru_cache(PARSED)
def _container_config(wire: bytes) -> cri.ContainerConfig:
    return cri.ContainerConfig.FromString(wire)


def _resources(wire: bytes | None) -> cri.LinuxContainerResources | None:
    return None if wire is None else cri.LinuxContainerResources.FromString(wire)


def _shared(labels: Mapping[str, str]) -> dict[str, str]:
    """A pod's containers repeat its name, namespace and uid, and all pods repeat the keys."""
    return {_same(key): _same(value) for key, value in labels.items()}


@lru_cache(1024)
def _same(text: str) -> str:
    return text
