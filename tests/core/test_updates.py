"""Updates of resources, beside what every step proves: databases of before, what the next update finds."""

from __future__ import annotations

import pytest

from podwright.core.records import ADDED, Records
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node
from tests.core.points import Points, WatchedDatabase


async def update(node: Node, container: str, **fields: int) -> None:
    await node.runtime.update_container_resources(
        cri.UpdateContainerResourcesRequest(
            container_id=container,
            linux=cri.LinuxContainerResources(**fields),  # type: ignore[arg-type]
        )
    )


async def shares(node: Node, container: str) -> int:
    return (await node.status(container)).resources.linux.cpu_shares


def test_databases_of_before_get_the_new_columns() -> None:
    database = WatchedDatabase(Points())
    Records(database).load()
    for table, column in ADDED:
        database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    records = Records(database)
    records.load()
    assert {("sandboxes", "overhead"), ("containers", "wanted")} <= {
        (table, column) for table, column in ADDED if column in records._columns(table)
    }
    records.load()


async def test_what_could_not_be_taken_back_is_taken_back_by_the_next_update(node: Node) -> None:
    container = await node.container(await node.sandbox())
    await update(node, container, cpu_shares=512)
    failing = node.engine.update_container

    async def refuse(*arguments: object) -> None:
        raise PodwrightError("the kernel is busy")

    node.engine.update_container = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(PodwrightError, match="busy"):
        await update(node, container, cpu_shares=100, memory_limit_in_bytes=1 << 20)
    assert await shares(node, container) == 512
    node.engine.update_container = failing  # type: ignore[method-assign]
    node.engine.updates.clear()
    await update(node, container, cpu_period=1000)
    assert [(each.cpu_shares, each.cpu_period) for each in node.engine.updates] == [(512, 0), (512, 1000)]
    assert (await node.status(container)).resources.linux.memory_limit_in_bytes == 0


async def test_an_update_that_cannot_be_is_refused_before_anything_is_asked_of_the_engine(node: Node) -> None:
    container = await node.container(await node.sandbox())

    async def refuse(*arguments: object) -> None:
        raise FailedPrecondition("linux.memory_limit_in_bytes: too little")

    node.engine.check_update = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(FailedPrecondition, match="too little"):
        await update(node, container, cpu_shares=100)
    for fields, named in (
        ({"memory_limit_in_bytes": 9, "memory_swap_limit_in_bytes": 8}, "linux.memory_swap_limit_in_bytes"),
        ({"cpu_quota": -2}, "linux.cpu_quota"),
        ({"cpu_period": 1_000_001}, "linux.cpu_period"),
    ):
        with pytest.raises(InvalidArgument, match=named):
            await update(node, container, **fields)
    assert node.engine.updates == [] and await shares(node, container) == 0
