"""States of pulls: what a watcher is told, how often, and that it never misses an end."""

from __future__ import annotations

import asyncio

import pytest

from podwright.clock import VirtualClock
from podwright.errors import NotFound, ResourceExhausted
from podwright.images.progress import INTERVAL, UNTAKEN, Pulls, Watch
from podwright.wire import podwright_pb2 as own


async def taken(watch: Watch) -> list[own.PullProgress]:
    """What is there now."""
    states: list[own.PullProgress] = []
    while True:
        task = asyncio.ensure_future(anext(watch))
        await asyncio.wait({task}, timeout=0.01)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return states
        states.append(task.result())


async def test_a_watcher_hears_at_most_ten_states_a_second_and_the_last_one() -> None:
    clock = VirtualClock()
    pulls = Pulls(clock)
    watch, heard = pulls.watch(), []
    progress = pulls.begin("docker.io/library/a:1")
    progress.layers([("sha256:l", 1000)])
    for count in range(1000):
        progress.layer(0, own.LAYER_DOWNLOADING, count)
        await clock.advance(INTERVAL / 100)
        heard += await taken(watch) if count % 5 == 0 else []
    progress.done("sha256:i")
    heard += await taken(watch)
    assert 9 <= len(heard) <= 13  # in one second
    counts = [state.layers[0].bytes for state in heard if state.layers]
    assert counts == sorted(counts) and counts[-1] == 999
    assert heard[-1].stage == own.PULL_DONE and heard[-1].image_ref == "sha256:i"
    assert clock.pending() == []


async def test_who_is_slow_finds_the_latest_state_alone() -> None:
    clock = VirtualClock()
    pulls = Pulls(clock)
    watch = pulls.watch()
    first, second = pulls.begin("a"), pulls.begin("b")
    for progress in (first, second):
        progress.layers([("sha256:l", 1000)])
    for count in range(100):
        first.layer(0, own.LAYER_DOWNLOADING, count)
        await clock.advance(1)
    second.failed("no")
    states = await taken(watch)
    assert [(state.image, state.stage) for state in states] == [
        ("a", own.PULL_TRANSFERRING),
        ("b", own.PULL_FAILED),
    ]
    assert states[0].layers[0].bytes == 99


async def test_who_comes_later_hears_of_what_is_under_way_and_not_of_what_is_over() -> None:
    pulls = Pulls(VirtualClock())
    pulls.begin("a").done("sha256:a")
    running = pulls.begin("b")
    running.layers([("sha256:l", 7)])
    (state,) = await taken(pulls.watch())
    assert (state.image, state.layers[0].total) == ("b", 7)
    assert await taken(pulls.watch("a")) == []
    assert len(await taken(pulls.watch("b"))) == 1


async def test_errors_and_cancellations_are_told() -> None:
    pulls = Pulls(VirtualClock())
    watch = pulls.watch()
    with pytest.raises(NotFound), pulls.begin("a").failing():
        raise NotFound("manifest unknown")
    with pytest.raises(asyncio.CancelledError), pulls.begin("b").failing():
        raise asyncio.CancelledError
    states = await taken(watch)
    assert [state.stage for state in states] == [own.PULL_FAILED, own.PULL_FAILED]
    assert states[0].error == "manifest unknown" and states[1].error.startswith("cancelled")


async def test_a_watcher_that_takes_nothing_is_told_that_it_missed_something() -> None:
    pulls = Pulls(VirtualClock())
    watch = pulls.watch()
    for number in range(UNTAKEN + 3):
        pulls.begin(str(number)).done("sha256:x")
    for number in range(UNTAKEN):
        assert (await anext(watch)).image == str(number)
    with pytest.raises(ResourceExhausted):
        await anext(watch)
    pulls.begin("again")
    assert (await anext(watch)).image == "again"


async def test_nobody_watches_nothing_is_timed() -> None:
    clock = VirtualClock()
    pulls = Pulls(clock)
    progress = pulls.begin("a")
    progress.layers([("sha256:l", 7)])
    for count in range(7):
        progress.layer(0, fetched=count)
    assert clock.pending() == [] and not pulls.watched
