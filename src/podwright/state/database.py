"""The one SQLite file of a podwright.

Rooms that keep records (core, the image store) bring their own tables with `ensure` and use the same
connection from the event loop's thread: a write is a WAL append in memory, tens of microseconds. The log
is synced at checkpoints only: a killed process loses nothing, a power failure at most the newest rows, and
then no container of theirs is left either; recovery finds such leftovers as orphans.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podwright.errors import FailedPrecondition


class Database:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._depth = 0

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open or create the file; FailedPrecondition when it is no database or cannot be read."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error as error:
            raise FailedPrecondition(f"cannot open the state database {path}: {error}") from error
        path.chmod(0o600)
        return cls(connection)

    def close(self) -> None:
        self._connection.close()

    def ensure(self, schema: str) -> None:
        """Run `schema`, which must be made of CREATE … IF NOT EXISTS statements."""
        self._connection.executescript(schema)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement, committed at once unless inside `transaction`."""
        return self._connection.execute(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the block or none. Must not be held across an await."""
        if self._depth:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        else:
            self._connection.execute("COMMIT")
        finally:
            self._depth -= 1
