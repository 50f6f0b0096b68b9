"""What every engine's ExecSync does: a command's time is limited, and what it says is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from podwright.engines.base import ExecResult
from podwright.engines.streams import Kept, Streams
from podwright.errors import DeadlineExceeded
from podwright.linux.waiting import to_the_end


async def within(timeout: float | None, command: str, work: Coroutine[Any, Any, ExecResult]) -> ExecResult:
    """What `work`, which runs `command`, returns. DeadlineExceeded after `timeout` seconds: it is cancelled
    then, and waited for until it has cleared away what it runs."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise DeadlineExceeded(f"command {command!r} timed out: it did not end within {timeout:g} s")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await to_the_end(asyncio.wait([task]))


async def kept(limit: int, run: Callable[[Streams], Coroutine[Any, Any, int]]) -> ExecResult:
    """At most `limit` bytes of each stream that `run` fills, and the code that it returns."""
    stdout, stderr = Kept(limit), Kept(limit)
    code = await run(Streams(stdout=stdout, stderr=stderr))
    return ExecResult(bytes(stdout.data), bytes(stderr.data), code)
