"""Waiting for a thing that happens once."""

from __future__ import annotations

import asyncio

from podwright.core.latch import Latch


async def test_everybody_who_waits_is_woken_and_late_comers_do_not_wait() -> None:
    latch = Latch()
    waiting = [asyncio.create_task(latch.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not latch.is_set() and not any(task.done() for task in waiting)
    latch.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*waiting)
        await latch.wait()
    assert latch.is_set()


async def test_one_who_stops_waiting_does_not_disturb_the_others() -> None:
    latch = Latch()
    leaves, stays = asyncio.create_task(latch.wait()), asyncio.create_task(latch.wait())
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait([leaves])
    latch.set()
    async with asyncio.timeout(60):
        await stays
    assert leaves.cancelled()


async def test_one_who_is_cancelled_in_the_moment_it_happens_does_not_disturb_the_others() -> None:
    latch = Latch()
    leaves, stays = asyncio.create_task(latch.wait()), asyncio.create_task(latch.wait())
    await asyncio.sleep(0)
    leaves.cancel()
    latch.set()
    async with asyncio.timeout(60):
        await stays
        await asyncio.wait([leaves])
    assert leaves.cancelled()
