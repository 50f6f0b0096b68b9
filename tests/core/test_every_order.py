"""Calls on the same objects at once, in every order of their steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from podwright.core.creations import PARKED_FOR
from podwright.errors import AlreadyExists, FailedPrecondition, NotFound, PodwrightError
from tests.core import invariants, workloads
from tests.core.client import Client
from tests.core.driving import Run, deep, telling, tick
from tests.core.orders import Act, Call, Order
from tests.core.points import idle
from tests.core.workloads import IGNORES, Ids, Workload


def run_pod(run: Run) -> Any:
    return run.client().pod()


def run_other_pod(run: Run) -> Any:
    request = run.node.sandbox_request()
    request.config.hostname = "elsewhere"
    return run.node.runtime.run_pod_sandbox(request)


def create(run: Run) -> Any:
    return run.client().create(run.ids["pod"])


def create_other(run: Run) -> Any:
    request = run.node.container_request(run.ids["pod"])
    request.config.working_dir = "/elsewhere"
    return run.node.runtime.create_container(request)


def start(run: Run) -> Any:
    return run.client().start(run.ids["main"])


def stop(run: Run) -> Any:
    return run.client().stop(run.ids["main"], 10)


def kill(run: Run) -> Any:
    return run.client().stop(run.ids["main"])


def remove(run: Run) -> Any:
    return run.client().remove(run.ids["main"])


def update(run: Run) -> Any:
    return run.client().update(run.ids["main"], 1 << 30)


def exec(run: Run) -> Any:
    return run.client().exec(run.ids["main"])


def stop_pod(run: Run) -> Any:
    return run.client().stop_pod(run.ids["pod"])


def remove_pod(run: Run) -> Any:
    return run.client().remove_pod(run.ids["pod"])


def exits(run: Run) -> None:
    made = run.node.world.containers.get(run.ids["main"])
    if made is not None:
        run.node.world.ended(made, 7)


def pause_ends(run: Run) -> None:
    for made in run.node.world.sandboxes.values():
        if made.ready:
            run.node.world.pause_ended(made)


def time_passes(run: Run) -> Any:
    return tick(run.node)


def dies(run: Run) -> None:
    run.node.kill()


async def a_parked_container(client: Client, ids: Ids) -> None:
    await workloads.a_pod(client, ids)
    call = asyncio.ensure_future(client.create(ids["pod"]))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    await idle()


async def a_container_being_stopped(client: Client, ids: Ids) -> None:
    await workloads.a_running_container(client, ids)
    call = asyncio.ensure_future(client.stop(ids["main"], 10))
    await idle()
    call.cancel()
    await asyncio.wait([call])


def leaves(name: str) -> Act:
    def leave(run: Run) -> None:
        if name in run.calls:
            run.calls[name].cancel()

    return leave


@dataclass(frozen=True)
class Together:
    calls: dict[str, Call]
    before: Callable[..., Any] = workloads.nothing
    acts: dict[str, Act] = field(default_factory=dict)
    scenario: object = None
    may_fail: tuple[str, ...] = ()
    """Calls that another may have made impossible; the others succeed in every order."""
    fails: str = ""
    """A point that does not work, the first time."""

    def __str__(self) -> str:
        return " || ".join([*self.calls, *self.acts]) + (f", {self.fails} fails" if self.fails else "")


LOST = (AlreadyExists, FailedPrecondition, NotFound)
A_POD, CREATED, RUNNING = (
    workloads.a_pod,
    workloads.a_created_container,
    workloads.a_running_container,
)
TOGETHER = [
    Together({"stop pod": stop_pod, "remove pod": remove_pod}, RUNNING),
    Together({"remove pod": remove_pod, "again": remove_pod}, RUNNING),
    Together({"stop pod": stop_pod, "again": stop_pod}, RUNNING),
    Together({"stop": stop, "remove": remove}, RUNNING),
    Together({"stop": stop, "remove": remove}, RUNNING, scenario=IGNORES),
    Together({"stop": stop, "kill": kill}, RUNNING, scenario=IGNORES),
    Together({"remove": remove, "again": remove}, RUNNING),
    Together({"remove": remove, "remove pod": remove_pod}, RUNNING),
    Together({"stop": stop, "stop pod": stop_pod}, RUNNING, scenario=IGNORES),
    Together({"create": create, "stop pod": stop_pod}, A_POD, may_fail=("create",)),
    Together({"create": create, "remove pod": remove_pod}, A_POD, may_fail=("create",)),
    Together({"create": create, "again": create}, A_POD, may_fail=("create", "again")),
    Together({"create": create, "other": create_other}, A_POD, may_fail=("create", "other")),
    Together({"run pod": run_pod, "again": run_pod}, may_fail=("run pod", "again")),
    Together({"run pod": run_pod, "other": run_other_pod}, may_fail=("run pod", "other")),
    Together({"start": start, "stop": stop}, CREATED, {"exits": exits}, may_fail=("start",)),
    Together({"start": start, "kill": kill}, CREATED, may_fail=("start",)),
    Together({"start": start, "again": start}, CREATED, may_fail=("start", "again")),
    Together({"start": start, "remove": remove}, CREATED, may_fail=("start",)),
    Together({"start": start, "stop pod": stop_pod}, CREATED, may_fail=("start",)),
    Together(
        {"start": start, "stop pod": stop_pod},
        CREATED,
        may_fail=("start",),
        fails="start_container.started",
    ),
    Together({"stop": stop, "remove": remove}, RUNNING, {"exits": exits}),
    Together({"update": update, "kill": kill}, RUNNING, may_fail=("update",)),
    Together({"update": update, "remove": remove}, RUNNING, may_fail=("update",)),
    Together({"exec": exec, "remove": remove}, RUNNING, may_fail=("exec",)),
    Together(
        {"create": create, "again": create},
        A_POD,
        {"leaves": leaves("create")},
        may_fail=("create", "again"),
    ),
    Together(
        {"create": create, "stop pod": stop_pod},
        A_POD,
        {"leaves": leaves("create")},
        may_fail=("create",),
    ),
    Together(
        {"create": create, "stop pod": stop_pod},
        A_POD,
        may_fail=("create",),
        fails="create_container.task",
    ),
    Together({"run pod": run_pod}, acts={"pause ends": pause_ends, "leaves": leaves("run pod")}),
    Together({"create": create}, A_POD, {"pause ends": pause_ends}, may_fail=("create",)),
    Together({"stop pod": stop_pod}, RUNNING, {"pause ends": pause_ends, "exits": exits}),
    Together(
        {"create": create, "stop pod": stop_pod},
        a_parked_container,
        {"time": time_passes},
        may_fail=("create",),
    ),
    Together(
        {"stop": stop, "remove": remove},
        a_container_being_stopped,
        {"time": time_passes, "exits": exits},
        IGNORES,
    ),
    Together({"stop": stop, "kill": kill, "remove": remove}, RUNNING, scenario=IGNORES),
    Together({"stop": stop, "stop pod": stop_pod, "remove pod": remove_pod}, RUNNING),
    Together({"start": start, "stop": stop, "remove pod": remove_pod}, CREATED, may_fail=("start",)),
    Together(
        {"create": create, "again": create, "remove pod": remove_pod},
        A_POD,
        may_fail=("create", "again"),
    ),
]


async def in_one_order(together: Together, order: Order, *, crash: bool = False) -> None:
    run = Run(Workload(str(together), workloads.nothing, together.before, together.scenario))
    await run.prepare()
    if together.fails:
        run.node.points.failures[together.fails] = PodwrightError("it does not work")
    acts = {**together.acts, "dies": dies} if crash else together.acts
    outcomes = await order.carry_out(run, together.calls, acts)
    if run.node.dead:
        await run.crash()
        await run.restart()
        outcomes = {}
    for name, outcome in outcomes.items():
        if not isinstance(outcome, BaseException):
            continue
        # The engine, too, may find that there is nothing left to start; and any creation may take too long.
        any_error = together.fails or name == "start" or "time" in together.acts
        allowed = PodwrightError if any_error else LOST
        assert name in together.may_fail and isinstance(outcome, allowed), f"{name}: {outcome!r}"
    await run.settle()
    await invariants.check(run.node, run.account, run.watch)
    if outcomes:
        _only_one_wins(together, outcomes)
    await run.node.clock.advance(PARKED_FOR + 1)
    await invariants.take_apart(run.node, run.client())
    await invariants.check(run.node, run.account, run.watch)
    await run.node.stop()


def _only_one_wins(together: Together, outcomes: dict[str, Any]) -> None:
    """Creations of one name: one object, given to all that asked for just that."""
    if set(together.calls) in ({"create", "again"}, {"run pod", "again"}):
        ids = {outcome for outcome in outcomes.values() if isinstance(outcome, str)}
        assert len(ids) <= 1 and (ids or together.acts)
    if "other" in outcomes:
        refused = [isinstance(each, AlreadyExists) for each in outcomes.values()]
        assert refused.count(True) == 1
    if set(together.calls) == {"start", "again"}:
        assert [isinstance(each, FailedPrecondition) for each in outcomes.values()].count(True) == 1


@pytest.mark.parametrize("together", TOGETHER, ids=str)
async def test_every_order(together: Together) -> None:
    assert await in_every_order(together) > 1


@deep
@pytest.mark.parametrize("together", TOGETHER, ids=str)
async def test_crash_in_every_order(together: Together) -> None:
    assert await in_every_order(together, crash=True) > 1


async def in_every_order(together: Together, *, crash: bool = False) -> int:
    """How many there are."""
    wanted: list[int] | None = []
    orders = 0
    while wanted is not None:
        order = Order(wanted)
        with telling(orders, order):
            await in_one_order(together, order, crash=crash)
        wanted = order.next()
        orders += 1
    print(f"{orders} orders of {together}")
    return orders
