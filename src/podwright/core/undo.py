"""Roll-back: unwinding what a failed creation made, whatever became of its client.

The unwinding runs detached from the caller's deadline, but not for ever.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from podwright.linux.waiting import to_the_end

BOUND = 60.0
"""Seconds; as long as containerd gives its deferred clean-up."""

log = logging.getLogger(__name__)


async def unwind(undo: AsyncExitStack, what: str) -> bool:
    """Undo everything registered, newest first; False when something could not be undone.

    A cancellation meanwhile changes nothing: who cancels a creation that is being rolled back wants just
    that, and waits for its end before touching what it made.
    """
    task = asyncio.ensure_future(undo.aclose())
    try:
        await to_the_end(asyncio.wait([task], timeout=BOUND))
    except asyncio.CancelledError:
        pass
    if not task.done():
        task.cancel()
        log.error("%s: the roll-back did not end within %.0f s", what, BOUND)
        return False
    if error := task.exception():
        log.error("%s: the roll-back failed: %s", what, error)
        return False
    return True
