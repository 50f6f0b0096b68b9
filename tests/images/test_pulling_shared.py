"""Works that several share, turns that are fair, and contexts that last as long as somebody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from podwright.errors import NotFound, PodwrightError
from podwright.images.transfers import Lent, Shared, Turns, Work


class Doing:
    """Work that ends when the test says."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.fails = False

    async def __call__(self, work: Work[int]) -> int:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise NotFound("nothing")
        return self.begun


async def take_part(shared: Shared[int], doing: Doing) -> int:
    async with shared.part("key", doing) as (work, _):
        return await work.result()


async def turns_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_runs_is_joined_and_what_has_ended_begins_anew() -> None:
    shared, doing = Shared[int](), Doing()
    tasks = [asyncio.create_task(take_part(shared, doing)) for _ in range(3)]
    await turns_of_the_loop()
    doing.go.set()
    assert [await task for task in tasks] == [1, 1, 1]
    assert await take_part(shared, doing) == 2


async def test_the_last_one_who_leaves_ends_it() -> None:
    shared, doing = Shared[int](), Doing()
    first, second = [asyncio.create_task(take_part(shared, doing)) for _ in range(2)]
    await turns_of_the_loop()
    first.cancel()
    await asyncio.wait({first})
    assert doing.cancelled == 0
    second.cancel()
    await asyncio.wait({second})
    assert (doing.begun, doing.cancelled) == (1, 1)


async def test_who_comes_while_it_is_being_ended_begins_anew() -> None:
    shared, ending, go = Shared[str](), asyncio.Event(), asyncio.Event()

    async def stubborn(_: Work[str]) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await go.wait()
        return "never"

    async def quick(_: Work[str]) -> str:
        return "new"

    async def use(begin: object) -> str:
        async with shared.part("key", begin) as (work, _):  # type: ignore[arg-type]
            return await work.result()

    old = asyncio.create_task(use(stubborn))
    await turns_of_the_loop()
    old.cancel()
    await ending.wait()
    assert await use(quick) == "new"
    go.set()
    await asyncio.wait({old})


async def test_an_error_is_everybodys() -> None:
    shared, doing = Shared[int](), Doing()
    doing.fails = True
    tasks = [asyncio.create_task(take_part(shared, doing)) for _ in range(2)]
    await turns_of_the_loop()
    doing.go.set()
    for task in tasks:
        with pytest.raises(NotFound):
            await task


async def test_closing_ends_what_is_under_way() -> None:
    shared, doing = Shared[int](), Doing()
    task = asyncio.create_task(take_part(shared, doing))
    await turns_of_the_loop()
    await shared.close()
    assert doing.cancelled == 1
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_free_place_goes_to_who_has_the_fewest() -> None:
    turns, order = Turns(2), list[str]()
    release: dict[str, asyncio.Event] = {}

    async def work(owner: str, name: str) -> None:
        release[name] = asyncio.Event()
        async with turns.turn(owner):
            order.append(name)
            await release[name].wait()

    names = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("a", "a4"), ("b", "b1"), ("c", "c1"), ("b", "b2")]
    tasks = []
    for owner, name in names:
        tasks.append(asyncio.create_task(work(owner, name)))
        await turns_of_the_loop()
    assert order == ["a1", "a2"]
    # b had none when a1 went; a had none any more when a2 went, and had waited longer than c.
    for leaving, following in (("a1", "b1"), ("a2", "a3"), ("b1", "c1"), ("c1", "b2"), ("b2", "a4")):
        release[leaving].set()
        await turns_of_the_loop()
        assert order[-1] == following
    assert len(order) == len(names)
    for event in release.values():
        event.set()
    await asyncio.gather(*tasks)


async def test_no_place_is_lost_by_who_gives_up() -> None:
    turns = Turns(1)

    async def work() -> None:
        async with turns.turn("a"):
            await asyncio.sleep(0)

    for steps in range(6):
        tasks = [asyncio.create_task(work()) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        async with asyncio.timeout(10), turns.turn("b"):
            pass


class Context:
    def __init__(self) -> None:
        self.opened = self.closed = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[int]:
        task = asyncio.current_task()
        self.opened += 1
        try:
            yield self.opened
        finally:
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
            self.closed += 1


async def test_a_context_lasts_as_long_as_somebody_uses_it() -> None:
    context = Context()
    lent = Lent(context())
    async with AsyncExitStack() as outer:
        async with lent.borrowed() as value:
            assert value == 1
            assert await outer.enter_async_context(lent.borrowed()) == 1
        assert (context.opened, context.closed) == (1, 0)
    assert (context.opened, context.closed) == (1, 1)
    with pytest.raises(PodwrightError, match="closed"):
        async with lent.borrowed():
            pass


async def test_a_context_that_does_not_open_tells_why_and_one_that_hangs_is_given_up() -> None:
    @asynccontextmanager
    async def closed() -> AsyncIterator[None]:
        raise NotFound("nothing there")
        yield

    with pytest.raises(NotFound):
        async with Lent(closed()).borrowed():
            pass

    left = asyncio.Event()

    @asynccontextmanager
    async def hanging() -> AsyncIterator[None]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            left.set()

    async def borrow() -> None:
        async with Lent(hanging()).borrowed():
            pass

    task = asyncio.create_task(borrow())
    await turns_of_the_loop()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled() and left.is_set()
