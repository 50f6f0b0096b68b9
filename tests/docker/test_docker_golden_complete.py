"""Every recording is replayed by a test."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.docker import golden

HERE = Path(__file__).parent


def _modules() -> list[ModuleType]:
    found = []
    for path in sorted(HERE.glob("test_docker_golden_*.py")):
        if path == Path(__file__):
            continue
        found.append(importlib.import_module(f"tests.docker.{path.stem}"))
    return found


def _cases(test: Any) -> set[str]:
    """Those that a test replays: its mark's, and the values of its parameter `name`."""
    found = set(getattr(test, "replays", ()))
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize" and mark.args[0] == "name":
            found |= set(mark.args[1])
        elif mark.name == "parametrize" and mark.args[0][0] == "name":
            found |= {each[0] for each in mark.args[1]}
    return found


def test_every_recording_is_replayed() -> None:
    replayed: set[str] = set()
    for module in _modules():
        for name, test in vars(module).items():
            if name.startswith("test_"):
                replayed |= _cases(test)
    recorded = set(golden.names("*"))
    assert len(recorded) > 250
    assert recorded - replayed == set(), "no test replays them"
    assert replayed - recorded == set(), "there is no such recording"


def test_the_table_names_recordings_that_there_are() -> None:
    for section, rows in golden.table().items():
        for row in rows:
            for case in row.get("cases", ()):
                assert case == "*" or golden.names(case), f"{section}: {case}"
