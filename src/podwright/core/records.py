"""What core knows of each sandbox and container, in memory and in the database.

Reads are served from memory. `Records` is the only writer of the two tables: a record is changed by
`Records.save` after its fields were set, so that memory and disk agree at every await.

A node may have tens of thousands of records, so they are small. A parsed message takes five times the room of
the same message encoded: configurations stay encoded and are parsed when they are asked for; a few hundred
parsed ones are kept. Labels, which lists are filtered by, are plain dictionaries of shared texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from podwright.clock import Timer
from podwright.core.ids import Index
from podwright.core.latch import Latch
from podwright.core.roll import Page, Roll, entry
from podwright.core.states import ContainerState, SandboxState
from podwright.core.views import (
    container_item_wire,
    container_state,
    sandbox_item_wire,
    sandbox_state,
)
from podwright.engines.base import Container, ContainerFacts, Image, Sandbox, SandboxFacts
from podwright.state.database import Database
from podwright.wire import cri_pb2 as cri

SCHEMA = """
CREATE TABLE IF NOT EXISTS sandboxes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    handler TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    config BLOB NOT NULL,
    facts BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sandbox_id TEXT NOT NULL REFERENCES sandboxes (id),
    target_id TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    exit_code INTEGER NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    stop_signal TEXT NOT NULL,
    log_path TEXT NOT NULL,
    config BLOB NOT NULL,
    resources BLOB NOT NULL,
    image BLOB NOT NULL,
    facts BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS containers_of_sandbox ON containers (sandbox_id);
