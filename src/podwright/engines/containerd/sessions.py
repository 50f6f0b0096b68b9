"""What clients do in containers while they run: exec and attach."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from podwright import structs
from podwright.config import Config
from podwright.engines import exec_sync
from podwright.engines.base import Container, ExecResult, Json
from podwright.engines.containerd import attach, exec, exec_calls, strays
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.exec import Place
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node.places import Places
from podwright.engines.streams import Streams
from podwright.errors import FailedPrecondition, NotFound, PodwrightError
from podwright.logs.writing import LogWriter
from podwright.wire.containerd import containers_pb2

TIDYING = 2.0
"""Seconds that the last programs may take to be cleared away when the engine closes."""

log = logging.getLogger(__name__)


class _Spec(msgspec.Struct):
    """The one part of a spec that matters here; msgspec skips the rest unread."""

    process: dict[str, Json]


class Sessions:
    def __init__(
        self, containerd: Containerd, tasks: Tasks, places: Places, logs: LogWriter, config: Config
    ) -> None:
        self._containerd = containerd
        self._tasks = tasks
        self._places = places
        self._logs = logs
        self._mark = secrets.token_hex(4)
        self._background: set[asyncio.Task[None]] = set()
        """What goes on after the clients have their answers."""

    async def close(self) -> None:
        if self._background:
            await asyncio.wait(self._background, timeout=TIDYING)
        for task in list(self._background):
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        """As `Engine.exec_sync`. A command that cannot be run is no error: 127 or 126, and why on stderr."""
        place = await self._place(container)

        def run(streams: Streams) -> Coroutine[Any, Any, int]:
            return exec.run(place, argv, streams, patient=False)

        return await exec_sync.within(timeout, argv[0], exec_sync.kept(limit, run))

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        """As `Engine.exec`."""
        return await exec.run(await self._place(container), argv, streams)

    async def attach(self, container: Container, streams: Streams) -> None:
        """As `Engine.attach`."""
        directory = self._places.container_run(container.id)
        await attach.attach(self._containerd, self._logs, directory, container, streams)

    async def adopt(self, container: Container) -> None:
        """Take up a container of an earlier podwright: what that has run in it is hung up, and a stdin that
        was for one client has ended if that was this podwright's. Returns while this goes on."""
        directory = self._places.container_run(container.id)
        if found := strays.left(directory, self._mark):
            self._go_on(strays.hang_up(self._containerd, container.id, found))
        if attach.had_its_client(directory):
            self._go_on(self._end_stdin(container.id))

    async def _end_stdin(self, id: str) -> None:
        try:
            await exec_calls.close_stdin(self._containerd, id)
        except PodwrightError as error:
            log.warning("container %s: its stdin has not ended: %s", id[:12], error)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _place(self, container: Container) -> Place:
        # Its runtime moves the program into the container's cgroups.
        self._tasks.migrations.soon()
        directory = self._places.container_run(container.id)
        try:
            text = (directory / "config.json").read_bytes()
        except FileNotFoundError:
            text = await self._recorded(container.id)
        process = structs.decode(text, _Spec).process
        return Place(self._containerd, container.id, process, directory, self._mark, self._background)

    async def _recorded(self, id: str) -> bytes:
        """The spec as containerd has it, when ours is lost."""
        request = containers_pb2.GetContainerRequest(id=id)
        try:
            answer = await self._containerd.ask(self._containerd.containers.Get, request, "its spec")
        except NotFound as error:
            raise FailedPrecondition(f"container {id[:12]} does not run: containerd knows none") from error
        return bytes(answer.container.spec.value)
