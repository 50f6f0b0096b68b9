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

from podwright.errors import FailedPrecondition, PodwrightError, ResourceExhausted


class Database:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._depth = 0

    @classmethod
    def open(cls, path: Path, *, lasting: bool = True) -> Database:
        """Open or create the file; FailedPrecondition when it is no database or cannot be read.

        Without `lasting` nothing is synced, at checkpoints neither: a power failure may spoil the file.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'NORMAL' if lasting else 'OFF'}")
            connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error as error:
            raise FailedPrecondition(
                f"cannot open the state database {path}: {error}{_advice(error)}"
            ) from error
        path.chmod(0o600)
        return cls(connection)

    @classmethod
    def look(cls, path: Path) -> Database:
        """Open the file for reading only, beside whoever has it open; nothing is made for it.

        FileNotFoundError, PermissionError; PodwrightError when it is no database.
        """
        path.open("rb").close()
        # Without a log nobody has it open: reading it as a file that never changes makes no files beside it.
        wal = path.with_name(f"{path.name}-wal")
        how = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
        try:
            return cls(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None))
        except sqlite3.Error as error:
            raise PodwrightError(f"cannot read the state database {path}: {error}") from error

    def close(self) -> None:
        self._connection.close()

    def ensure(self, schema: str) -> None:
        """Run `schema`, which must be made of CREATE … IF NOT EXISTS statements."""
        self._connection.executescript(schema)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement, committed at once unless inside `transaction`. ResourceExhausted when the disk is
        full, PodwrightError when it fails otherwise."""
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            kind = ResourceExhausted if full else PodwrightError
            raise kind(f"the state database cannot be used: {error}{_advice(error)}") from error

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


def _advice(error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ""
    return (
        "; when it is moved away an empty one is made, images have to be pulled again, and"
        " `podwright doctor --fix` ends and removes what is left of the pods"
    )
