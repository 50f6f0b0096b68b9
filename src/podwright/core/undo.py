"""Roll-back: unwinding what a failed creation made, whatever became of its client.

The unwinding runs detached from the caller's deadline, but not for ever.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

BOUND = 60.0
"""Seconds; as long as containerd gives its deferred clean-up."""

log = logging.getLogger(__name__)


async def unwind(undo: AsyncExitStack, what: str) -> bool:
    """Undo everything registered, newest first; False when something could not be undone."""
    task = asyncio.ensure_future(undo.aclose())
    done, _ = await asyncio.wait([task], timeout=BOUND)
    if not done:
        task.cancel()
        log.error("%s: the roll-back did not end within %.0f s", what, BOUND)
        return False
    if error := task.exception():
        log.error("%s: the roll-back failed: %s", what, error)
        return False
    return True
