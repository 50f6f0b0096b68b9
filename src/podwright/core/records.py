"""What core knows of each sandbox and container, in memory and in the database.

Reads are served from memory. `Records` is the only writer of the two tables: a record is changed by
`Records.save` after its fields were set, so that memory and disk agree at every await.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from podwright.clock import Timer
from podwright.core.ids import Index
from podwright.core.states import ContainerState, SandboxState
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
"""


@dataclass(eq=False, slots=True)
class SandboxRecord:
    id: str
    name: str
    handler: str
    config: cri.PodSandboxConfig
    state: SandboxState = SandboxState.CREATING
    created_at: int = 0
    """Nanoseconds since the epoch."""
    facts: SandboxFacts = SandboxFacts()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    containers: dict[str, ContainerRecord] = field(default_factory=dict)
    creating: set[asyncio.Task[str]] = field(default_factory=set)
    """Container creations under way: a stop ends them first."""
    lost_early: bool = False
    """Its pause process ended before anybody was given the sandbox."""
    item: cri.PodSandbox | None = None
    item_wire: bytes = b""
    status_wire: bytes = b""
    """List entry and status, encoded as they stand in a response; made when asked for, dropped by
    `Records.save`."""

    def seen_by_engine(self) -> Sandbox:
        return Sandbox(self.id, self.name, self.config, self.handler, self.facts)


@dataclass(eq=False, slots=True)
class ContainerRecord:
    id: str
    name: str
    sandbox: SandboxRecord
    config: cri.ContainerConfig
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
    resources: cri.LinuxContainerResources = field(default_factory=cri.LinuxContainerResources)
    """What holds now: the request's, changed by updates."""
    facts: ContainerFacts = ContainerFacts()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    soft_signal_sent: bool = False
    kill_timer: Timer | None = None
    item: cri.Container | None = None
    item_wire: bytes = b""
    status: cri.ContainerStatus | None = None
    status_wire: bytes = b""
    """List entry and status, as messages and as they stand in an encoded response; made when asked for,
    dropped by `Records.save`."""

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
                cri.PodSandboxConfig.FromString(config),
                SandboxState(state),
                created_at,
                msgspec.json.decode(facts, type=SandboxFacts),
            )
            self.sandboxes.add(sandbox)
            self.names[name] = id
        targets: list[tuple[ContainerRecord, str]] = []
        for row in self._database.execute(
            "SELECT id, name, sandbox_id, target_id, state, created_at, started_at, finished_at, exit_code,"
            " reason, message, stop_signal, log_path, config, resources, image, facts FROM containers"
        ):
            container = ContainerRecord(
                id=row[0],
                name=row[1],
                sandbox=self.sandboxes.get(row[2]),
                config=cri.ContainerConfig.FromString(row[13]),
                image=msgspec.json.decode(row[15], type=Image),
                log_path=row[12],
                stop_signal=row[11],
                state=ContainerState(row[4]),
                created_at=row[5],
                started_at=row[6],
                finished_at=row[7],
                exit_code=row[8],
                reason=row[9],
                message=row[10],
                resources=cri.LinuxContainerResources.FromString(row[14]),
                facts=msgspec.json.decode(row[16], type=ContainerFacts),
            )
            if container.state is ContainerState.EXITED:
                container.exited.set()
            container.sandbox.containers[container.id] = container
            self.containers.add(container)
            self.names[container.name] = container.id
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
            self.save(record)
        except BaseException:
            del self.names[record.name]
            raise

    def save(self, record: SandboxRecord | ContainerRecord) -> None:
        """Write the record as it is now."""
        record.item, record.item_wire, record.status_wire = None, b"", b""
        if isinstance(record, SandboxRecord):
            self._database.execute(
                "INSERT INTO sandboxes (id, name, state, handler, created_at, config, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " state = excluded.state, created_at = excluded.created_at, facts = excluded.facts,"
                " config = excluded.config",
                (
                    record.id,
                    record.name,
                    record.state.value,
                    record.handler,
                    record.created_at,
                    record.config.SerializeToString(),
                    msgspec.json.encode(record.facts),
                ),
            )
            return
        record.status = None
        self._database.execute(
            "INSERT INTO containers (id, name, sandbox_id, target_id, state, created_at, started_at,"
            " finished_at, exit_code, reason, message, stop_signal, log_path, config, resources, image,"
            " facts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET state = excluded.state, created_at = excluded.created_at,"
            " started_at = excluded.started_at, finished_at = excluded.finished_at,"
            " exit_code = excluded.exit_code, reason = excluded.reason, message = excluded.message,"
            " resources = excluded.resources, facts = excluded.facts",
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
                record.config.SerializeToString(),
                record.resources.SerializeToString(),
                msgspec.json.encode(record.image),
                msgspec.json.encode(record.facts),
            ),
        )

    def drop(self, record: SandboxRecord | ContainerRecord) -> None:
        """Forget the record and release its name: the last act of a removal."""
        if isinstance(record, SandboxRecord):
            self._database.execute("DELETE FROM sandboxes WHERE id = ?", (record.id,))
            self.sandboxes.discard(record.id)
        else:
            self._database.execute("DELETE FROM containers WHERE id = ?", (record.id,))
            self.containers.discard(record.id)
            record.sandbox.containers.pop(record.id, None)
        if self.names.get(record.name) == record.id:
            del self.names[record.name]
