"""A client goes away at every point of every workload: for ever, or to come again at once or later."""

from __future__ import annotations

import pytest

from podwright.core.creations import PARKED_FOR
from tests.core import invariants
from tests.core.driving import Run, telling
from tests.core.workloads import WORKLOADS, Workload


@pytest.mark.parametrize("returns", ["at once", "later", "too late", "never"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
async def test_client_goes_away_at_every_point(workload: Workload, returns: str) -> None:
    point, left = 0, True
    while left:
        with telling("gone at", point):
            left = await one_leaves(workload, point, returns)
        point += 1


async def one_leaves(workload: Workload, point: int, returns: str) -> bool:
    """Whether the point was reached."""
    run = Run(workload)
    await run.prepare()
    left = await run.leave_at(point, return_at_once=returns == "at once")
    await run.settle()
    await invariants.check(run.node, run.account, run.watch)
    if returns in ("too late", "never"):
        await run.node.clock.advance(PARKED_FOR)
        await invariants.check(run.node, run.account, run.watch)
        assert not run.node.ground.creations._under_way, "still parked"
    if returns != "never":
        raised = await run.act(patient=True)
        assert raised is None, f"again: {raised!r}"
        await run.settle()
        await run.ends_as_it_should()
        await invariants.check(run.node, run.account, run.watch)
    await invariants.take_apart(run.node, run.client())
    await invariants.check(run.node, run.account, run.watch)
    await run.node.stop()
    return left
