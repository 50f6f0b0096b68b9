"""The tables of states: no row that nothing takes."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.core import ground
from podwright.core.states import CONTAINER, SANDBOX
from tests.core import test_every_step_crash, test_every_step_fails
from tests.core.workloads import WORKLOADS

ENOUGH = {
    *("run pod", "create", "start", "start, exits"),
    *("stop pod", "stop lost pod", "remove created", "remove pod"),
}


class Watched(dict[Any, Any]):
    """A table that knows which of its rows were taken."""

    def __init__(self, table: Any) -> None:
        super().__init__(table)
        self.taken: set[object] = set()

    def __getitem__(self, row: object) -> Any:
        found = super().__getitem__(row)
        self.taken.add(row)
        return found


async def test_every_row_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Watched(SANDBOX), Watched(CONTAINER)
    monkeypatch.setattr(ground, "SANDBOX", tables[0])
    monkeypatch.setattr(ground, "CONTAINER", tables[1])
    for workload in WORKLOADS:
        if workload.name in ENOUGH:
            await test_every_step_crash.test_crash_at_every_point(workload)
            await test_every_step_fails.test_two_errors_at_every_pair_of_points(workload)
    assert [set(table) - table.taken for table in tables] == [set(), set()]
