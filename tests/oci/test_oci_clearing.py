"""Clearing away what is left of a container's cgroup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwright.engines.node import processes
from podwright.errors import FailedPrecondition
from podwright.linux import cgroups


async def test_a_process_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It hangs in the kernel, or is one that a signal cannot end."""
    monkeypatch.setattr(processes, "END_TIMEOUT", 0.01)
    monkeypatch.setattr(cgroups, "directories", lambda path: [tmp_path])
    monkeypatch.setattr(cgroups, "kill_all", lambda path: {os.getpid()})
    with pytest.raises(FailedPrecondition, match=rf"cgroup /pod/c: process {os.getpid()} in it was killed"):
        await processes.clear_cgroup("/pod/c")
