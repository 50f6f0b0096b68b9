"""How long clients stay attached to a container, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from podwright.linux.waiting import to_the_end


async def until_over(
    output: asyncio.Future[None],
    spoken: Sequence[asyncio.Future[None]],
    deaf: asyncio.Event,
    beside: Sequence[asyncio.Future[Any]] = (),
) -> bool:
    """Wait until the container's `output` has ended, or until nothing is left to be carried: no client wants
    any output (`deaf`), and what clients send, `spoken`, is done. What goes on `beside` decides nothing.
    Whether it was the output; the first error of any is raised. All are cancelled then, and have ended.
    """
    nothing_left = asyncio.ensure_future(_after(deaf, spoken))
    tasks: list[asyncio.Future[Any]] = [output, *spoken, *beside, nothing_left]
    waited = set(tasks)
    try:
        while not (output.done() or nothing_left.done()):
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        return output.done()
    finally:
        for task in tasks:
            task.cancel()
        await to_the_end(asyncio.wait(tasks))


async def _after(deaf: asyncio.Event, spoken: Sequence[asyncio.Future[None]]) -> None:
    await deaf.wait()
    if spoken:
        await asyncio.wait(spoken)
