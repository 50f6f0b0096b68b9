"""Taking the cgroup lock early: it changes nothing and ends when it should."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from podwright.linux import migration
from podwright.linux.migration import Migrations

pytestmark = pytest.mark.root


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "cgroup-lock"]


def test_the_process_stays_in_its_cgroups_and_the_thread_ends_with_its_owner() -> None:
    before = Path("/proc/self/cgroup").read_text()
    migrations = Migrations()
    assert _threads() == []
    with migrations.expected(), migrations.expected():
        assert _threads() == ["cgroup-lock"]
    assert Path("/proc/self/cgroup").read_text() == before
    migrations.close()
    assert _threads() == []


def test_it_writes_while_it_is_wanted_and_rests_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "cgroup.procs"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(migration, "_own_procs_file", lambda: fifo)
    migrations = Migrations()
    try:
        pid = str(os.getpid()).encode()
        with migrations.expected():
            seen = b""
            limit = time.monotonic() + 10
            while seen.count(pid) < 3 and time.monotonic() < limit:
                try:
                    seen += os.read(reader, 4096)
                except BlockingIOError:
                    pass
        assert seen.count(pid) >= 3
        assert migrations._wanted.is_set()
        limit = time.monotonic() + 10
        while migrations._wanted.is_set() and time.monotonic() < limit:
            pass
        assert not migrations._wanted.is_set()
    finally:
        migrations.close()
        os.close(reader)


def test_who_knows_the_moment_gets_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cgroup.procs"
    file.touch()
    monkeypatch.setattr(migration, "_own_procs_file", lambda: file)
    writes: list[Path] = []

    def take(_: Migrations, own: Path) -> bool:
        writes.append(own)
        return True

    monkeypatch.setattr(Migrations, "_take", take)
    migrations = Migrations()
    migrations.soon()
    limit = time.monotonic() + 10
    while migrations._wanted.is_set() and time.monotonic() < limit:
        pass
    assert writes == [file]
    migrations.close()
    assert _threads() == []


def test_a_creation_that_hangs_gets_no_more_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cgroup.procs"
    file.touch()
    monkeypatch.setattr(migration, "_own_procs_file", lambda: file)
    monkeypatch.setattr(migration, "LONGEST", 0.01)
    migrations = Migrations()
    with migrations.expected():
        limit = time.monotonic() + 10
        while migrations._wanted.is_set() and time.monotonic() < limit:
            pass
        assert not migrations._wanted.is_set()
    migrations.close()


def test_a_cgroup_that_takes_no_processes_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_own_procs_file", lambda: tmp_path / "gone" / "cgroup.procs")
    migrations = Migrations()
    with migrations.expected():
        pass
    migrations.close()
    assert _threads() == []
