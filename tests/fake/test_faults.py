"""Faults: where, for whom and how often they strike, and what the engine then does at its steps."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwright import errors
from podwright.engines.base import Presence
from podwright.engines.fake import engine as engine_module
from podwright.engines.fake import images as images_module
from podwright.engines.fake.faults import (
    ERRORS,
    EVENTS,
    PLACES,
    RPCS,
    STEPS,
    Fault,
    FaultError,
    Faults,
    Meeting,
)
from podwright.engines.fake.scenario import apply, parse
from podwright.engines.fake.subject import Match, Subject
from podwright.errors import InvalidArgument, NotFound, PodwrightError, Unavailable
from podwright.server.calls import other_methods, served_methods
from tests.fake.containers import Node

WEB = Subject("1" * 64, "web-0", "shop", "web", "nginx:1", {"app": "web"})
BATCH = Subject("2" * 64, "batch", "jobs", "worker", "busybox", {})
SLEEP = ("sleep", "inf")
ANYTHING: list[Any] = [WEB, BATCH, Subject()]


def fault(**fields: Any) -> Fault:
    [made] = parse({"faults": [{"on": "CreateContainer", **fields}]}).faults
    return made


def faults(*trees: dict[str, Any], seed: int = 1) -> Faults:
    made = Faults(random.Random(seed))
    for tree in trees:
        made.add(fault(**tree))
    return made


def outcomes(of: Faults, times: int, on: str = "CreateContainer", subject: Subject = WEB) -> str:
    """One letter for each meeting: the first of the error's message, or a dot."""
    found = [of.meet(on, subject).error for _ in range(times)]
    return "".join("." if error is None else str(error)[0] for error in found)


def error(message: str) -> dict[str, str]:
    return {"code": "Unavailable", "message": message}


def test_nothing_strikes_without_faults() -> None:
    assert faults().meet("CreateContainer", WEB) == Meeting() and not faults().some


@pytest.mark.parametrize(
    ("on", "strikes"),
    [
        ("CreateContainer", True),
        ("Create*", True),
        ("*Container", True),
        ("*", True),
        ("StartContainer", False),
        ("create_container.*", False),
    ],
)
def test_a_fault_strikes_where_its_pattern_fits(on: str, strikes: bool) -> None:
    struck = faults({"on": on, "error": error("x")}).meet("CreateContainer", WEB).error is not None
    assert struck == strikes


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, [WEB, BATCH, Subject()]),
        ({"pod": "web-*"}, [WEB]),
        ({"namespace": "jobs"}, [BATCH]),
        ({"container": "w*"}, [WEB, BATCH]),
        ({"image": "nginx:?"}, [WEB]),
        ({"labels": {"app": "web"}}, [WEB]),
        ({"labels": {"app": "[!w]*"}}, []),
        ({"labels": {"tier": "*"}}, [WEB, BATCH, Subject()]),
        ({"id": "2*"}, [BATCH]),
        ({"pod": "web-*", "namespace": "jobs"}, []),
        ({"pod": "WEB-0"}, []),
    ],
)
def test_a_fault_strikes_whom_it_matches(match: dict[str, Any], fits: list[Subject]) -> None:
    pattern = msgspec.convert(match, Match)
    assert [each for each in ANYTHING if pattern.fits(each)] == fits
    of = faults({"match": match, "error": error("x")})
    assert [each for each in ANYTHING if of.meet("CreateContainer", each).error] == fits


@pytest.mark.parametrize(
    ("trees", "expected"),
    [
        ([{"error": error("a")}], "aaaaaa"),
        ([{"error": error("a"), "count": 2}], "aa...."),
        ([{"error": error("a"), "skip": 2}], "..aaaa"),
        ([{"error": error("a"), "skip": 1, "count": 2}], ".aa..."),
        # A queue: the second is met when the first lets pass.
        ([{"error": error("a"), "count": 1}, {"error": error("b"), "count": 2}], "abb..."),
        ([{"error": error("a"), "skip": 3, "count": 1}, {"error": error("b"), "count": 4}], "bbbab."),
        # A match that does not fit counts nothing.
        ([{"error": error("a"), "count": 1, "match": {"pod": "other"}}, {"error": error("b")}], "bbbbbb"),
    ],
)
def test_skip_count_and_order(trees: list[dict[str, Any]], expected: str) -> None:
    assert outcomes(faults(*trees), 6) == expected


def test_probability_is_settled_by_the_seed_and_count_counts_strikes() -> None:
    tree = {"error": error("x"), "probability": 0.3}
    first = outcomes(faults(tree, seed=5), 2000)
    assert first == outcomes(faults(tree, seed=5), 2000) != outcomes(faults(tree, seed=6), 2000)
    assert 500 < first.count("x") < 700
    assert outcomes(faults({**tree, "count": 3}), 200).count("x") == 3


