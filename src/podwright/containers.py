"""A container for programs: started, watched, talked with, stopped and removed; what it wrote is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.errors import NotFound
from podwright.kube.life import exits
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.engines.streams import Streams
    from podwright.logs.lines import Line
    from podwright.processes import Process
    from podwright.streaming.client import Options

__all__ = ["Container", "ExecResult"]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container gave back; a code other than 0 is a result, not an error."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class Container:
    """One container."""

    def __init__(self, cri: Cri, id: str, name: str, log: Path) -> None:
        self.id = id
        self.name = name
        self.log = log
        """Its log file, in the CRI's format."""
        self._cri = cri

    async def start(self) -> None:
        """Start its program. Raises PodwrightError with the runtime's words when that is impossible; the
        container has ended then."""
        await self._cri.start_container(cri.StartContainerRequest(container_id=self.id))

    async def status(self) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=self.id)
        return (await self._cri.container_status(request)).status

    async def exec(self, argv: Sequence[str], *, timeout: int = 0) -> ExecResult:
        """Run a command inside, with the container's environment, user and directory.

        At most 16 MiB of each stream come back. Raises DeadlineExceeded after `timeout` seconds (0: none);
        the command is killed then.
        """
        request = cri.ExecSyncRequest(container_id=self.id, cmd=argv, timeout=timeout)
        done = await self._cri.exec_sync(request)
        return ExecResult(done.stdout, done.stderr, done.exit_code)

    def process(
        self,
        argv: Sequence[str],
        *,
        tty: bool = False,
        size: tuple[int, int] = (80, 24),
        options: Options | None = None,
    ) -> Process:
        """Run a command inside and talk with it: `async with container.process(["sh"]) as shell:`.

        With `tty` it has a terminal of `size` (width, height). `options` say how a server's streams are
        reached. Output that is not read holds the command up. What goes wrong is raised where its output is
        read, and by `wait`.
        """
        from podwright.processes import Process
        from podwright.streaming import client

        async def talk(streams: Streams) -> int:
            return await client.exec(self._cri, self.id, argv, streams, options or client.Options())

        return Process(talk, tty=tty, size=size)

    async def attach(self, *, size: tuple[int, int] = (80, 24), options: Options | None = None) -> Process:
        """Talk with its own first process, from now on: `async with await container.attach() as process:`.

        `wait` gives its exit code when it has ended; leaving the block before lets it go on. Input reaches a
        container that was created with `stdin` open. Raises FailedPrecondition when it does not run.
        """
        from podwright.processes import Process
        from podwright.streaming import client

        stdin, tty = await client.made_with(self._cri, self.id)

        async def talk(streams: Streams) -> None:
            asked = streams if stdin else replace(streams, stdin=None)
            await client.attach(self._cri, self.id, asked, options or client.Options())

        async def exit_code() -> int:
            return (await self.wait()).exit_code

        return Process(talk, tty=tty, size=size, exit_code=exit_code)

    async def checkpoint(self, archive: str | Path, *, timeout: int = 0) -> None:
        """Write it to an archive on the server's host; it runs on. A container whose image is the archive's
        absolute path is restored from it: `sandbox.create(name, "/path/archive.tar")`, then `start`.

        Raises FailedPrecondition where CRIU cannot work, DeadlineExceeded after `timeout` seconds (0: none).
        """
        location = str(Path(archive).absolute())
        request = cri.CheckpointContainerRequest(container_id=self.id, location=location, timeout=timeout)
        await self._cri.checkpoint_container(request)

    async def wait(self) -> cri.ContainerStatus:
        """Wait until it has ended: exit_code, reason and times are in its status."""
        return await exits.wait(self._cri, self.id)

    async def stop(self, grace: int = 10) -> None:
        """Send the stop signal, after `grace` seconds SIGKILL; returns when it has ended. Idempotent."""
        request = cri.StopContainerRequest(container_id=self.id, timeout=grace)
        await self._cri.stop_container(request)

    async def remove(self) -> None:
        """Remove it, running or not. Idempotent."""
        await self._cri.remove_container(cri.RemoveContainerRequest(container_id=self.id))

    async def logs(
        self, *, follow: bool = False, since: str | int | None = None, tail: int | None = None
    ) -> AsyncIterator[Line]:
        """What it wrote, line by line, of rotated files too; with `follow` until it has ended, the last line
        included. Each line has its `stream` and `time`.

        `since`: from then on only: "10m" ago, an RFC 3339 time, or nanoseconds since the epoch. `tail`: of
        what is there at the beginning the last so many lines. InvalidArgument for others, NotFound without a
        log.
        """
        from podwright.logs import reader
        from podwright.logs.lines import moment

        begin = moment(since) if isinstance(since, str) else since

        ended = asyncio.Event()
        waiting = asyncio.ensure_future(self._set_when_ended(ended)) if follow else None
        try:
            async for line in reader.follow(self.log, follow=follow, stop=ended, since=begin, tail=tail):
                yield line
        finally:
            if waiting is not None:
                waiting.cancel()

    async def _set_when_ended(self, ended: asyncio.Event) -> None:
        try:
            with suppress(NotFound):
                await self.wait()
        finally:
            ended.set()
