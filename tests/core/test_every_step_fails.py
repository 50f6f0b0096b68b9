"""An error at every point of every workload: the call fails with it, nothing half-made stays, and the same
call again succeeds. A second error on the way back leaves nothing that clients cannot find and remove."""

from __future__ import annotations

import pytest

from podwright.core.recovery import LOOK_AGAIN
from podwright.errors import FailedPrecondition, PodwrightError
from tests.core import invariants
from tests.core.driving import Injected, Run, deep, telling
from tests.core.workloads import WORKLOADS, Workload


async def carry_out(workload: Workload, *points: int) -> tuple[Run, list[Injected], BaseException | None]:
    run = Run(workload)
    await run.prepare()
    injected = run.fail_at(*points)
    raised = await run.act()
    await run.settle()
    run.node.points.hook = None
    return run, injected, raised


def is_told(run: Run, error: Injected, raised: BaseException | None) -> None:
    """Who called hears of the error, unless it is one that nobody can do anything about."""
    if raised is None:
        # A write of what has happened already: memory knows it, and recovery would see for itself.
        happened = error.point.split()[-1] in ("running", "exited", "lost")
        assert happened or error.point in run.workload.tolerates, f"{error.point} failed, and nobody heard"
    else:
        assert raised is error, f"{error.point} failed, but the call told {raised!r}"


async def goes_on(run: Run, failed: str, *, disk: bool) -> None:
    """The client calls again and gets what it wanted; nothing stays, not even after a crash."""
    raised = await run.act(patient=True)
    assert raised is None or (not run.workload.again and isinstance(raised, FailedPrecondition)), (
        f"again: {raised!r}"
    )
    await run.settle()
    if run.workload.again and not failed.startswith("start_container"):
        await run.ends_as_it_should()
    tolerated = failed in run.workload.tolerates
    await invariants.check(run.node, run.account, run.watch, trouble=tolerated, disk=disk)
    if not disk:
        await run.crash()
        await run.restart()
        await invariants.check(run.node, run.account, run.watch, trouble=tolerated)
    await invariants.take_apart(run.node, run.client())
    await invariants.check(run.node, run.account, run.watch)
    await run.node.stop()


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
async def test_error_at_every_point(workload: Workload) -> None:
    point, reached = 0, True
    while reached:
        with telling("error at", point):
            reached = await one_error(workload, point)
        point += 1


async def one_error(workload: Workload, point: int) -> bool:
    """Whether the point was reached."""
    run, injected, raised = await carry_out(workload, point)
    failed = injected[0].point if injected else ""
    if injected:
        is_told(run, injected[0], raised)
    else:
        assert raised is None
    # After an error in a creation nothing is left of it: that is not `trouble`.
    trouble = bool(failed) and not failed.startswith(("create_", "insert"))
    disk = not failed or "." in failed
    await invariants.check(run.node, run.account, run.watch, trouble=trouble, disk=disk)
    await goes_on(run, failed, disk=disk)
    return bool(injected)


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
async def test_two_errors_at_every_pair_of_points(workload: Workload) -> None:
    first, reached = 0, 2
    while reached:
        second, reached = first + 1, 2
        while reached == 2:
            with telling("errors at", first, second):
                reached = await two_errors(workload, first, second)
            second += 1
        first += 1


async def two_errors(workload: Workload, *points: int) -> int:
    """How many of the points were reached."""
    run, injected, raised = await carry_out(workload, *points)
    assert raised is None or isinstance(raised, PodwrightError)
    await invariants.check(run.node, run.account, run.watch, trouble=True, disk=False)
    await invariants.take_apart(run.node, run.client())
    await run.node.stop()
    return len(injected)


@pytest.mark.parametrize("next_start", [False, pytest.param(True, marks=deep)])
@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
async def test_error_at_every_point_of_every_recovery(workload: Workload, next_start: bool) -> None:
    """What it keeps from being settled is settled by clients that remove it, or by the next start."""
    point, crashed = 0, True
    while crashed:
        second, failed = 0, True
        while failed:
            with telling("crash at", point, "error at", second):
                crashed, failed = await error_in_recovery(workload, point, second, next_start)
            second += 1
        point += 1


async def error_in_recovery(
    workload: Workload, point: int, second: int, next_start: bool
) -> tuple[bool, bool]:
    """Whether the points were reached."""
    run = Run(workload)
    await run.prepare()
    run.crash_at(point)
    await run.act()
    crashed = run.node.dead
    await run.crash()
    injected = run.fail_at(second)
    await run.restart()
    run.node.points.hook = None
    await invariants.check(run.node, run.account, run.watch, trouble=bool(injected), disk=False)
    if next_start:
        await run.crash()
        await run.restart()
        invariants.everything_is_in_a_state_of_rest(run.node, trouble=False)
    await run.node.clock.advance(LOOK_AGAIN)
    assert not invariants._is_unsure(run.node)
    await invariants.check(run.node, run.account, run.watch, trouble=bool(injected), disk=False)
    await invariants.take_apart(run.node, run.client())
    await invariants.check(run.node, run.account, run.watch)
    await run.node.stop()
    return crashed, bool(injected)
