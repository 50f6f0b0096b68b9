"""Waiting for two at once."""

from __future__ import annotations

import asyncio

import pytest

from podwright.linux.waiting import together


async def test_two_go_on_side_by_side() -> None:
    met = asyncio.Barrier(2)

    async def one() -> str:
        await met.wait()
        return "one"

    async def other() -> int:
        await met.wait()
        return 2

    assert await asyncio.wait_for(together(one(), other()), 30) == ("one", 2)


async def test_the_failure_of_one_ends_the_other_before_it_is_told() -> None:
    began, ended = asyncio.Event(), []

    async def fails() -> None:
        await began.wait()
        raise FileNotFoundError("gone")

    async def stays() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(FileNotFoundError, match="gone"):
        await asyncio.wait_for(together(fails(), stays()), 30)
    assert ended == [True]


async def test_a_cancellation_ends_both() -> None:
    began, ended = asyncio.Barrier(3), []

    async def stays() -> None:
        try:
            await began.wait()
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    waiting = asyncio.ensure_future(together(stays(), stays()))
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == [True, True]