def test_latencies_add_up_and_come_with_the_error() -> None:
    of = faults({"latency": "1s"}, {"latency": "500ms", "error": error("x")}, {"latency": 2})
    meeting = of.meet("CreateContainer", WEB)
    assert meeting.latency == 3.5 and isinstance(meeting.error, Unavailable)
    assert of.meet("StartContainer", WEB) == Meeting()


def test_events_get_lost_and_crashes_are_told() -> None:
    of = faults(
        {"on": "event.*", "lose": True, "count": 1},
        {"on": "StopContainer", "crash": "after", "downtime": "3s"},
    )
    name = "event.CONTAINER_STARTED_EVENT"
    assert [of.meet(name, WEB).lose for _ in range(2)] == [True, False]
    crash = of.meet("StopContainer", WEB).crash
    assert crash is not None and crash.crash == "after" and crash.downtime.draw(random.Random()) == 3


@pytest.mark.parametrize("code", [*ERRORS, "InvalidArgument"])
def test_every_error_can_be_had(code: str) -> None:
    made = FaultError(code=code, message="the words").make()
    expected = PodwrightError if code == "Unknown" else getattr(errors, code)
    assert type(made) is expected and str(made).endswith("the words")


def test_an_invalid_argument_names_its_field() -> None:
    made = FaultError(code="InvalidArgument", field="config.metadata.name", message="is odd").make()
    assert isinstance(made, InvalidArgument) and str(made) == "config.metadata.name: is odd"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"on": "CreateContianer", "error": error("x")}, "did you mean 'CreateContainer'"),
        ({"on": "create_container.rootfs2", "error": error("x")}, "did you mean 'create_container.rootfs'"),
        ({}, r"scenario\.faults\[0\]: a fault needs one of error, latency, lose or crash"),
        ({"error": {"code": "Gone"}}, r"scenario\.faults\[0\]\.error\.code: 'Gone' .* Unavailable"),
        ({"error": {"code": "NotFound", "field": "x"}}, "only InvalidArgument names a field"),
        ({"on": "Exek", "latency": "1s"}, "no call, step or event"),
        ({"lose": True}, "'CreateContainer' fits no event"),
        ({"on": "event.*", "error": error("x")}, r"faults\[0\]\.error: 'event\.\*' fits only events"),
        ({"on": EVENTS[0], "latency": "1s"}, r"faults\[0\]\.latency: .* fits only events"),
        ({"crash": "before", "error": error("x")}, "leave one of the two out"),
        ({"crash": "now"}, r"scenario\.faults\[0\]\.crash: Invalid enum value 'now'"),
        ({"latency": "1s", "downtime": "1s"}, "follows a crash"),
        ({"latency": "1s", "probability": 0}, "0.0 is not above 0"),
        ({"latency": "1s", "probability": 1.5}, "at most 1"),
        ({"latency": "1s", "count": -1}, "count: -1 is negative"),
        ({"latency": "1s", "skip": -1}, "skip: -1 is negative"),
        ({"latency": "fast"}, r"scenario\.faults\[0\]\.latency: 'fast' is no time"),
        ({"lateness": "1s"}, r"scenario\.faults\[0\]: .*unknown field lateness"),
    ],
)
def test_what_is_no_fault_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        fault(**fields)


def test_a_fault_made_in_python_is_read_as_one_of_a_scenario() -> None:
    of = Faults(random.Random(1))
    words: Any = "2s"
    of.add(Fault(on="CreateContainer", latency=words))
    of.add({"on": "CreateContainer", "match": {"pod": WEB.pod}, "error": error("busy"), "count": 1})
    assert of.meet("CreateContainer", WEB).latency == 2
    of.clear()
    soon: Any = "soon"
    wrongs: list[tuple[Any, str]] = [
        (Fault(on="Version", latency=soon), "fault.latency"),
        (Fault(on="Version", crash=soon), "fault.crash"),
        ({"latency": 1}, "fault"),
    ]
    for wrong, field in wrongs:
        with pytest.raises(InvalidArgument) as caught:
            of.add(wrong)
        assert caught.value.field == field
    assert not of.some


def test_every_call_of_the_cri_is_a_place() -> None:
    assert set(RPCS) == {method.name for _, method in (*served_methods(), *other_methods())}
    assert {"Exec", "StreamContainers", "PullImage"} < set(RPCS)


def test_faults_come_and_go() -> None:
    of = Faults(random.Random(1))
    first, second = of.add(fault(error=error("a"))), of.add(fault(error=error("b"), count=1))
    assert first != second and [each.id for each in of.active()] == [first, second] and of.some
    assert outcomes(of, 2) == "aa"
    of.remove(first)
    [left] = of.active()
    assert (left.met, left.struck) == (0, 0)
    assert outcomes(of, 3) == "b.." and of.active() == [] and not of.some
    assert (left.met, left.struck) == (1, 1)
    with pytest.raises(NotFound, match=f"id {second}"):
        of.remove(second)
    of.add(fault(error=error("c")))
    of.clear()
    assert outcomes(of, 1) == "."


