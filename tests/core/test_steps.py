"""Operations and their steps: what belongs to what, across tasks, threads and generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from podwright.steps import Operations, Step, current, note, step


class Told:
    """A watcher."""

    def __init__(self) -> None:
        self.began_steps: list[Step] = []
        self.ended_steps: list[Step] = []

    def began(self, step: Step) -> None:
        self.began_steps.append(step)

    def ended(self, step: Step) -> None:
        self.ended_steps.append(step)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def operations(told: Told) -> Operations:
    made = Operations()
    made.watchers = (told,)
    return made


def test_step_belongs_to_the_step_around_it(operations: Operations, told: Told) -> None:
    with (
        operations.open("Call", "object", "traceparent") as call,
        step("outer") as outer,
        step("inner", "subject", bytes=3) as inner,
    ):
        assert inner is not None and current() is inner
    assert (call.subject, call.caller, call.is_call, call.parent) == ("object", "traceparent", True, None)
    assert inner.parent is outer and inner.operation is inner.call is call
    assert (inner.subject, inner.attributes) == ("subject", {"bytes": 3})
    assert [each.name for each in told.began_steps] == ["Call", "outer", "inner"]
    assert [each.name for each in told.ended_steps] == ["inner", "outer", "Call"]
    assert call.seconds >= inner.seconds >= 0
    assert current() is None


def test_step_without_an_operation_is_nothing(told: Told) -> None:
    with step("alone") as nothing:
        note(id="of nobody")
        assert nothing is None and current() is None


def test_error_is_that_of_each_step_around(operations: Operations, told: Told) -> None:
    error = ValueError("why")
    with pytest.raises(ValueError, match="why"), operations.open("Call"), step("outer"):
        with step("first"):
            pass
        with step("second"):
            raise error
    assert [(each.name, each.error) for each in told.ended_steps] == [
        *(("first", None), ("second", error), ("outer", error), ("Call", error))
    ]


def test_notes_are_the_innermost_steps(operations: Operations) -> None:
    with operations.open("Call") as call:
        note(id="x")
        with step("inner") as inner:
            note(size=1)
    assert inner is not None
    assert (call.attributes, inner.attributes) == ({"id": "x"}, {"size": 1})


async def test_tasks_and_threads_that_are_started_meanwhile_belong_to_it(operations: Operations) -> None:
    async def work() -> Step | None:
        await go.wait()
        with step("later") as here:
            return here

    def in_thread() -> Step | None:
        with step("thread") as here:
            return here

    go = asyncio.Event()
    with operations.open("Call") as call:
        task = asyncio.create_task(work())
        threaded = await asyncio.to_thread(in_thread)
    go.set()
    later = await task
    assert later is not None and threaded is not None
    assert later.parent is call and threaded.parent is call
    assert call.ended is not None and later.started > call.ended, "it went on without its client"


def test_operation_in_another_one_is_a_step_of_it(operations: Operations) -> None:
    with operations.open("Outer") as outer, step("between"), operations.open("Inner") as inner:
        pass
    assert inner.operation is outer and inner.call is inner and inner.is_call


async def test_operation_on_behalf_of_one_that_has_ended_is_its_own(operations: Operations) -> None:
    async def server() -> Step:
        await go.wait()
        with operations.open("Later") as here:
            return here

    go = asyncio.Event()
    with operations.open("First"):
        task = asyncio.create_task(server())
        await asyncio.sleep(0)
    go.set()
    assert (await task).parent is None


def test_operation_of_another_house_is_its_own(operations: Operations) -> None:
    other = Operations()
    other.watchers = (Told(),)
    with operations.open("Here"), other.open("There") as there:
        assert there.parent is None and there.watchers is other.watchers


def test_call_that_somebody_has_just_opened_is_joined(operations: Operations, told: Told) -> None:
    with operations.open("Call", "server") as opened, operations.join("Call", "core") as joined:
        assert joined is opened
    assert [each.name for each in told.ended_steps] == ["Call"]


def test_call_inside_another_one_is_not_joined(operations: Operations, told: Told) -> None:
    with operations.open("Call"), step("retry"), operations.join("Call") as second:
        pass
    with operations.join("Call") as alone:
        pass
    assert second.parent is not None and second.parent.name == "retry" and alone.parent is None
    assert [each.name for each in told.ended_steps] == ["Call", "retry", "Call", "Call"]


def test_call_of_another_name_is_not_joined(operations: Operations) -> None:
    with operations.open("Outer") as outer, operations.join("Call") as call:
        assert call is not outer and call.parent is outer


async def test_generator_that_is_closed_elsewhere_ends_its_operation(
    operations: Operations, told: Told
) -> None:
    async def parts() -> AsyncIterator[int]:
        with operations.open("Stream"):
            while True:
                yield 1

    async def read() -> AsyncIterator[int]:
        stream = parts()
        assert await anext(stream) == 1
        return stream

    stream = await asyncio.create_task(read())
    await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
    [ended] = told.ended_steps
    assert ended.name == "Stream" and isinstance(ended.error, GeneratorExit)
