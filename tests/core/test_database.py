"""The state database when its file is spoiled: whoever starts podwright is told what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition, PodwrightError
from podwright.state.database import Database

ADVICE = r"when it is moved away .* `podwright doctor --fix`"


@pytest.mark.parametrize("start", [0, 100], ids=["no database", "malformed"])
def test_a_spoiled_file_is_told_with_the_way_out(tmp_path: Path, start: int) -> None:
    path = tmp_path / "podwright.db"
    made(path)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xde\xad" * 1500)
    with pytest.raises(FailedPrecondition, match=f"{path}.*{ADVICE}"):
        Database.open(path).execute("SELECT * FROM pods")


def test_a_page_that_is_spoiled_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "podwright.db"
    made(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad" * 2048)
    database = Database.open(path)
    with pytest.raises(PodwrightError, match=ADVICE):
        database.execute("SELECT * FROM pods").fetchall()
    database.close()


def test_other_failures_have_no_such_advice(tmp_path: Path) -> None:
    (tmp_path / "podwright.db").mkdir()
    with pytest.raises(FailedPrecondition) as told:
        Database.open(tmp_path / "podwright.db")
    assert "doctor" not in str(told.value)


def made(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA page_size=4096; CREATE TABLE pods (name TEXT)")
    connection.execute("INSERT INTO pods VALUES ('one')")
    connection.commit()
    connection.close()
