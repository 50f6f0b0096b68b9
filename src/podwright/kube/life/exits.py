"""Waiting for the end of a container, on whatever CRI there is."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from podwright.api import Cri
from podwright.wire import cri_pb2 as cri

FIRST_LOOK, LAST_LOOK = 0.02, 0.5
"""Seconds between two looks at a container of a runtime that cannot be waited on: they grow."""


class Waiter(Protocol):
    async def wait(self, container_id: str) -> cri.ContainerStatus: ...


async def wait(runtime: Cri, container_id: str) -> cri.ContainerStatus:
    """Its status once it has exited; NotFound when it is removed meanwhile.

    The embedded runtime tells exits itself. The CRI has no call that waits, and its events may be lost:
    there nothing is left but to look again and again.
    """
    if hasattr(runtime, "wait"):
        return await cast(Waiter, runtime).wait(container_id)
    pause = FIRST_LOOK
    request = cri.ContainerStatusRequest(container_id=container_id)
    while (status := (await runtime.container_status(request)).status).state != cri.CONTAINER_EXITED:
        await asyncio.sleep(pause)
        pause = min(LAST_LOOK, pause * 1.5)
    return status