"""
# Without the index the foreign key makes SQLite read all containers whenever a sandbox is removed.

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
    lost: bool = False
    """What holds it together has ended, in the time of this process."""
    labels: Mapping[str, str] = field(init=False)
    page: Page | None = None
    at: int = 0
    size: int = 0
    """Where its list entry stands; None while lists do not show it."""
    status_wire: bytes = b""
    """Status, likewise; made when asked for, dropped by `Records.save`."""
    _lock: asyncio.Lock | None = None

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
    def lock(self) -> asyncio.Lock:
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

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
    _lock: asyncio.Lock | None = None

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
    def item_wire(self) -> bytearray:
        """Its list entry, encoded as it stands in a response."""
        return entry(self)

    @property
    def lock(self) -> asyncio.Lock:
        if self._lock is None:
            self._lock = asyncio.Lock()
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


class Records:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.sandboxes: Index[SandboxRecord] = Index("pod sandbox", "pod_sandbox_id")
        self.containers: Index[ContainerRecord] = Index("container", "container_id")
        self.names: dict[str, str] = {}
        """Reserved names, sandboxes' and containers', and the id that holds each."""
        self.sandbox_roll = Roll()
        self.container_roll = Roll()
        """What a list of all shows: everything but what is being created."""

    def load(self) -> None:
        """Read everything that an earlier process wrote."""
        self._database.ensure(SCHEMA)
        for row in self._database.execute(
            "SELECT id, name, handler, config, state, created_at, facts FROM sandboxes"
        ):
            id, name, handler, config, state, created_at, facts = row
            sandbox = SandboxRecord(
                id,
                name,
                handler,
                config,
                SandboxState(state),
                created_at,
                msgspec.json.decode(facts, type=SandboxFacts),
            )
            self.sandboxes.add(sandbox)
            self.names[name] = id
            self._enter(sandbox)
        targets: list[tuple[ContainerRecord, str]] = []
        for row in self._database.execute(
            "SELECT id, name, sandbox_id, target_id, state, created_at, started_at, finished_at, exit_code,"
            " reason, message, stop_signal, log_path, config, resources, image, facts FROM containers"
        ):
            container = ContainerRecord(
                id=row[0],
                name=row[1],
                sandbox=self.sandboxes.get(row[2]),
                config_wire=row[13],
                image=_image(row[15]),
                log_path=row[12],
                stop_signal=row[11],
                state=ContainerState(row[4]),
                created_at=row[5],
                started_at=row[6],
                finished_at=row[7],
                exit_code=row[8],
                reason=row[9],
                message=row[10],
                resources_wire=row[14],
                facts=msgspec.json.decode(row[16], type=ContainerFacts),
            )
            if container.state is ContainerState.EXITED:
                container.exited.set()
            container.sandbox.containers[container.id] = container
            self.containers.add(container)
            self.names[container.name] = container.id
            self._enter(container)
            targets.append((container, row[3]))
        for container, target in targets:
            if target in self.containers:
                container.target = self.containers.get(target)

    def add_sandbox(self, record: SandboxRecord) -> None:
        self._reserve(record)
        self.sandboxes.add(record)

    def add_container(self, record: ContainerRecord) -> None:
        self._reserve(record)
        self.containers.add(record)
        record.sandbox.containers[record.id] = record

    def _reserve(self, record: SandboxRecord | ContainerRecord) -> None:
        self.names[record.name] = record.id
        try:
            self._insert(record)
        except BaseException:
            del self.names[record.name]
            raise

    def _insert(self, record: SandboxRecord | ContainerRecord) -> None:
        if isinstance(record, SandboxRecord):
            self._database.execute(
                "INSERT INTO sandboxes (id, name, state, handler, created_at, config, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    record.id,
                    record.name,
                    record.state.value,
                    record.handler,
                    record.created_at,
                    record.config_wire,
                    msgspec.json.encode(record.facts),
                ),
            )
            return
        self._database.execute(
            "INSERT INTO containers (id, name, sandbox_id, target_id, state, created_at, started_at,"
            " finished_at, exit_code, reason, message, stop_signal, log_path, config, resources, image,"
            " facts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                record.name,
                record.sandbox.id,
                record.target.id if record.target else "",
                record.state.value,
                record.created_at,
                record.started_at,
                record.finished_at,
                record.exit_code,
                record.reason,
                record.message,
                record.stop_signal,
                record.log_path,
                record.config_wire,
                record.resources_wire,
                msgspec.json.encode(record.image),
                msgspec.json.encode(record.facts),
            ),
        )

    def save(self, record: SandboxRecord | ContainerRecord) -> None:
        """Write what can have changed of the record, and show it. What cannot be written is not shown."""
        self._update(record)
        self.show(record)

    def show(self, record: SandboxRecord | ContainerRecord) -> None:
        """From now on statuses and lists tell the record as it is."""
        record.status_wire = b""
        self._enter(record)

    def _update(self, record: SandboxRecord | ContainerRecord) -> None:
        if isinstance(record, SandboxRecord):
            self._database.execute(
                "UPDATE sandboxes SET state = ?, facts = ? WHERE id = ?",
                (record.state.value, msgspec.json.encode(record.facts), record.id),
            )
            return
        self._database.execute(
            "UPDATE containers SET state = ?, started_at = ?, finished_at = ?, exit_code = ?, reason = ?,"
            " message = ?, resources = ?, facts = ? WHERE id = ?",
            (
                record.state.value,
                record.started_at,
                record.finished_at,
                record.exit_code,
                record.reason,
                record.message,
                record.resources_wire,
                msgspec.json.encode(record.facts),
                record.id,
            ),
        )

    def _enter(self, record: SandboxRecord | ContainerRecord) -> None:
        """Bring the record's list entry up to date."""
        if isinstance(record, SandboxRecord):
            if record.page is not None:
                self.sandbox_roll.change_end(record, sandbox_state(record))
            elif record.state is not SandboxState.CREATING and record.id in self.sandboxes:
                self.sandbox_roll.add(record, sandbox_item_wire(record))
        elif record.page is not None:
            self.container_roll.change_end(record, container_state(record))
        elif record.state is not ContainerState.CREATING and record.id in self.containers:
            self.container_roll.add(record, container_item_wire(record))

    def drop(self, record: SandboxRecord | ContainerRecord) -> None:
        """Forget the record and release its name: the last act of a removal."""
        if isinstance(record, SandboxRecord):
            self._database.execute("DELETE FROM sandboxes WHERE id = ?", (record.id,))
            self.sandboxes.discard(record.id)
            self.sandbox_roll.remove(record)
        else:
            self._database.execute("DELETE FROM containers WHERE id = ?", (record.id,))
            self.containers.discard(record.id)
            self.container_roll.remove(record)
            record.sandbox.containers.pop(record.id, None)
        if self.names.get(record.name) == record.id:
            del self.names[record.name]


@lru_cache(PARSED)
def _sandbox_config(wire: bytes) -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig.FromString(wire)


@lru_cache(PARSED)
def _container_config(wire: bytes) -> cri.ContainerConfig:
    return cri.ContainerConfig.FromString(wire)


@lru_cache(PARSED)
def _image(json: bytes) -> Image:
    """One object for all containers of an image."""
    return msgspec.json.decode(json, type=Image)


def _shared(labels: Mapping[str, str]) -> dict[str, str]:
    """A pod's containers repeat its name, namespace and uid, and all pods repeat the keys."""
    return {_same(key): _same(value) for key, value in labels.items()}


@lru_cache(1024)
def _same(text: str) -> str:
    return text
