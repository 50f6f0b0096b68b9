"""All records, in memory and in the database.

Reads are served from memory. `Records` is the only writer of the two tables: a record is changed by
`Records.save` after its fields were set, so that memory and disk agree at every await.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from podwright import structs
from podwright.core.ids import Index
from podwright.core.record import PARSED, ContainerRecord, SandboxRecord
from podwright.core.roll import Roll
from podwright.core.states import ContainerState, SandboxState
from podwright.core.views import (
    container_item_wire,
    container_state,
    sandbox_item_wire,
    sandbox_state,
)
from podwright.engines.base import ContainerFacts, Image, SandboxFacts
from podwright.state.database import Database

__all__ = ["SCHEMA", "ContainerRecord", "Records", "SandboxRecord"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS sandboxes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    handler TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    config BLOB NOT NULL,
    facts BLOB NOT NULL,
    overhead BLOB,
    resources BLOB
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
    facts BLOB NOT NULL,
    wanted BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS containers_of_sandbox ON containers (sandbox_id);
"""
# Without the index the foreign key makes SQLite read all containers whenever a sandbox is removed.

ADDED = (("sandboxes", "overhead"), ("sandboxes", "resources"), ("containers", "wanted"))
"""Columns that earlier databases lack."""


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
        for table, column in ADDED:
            if column not in self._columns(table):
                self._database.ensure(f"ALTER TABLE {table} ADD COLUMN {column} BLOB")
        for row in self._database.execute(
            "SELECT id, name, handler, config, state, created_at, facts, overhead, resources FROM sandboxes"
        ):
            id, name, handler, config, state, created_at, facts, overhead, resources = row
            sandbox = SandboxRecord(
                id,
                name,
                handler,
                config,
                SandboxState(state),
                created_at,
                structs.decode(facts, SandboxFacts),
                overhead_wire=overhead,
                resources_wire=resources,
            )
            self.sandboxes.add(sandbox)
            self.names[name] = id
            self._enter(sandbox)
        targets: list[tuple[ContainerRecord, str]] = []
        for row in self._database.execute(
            "SELECT id, name, sandbox_id, target_id, state, created_at, started_at, finished_at, exit_code,"
            " reason, message, stop_signal, log_path, config, resources, image, facts, wanted"
            " FROM containers"
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
                facts=structs.decode(row[16], ContainerFacts),
                wanted_wire=row[17],
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

    def _columns(self, table: str) -> set[str]:
        return {row[0] for row in self._database.execute(f"SELECT name FROM pragma_table_info('{table}')")}

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
                "UPDATE sandboxes SET state = ?, facts = ?, overhead = ?, resources = ? WHERE id = ?",
                (
                    record.state.value,
                    msgspec.json.encode(record.facts),
                    record.overhead_wire,
                    record.resources_wire,
                    record.id,
                ),
            )
            return
        self._database.execute(
            "UPDATE containers SET state = ?, started_at = ?, finished_at = ?, exit_code = ?, reason = ?,"
            " message = ?, resources = ?, facts = ?, wanted = ? WHERE id = ?",
            (
                record.state.value,
                record.started_at,
                record.finished_at,
                record.exit_code,
                record.reason,
                record.message,
                record.resources_wire,
                msgspec.json.encode(record.facts),
                record.wanted_wire,
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
def _image(json: bytes) -> Image:
    """One object for all containers of an image."""
    return structs.decode(json, Image)
