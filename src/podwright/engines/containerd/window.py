"""A client's terminal: its size, which that of a program's follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from podwright.engines.containerd.api import Containerd
from podwright.engines.streams import Size, Streams
from podwright.errors import PodwrightError
from podwright.wire.containerd import tasks_pb2

log = logging.getLogger(__name__)

_MOST = 0xFFFF
"""Characters either way that a terminal can have (ioctl_tty(2))."""


class Window:
    """Follows the sizes of `streams`, if they have any, until it is closed."""

    def __init__(self, containerd: Containerd, container_id: str, exec_id: str, streams: Streams) -> None:
        self._containerd = containerd
        self._container_id = container_id
        self._exec_id = exec_id
        self.size: Size | None = None
        """The latest."""
        self._there = False
        self._shown: Size | None = None
        self._turn = asyncio.Lock()
        """Two questions at once may be answered in any order, and the earlier size would stay."""
        sizes = streams.sizes if streams.tty else None
        self._following = asyncio.ensure_future(self._follow(sizes)) if sizes is not None else None

    async def show(self) -> None:
        """The program's terminal is there now."""
        self._there = True
        await self._show()

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow(self, sizes: AsyncIterator[Size]) -> None:
        async for size in sizes:
            if 0 < size.width <= _MOST and 0 < size.height <= _MOST:
                self.size = size
                if self._there:
                    await self._show()

    async def _show(self) -> None:
        async with self._turn:
            size = self.size
            if size is None or size == self._shown:
                return
            request = tasks_pb2.ResizePtyRequest(
                container_id=self._container_id, exec_id=self._exec_id, width=size.width, height=size.height
            )
            try:
                await self._containerd.ask(self._containerd.tasks.ResizePty, request, "size of a terminal")
            except PodwrightError as error:
                # It has ended, or the daemon is away: no reason to end what runs in the terminal.
                log.debug("the terminal of %s keeps its size: %s", self._container_id[:12], error)
            else:
                self._shown = size