def test_a_new_scenario_leaves_the_counts_of_faults_that_stay(tmp_path: Path) -> None:
    spent, counting, other = (
        {"on": "*", "error": error(letter), "count": count}
        for letter, count in [("a", 1), ("b", 3), ("c", 1)]
    )
    world = Node(tmp_path, {"faults": [spent, counting]}).world
    world.faults.add(fault(error=error("z")))
    assert outcomes(world.faults, 2) == "ab"
    world.scenario = apply(world.scenario, {"network_error": "down"})
    assert outcomes(world.faults, 1) == "b"
    world.scenario = apply(world.scenario, {"faults": [other, spent, counting]})
    assert outcomes(world.faults, 4) == "cbzz", "spent ones come back, or counts begin anew"
    world.scenario = apply(world.scenario, {"faults": []})
    assert outcomes(world.faults, 1) == "z"
    world.scenario = apply(world.scenario, {"faults": [spent]})
    assert outcomes(world.faults, 2) == "az", "one that had gone does not come back"


def test_the_list_of_steps_is_the_engines() -> None:
    named: set[str] = set()
    for module in (engine_module, images_module):
        source = inspect.getsource(module)
        named |= set(re.findall(r'(?:_step|_undoing)\(\s*(?:undo, )?"([a-z_]+\.[a-z_]+)"', source))
    assert named == set(STEPS)
    assert len(set(PLACES)) == len(PLACES)


# At the engine's steps


async def test_a_step_waits_by_the_worlds_clock_and_then_fails(tmp_path: Path) -> None:
    step = "create_container.rootfs"
    node = Node(tmp_path, {"faults": [{"on": step, "latency": "2s", "error": error("no disk"), "count": 1}]})
    creation = asyncio.create_task(node.create(*SLEEP))
    await node.clock.advance(1.9)
    assert not creation.done() and not node.world.containers
    await node.clock.advance(0.2)
    with pytest.raises(Unavailable, match="no disk"):
        await creation
    assert (await node.create(*SLEEP)).made.presence is Presence.CREATED


async def test_a_step_that_fails_is_undone(tmp_path: Path) -> None:
    node = Node(tmp_path, {"faults": [{"on": "create_container.task", "error": error("x")}]})
    with pytest.raises(Unavailable):
        await node.create(*SLEEP)
    assert not node.world.containers


@pytest.mark.parametrize(
    ("when", "step", "presence"),
    [
        ("before", "create_container.rootfs", None),
        ("after", "create_container.rootfs", Presence.MISSING),
        ("before", "create_container.task", Presence.MISSING),
        ("after", "create_container.task", Presence.CREATED),
    ],
)
async def test_a_crash_comes_before_or_after_the_act(
    tmp_path: Path, when: str, step: str, presence: Presence | None
) -> None:
    node = Node(tmp_path, {"faults": [{"on": step, "crash": when, "count": 1, "downtime": "1s"}]})
    crashes: list[Fault] = []
    node.world.on_crash = crashes.append
    creation = asyncio.create_task(node.create(*SLEEP))
    await node.clock.advance(10)
    [crash] = crashes
    assert crash.on == step and crash.downtime.draw(node.world.chance) == 1
    made = list(node.world.containers.values())
    assert [each.presence for each in made] == ([] if presence is None else [presence])
    # Only what ends an operation lets its caller go on, to find that nothing works any more.
    assert creation.done() == ((when, step) == ("after", "create_container.task"))
    another = asyncio.create_task(node.create(*SLEEP))
    await node.clock.advance(10)
    assert not another.done() and len(crashes) == 1
    node.engine.bury()
    await asyncio.wait([creation, another])


async def test_undoing_can_fail_too(tmp_path: Path) -> None:
    node = Node(
        tmp_path,
        {
            "faults": [
                {"on": "create_container.task", "error": error("first")},
                {"on": "undo_container.*", "error": error("second")},
            ]
        },
    )
    with pytest.raises(Unavailable, match="second"):
        async with AsyncExitStack() as undo:
            await node.engine.create_container(await _container(node), undo)
    assert len(node.world.containers) == 1


async def _container(node: Node) -> Any:
    """One that can be made: that of a container which exists no more."""
    kept, node.world.faults = node.world.faults, Faults(random.Random(1))
    case = await node.create(*SLEEP)
    node.world.containers.clear()
    node.world.faults = kept
    return case.container


async def test_a_fault_strikes_one_object_only(tmp_path: Path) -> None:
    tree = {"on": "start_container.start", "match": {"container": "bad*"}, "error": error("x")}
    node = Node(tmp_path, {"faults": [tree]})
    assert (await node.start(*SLEEP, name="good")).running
    with pytest.raises(Unavailable):
        await node.start(*SLEEP, name="bad")
