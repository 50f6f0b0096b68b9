"""A crash at every point of every workload, and again at every point of the recovery from it."""

from __future__ import annotations

import pytest

from tests.core import invariants
from tests.core.driving import Run, telling
from tests.core.workloads import WORKLOADS, Workload


async def carry_out(workload: Workload, *crashes: int) -> tuple[Run, list[bool]]:
    """Die at each of `crashes`, the first a point of the workload, the others of the recoveries; and which of
    them were reached. A process that has come to its end without dying dies there."""
    run = Run(workload)
    await run.prepare()
    run.crash_at(crashes[0])
    raised = await run.act()
    assert raised is None, f"before any crash: {raised!r}"
    reached = [run.node.dead]
    for crash in crashes[1:]:
        await run.crash()
        run.crash_at(crash)
        await run.restart()
        reached.append(run.node.dead)
    await run.crash()
    await run.restart()
    return run, reached


async def goes_on(run: Run) -> None:
    """Everything holds after the crash; the client comes again and gets what it wanted; nothing stays."""
    await invariants.check(run.node, run.account, run.watch)
    raised = await run.act(patient=True)
    assert raised is None, f"again: {raised!r}"
    await run.settle()
    await run.ends_as_it_should()
    await invariants.check(run.node, run.account, run.watch)
    await invariants.take_apart(run.node, run.client())
    await invariants.check(run.node, run.account, run.watch)
    await run.node.stop()


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
async def test_crash_at_every_point(workload: Workload) -> None:
    point, reached = 0, [True]
    while all(reached):
        with telling("crash at", point):
            run, reached = await carry_out(workload, point)
            await goes_on(run)
        point += 1


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
async def test_crash_at_every_point_of_every_recovery(workload: Workload) -> None:
    point, reached = 0, [True, True]
    while reached[0]:
        second, reached = 0, [True, True]
        while reached[1]:
            with telling("crash at", point, second):
                run, reached = await carry_out(workload, point, second)
                await goes_on(run)
            second += 1
        point += 1
