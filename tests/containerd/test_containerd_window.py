"""The size of a client's terminal, on its way to the program's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest

from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.window import Window
from podwright.engines.streams import Size, Streams
from podwright.errors import DeadlineExceeded, NotFound, PodwrightError, Unavailable
from podwright.wire.containerd import tasks_pb2


class Daemon:
    """Takes sizes, but answers the first question with an error."""

    tasks = SimpleNamespace(ResizePty=None)

    def __init__(self, error: PodwrightError) -> None:
        self._errors = [error]
        self.shown: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.asked = asyncio.Event()

    async def ask(self, call: object, request: tasks_pb2.ResizePtyRequest, tried: str) -> None:
        self.asked.set()
        if self._errors:
            raise self._errors.pop()
        self.shown.put_nowait((request.width, request.height))


@pytest.mark.parametrize(
    "error", [Unavailable("restarts"), DeadlineExceeded("hangs"), NotFound("not yet"), PodwrightError("odd")]
)
async def test_a_daemon_that_is_away_for_one_size_is_told_the_next(error: PodwrightError) -> None:
    daemon, sizes = Daemon(error), asyncio.Queue[Size]()

    async def coming() -> AsyncIterator[Size]:
        while True:
            yield await sizes.get()

    streams = Streams(tty=True, sizes=coming())
    window = Window(cast(Containerd, daemon), "a" * 64, "exec-1", streams)
    try:
        await window.show()
        sizes.put_nowait(Size(80, 24))
        await asyncio.wait_for(daemon.asked.wait(), 20)
        # The same size, for it was not shown.
        sizes.put_nowait(Size(80, 24))
        assert await asyncio.wait_for(daemon.shown.get(), 20) == (80, 24)
    finally:
        await window.close()


async def test_a_session_begins_though_its_size_cannot_be_told() -> None:
    daemon = Daemon(Unavailable("restarts"))

    async def coming() -> AsyncIterator[Size]:
        yield Size(80, 24)
        await asyncio.Event().wait()

    window = Window(cast(Containerd, daemon), "a" * 64, "", Streams(tty=True, sizes=coming()))
    try:
        await asyncio.sleep(0)
        assert window.size == Size(80, 24)
        await window.show()
        assert daemon.asked.is_set() and daemon.shown.empty()
    finally:
        await window.close()
