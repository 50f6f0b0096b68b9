"""Clients' connections with the first process of a container: what it says comes from the log writer, which
has its streams, what they say goes into the FIFO that the shim reads.

The shim holds that FIFO open itself, so a client that goes does not end stdin; with `stdin_once` it is told
to let go. A file says that there was such a client, for the next podwright, should this one be killed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from io import FileIO
from pathlib import Path

from podwright.engines.attaching import until_over
from podwright.engines.base import Container
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.exec_calls import close_stdin
from podwright.engines.containerd.exec_io import writing
from podwright.engines.containerd.tasks import LIVING
from podwright.engines.containerd.window import Window
from podwright.engines.node import flow
from podwright.engines.streams import Sink, Source, Streams
from podwright.errors import FailedPrecondition, NotFound, PodwrightError
from podwright.linux.readiness import readable
from podwright.linux.waiting import to_the_end
from podwright.logs.writer import END
from podwright.logs.writing import LogWriter
from podwright.wire.containerd import task_types_pb2, tasks_pb2

SPOKEN_TO = "stdin-taken"
"""The file in a container's directory that says so."""

log = logging.getLogger(__name__)


def had_its_client(directory: Path) -> bool:
    """Whether the stdin of the container with this `directory` was for one client, which it has had."""
    return (directory / SPOKEN_TO).exists()


async def attach(
    containerd: Containerd, logs: LogWriter, directory: Path, container: Container, streams: Streams
) -> None:
    """As `Engine.attach`; `directory` is the container's."""
    process = await _running(containerd, container.id)
    session = _Session(containerd, logs, directory, container, streams)
    await session.carry(Path(process.stdin) if process.stdin else None)
    for sink in (streams.stdout, streams.stderr):
        if sink is not None:
            await sink.close()


async def _running(containerd: Containerd, id: str) -> task_types_pb2.Process:
    """FailedPrecondition when its first process does not run."""
    try:
        answer = await containerd.ask(containerd.tasks.Get, tasks_pb2.GetRequest(container_id=id), "its task")
    except NotFound as error:
        raise FailedPrecondition(f"container {id[:12]} does not run") from error
    process: task_types_pb2.Process = answer.process
    if process.status not in LIVING:
        raise FailedPrecondition(f"container {id[:12]} does not run")
    return process


class _Session:
    def __init__(
        self,
        containerd: Containerd,
        logs: LogWriter,
        directory: Path,
        container: Container,
        streams: Streams,
    ) -> None:
        self._containerd = containerd
        self._logs = logs
        self._directory = directory
        self._id = container.id
        self._streams = streams
        self._tty = container.config.tty
        self._hears = container.config.stdin
        self._once = container.config.stdin_once and not self._tty  # a terminal has no end
        self._sinks: dict[str, Sink] = {}
        if streams.stdout is not None:
            self._sinks["stdout"] = streams.stdout
        if streams.stderr is not None and not self._tty:
            self._sinks["stderr"] = streams.stderr
        self._listening = asyncio.Event()
        self._deaf = asyncio.Event()
        """No client wants any output."""

    async def carry(self, stdin: Path | None) -> None:
        """Until the container has ended, or all streams have."""
        window = Window(self._containerd, self._id, "", self._streams)
        output = asyncio.ensure_future(self._output())
        spoken, beside = [], []
        if self._streams.stdin is not None:
            spoken.append(asyncio.ensure_future(self._input(stdin, self._streams.stdin, output)))
        if self._tty:
            beside.append(asyncio.ensure_future(window.show()))
        try:
            await until_over(output, spoken, self._deaf, beside)
        finally:
            await window.close()

    # What it says

    async def _output(self) -> None:
        """Hand on what comes from now on, until the container has ended."""
        while True:
            try:
                async with self._logs.attached(self._id, list(self._sinks)) as pipes:
                    self._listening.set()
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_ended(pipes[END]))
                        for name in list(self._sinks):
                            group.create_task(self._hand_on(pipes[name], name))
                        if not self._sinks:
                            self._deaf.set()
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors
            except FailedPrecondition:
                if self._listening.is_set() or not self._logs.has(self._id):
                    return  # it has just ended
                raise
            if not self._logs.has(self._id):
                return
            log.info("container %s: the log writer has ended: its clients go to the next", self._id[:12])

    async def _hand_on(self, file: FileIO, name: str) -> None:
        buffer = memoryview(bytearray(flow.LARGE))
        try:
            while (count := file.readinto(buffer)) != 0:
                if count is None:
                    await readable(file.fileno())
                else:
                    await self._sinks[name].write(buffer[:count])
        except BrokenPipeError:
            # The client reads this stream no more, and holds nobody up.
            file.close()
            del self._sinks[name]
            if not self._sinks:
                self._deaf.set()

    # What it is told

    async def _input(self, fifo: Path | None, source: Source, output: asyncio.Future[None]) -> None:
        """Hand on what the client sends, and its end where it is for one client; dropped where nobody hears
        it, so that it does not hold up the client's other streams."""
        await self._listening.wait()
        file = None
        if self._hears and fifo is not None and not (self._once and had_its_client(self._directory)):
            file = await writing(fifo, output)
        if file is None:
            while await source.read():
                pass
            return
        try:
            if self._once:
                (self._directory / SPOKEN_TO).touch()
            await flow.inward(source, file)
        finally:
            file.close()
            if self._once:
                await to_the_end(self._end_stdin())

    async def _end_stdin(self) -> None:
        with suppress(PodwrightError):  # it has ended, or its daemon is gone: the next start sees to it
            await close_stdin(self._containerd, self._id)


async def _ended(file: FileIO) -> None:
    """Wait for the end of a pipe that says nothing."""
    while file.read(1) is None:
        await readable(file.fileno())
