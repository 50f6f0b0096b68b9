"""The CRI logs of this engine's containers, made of what Docker's json-file driver writes, while it writes.

Docker's file is the truth: it is there whether podwright runs or not. How far the CRI log is written is noted
beside (`log_copy.py`). A container's end is told when its last line is in the CRI log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Container, Json
from podwright.engines.docker.api import Docker
from podwright.engines.docker.log_copy import Copy, all_is_written
from podwright.engines.docker.objects import Objects
from podwright.engines.log_limits import LogLimits
from podwright.errors import FailedPrecondition
from podwright.linux import inotify
from podwright.linux.waiting import to_the_end
from podwright.logs.limits import Limits
from podwright.logs.writer_files import LogFile
from podwright.steps import step

log = logging.getLogger(__name__)

DRIVER = "json-file"
ENDLESS = "1000p"
"""Docker's own rotation would lose lines that came while podwright was away, and "off" it does not know."""


class Logs:
    """All logs. The daemon must be on this host: its files are read."""

    def __init__(self, docker: Docker, objects: Objects, config: Config) -> None:
        """FailedPrecondition for limits in the configuration that mean nothing."""
        self._docker = docker
        self._objects = objects
        self._limits = LogLimits.of(config.logs)
        self._notes = config.root_path / "docker" / "logs"
        self._root: Path | None = None
        self._followed: dict[str, _Followed] = {}
        self._watch: inotify.Watch | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._watch = inotify.Watch()
        self._watching = asyncio.ensure_future(self._see(self._watch))

    async def close(self) -> None:
        """Let go: what comes from now on is written by the next podwright."""
        for id in list(self._followed):
            await self._let_go(id)
        if self._watch is not None and self._watching is not None:
            self._watch.close()
            await self._watching
            self._watch = None

    def log_config(self, container: Container) -> dict[str, Json]:
        """HostConfig.LogConfig of a container. What the daemon may have another default of is named."""
        if not container.log_path:
            return {"Type": "none", "Config": {}}
        options = {"max-size": ENDLESS, "max-file": "1", "compress": "false", "mode": "blocking"}
        return {"Type": DRIVER, "Config": options}

    def check(self, container: Container) -> Limits:
        """The limits of its log. Raises InvalidArgument for an annotation that means nothing."""
        return self._limits.of_container(container) or Limits()

    async def begin(self, container: Container, docker_id: str) -> None:
        """Before its start: the CRI log is made, and what Docker's log gets goes there from now on.

        Raises FailedPrecondition when that cannot be written, or Docker's log is not on this host.
        """
        if not container.log_path:
            return
        await asyncio.to_thread(_make, container.log_path)
        await self._follow(container, docker_id)

    async def follow(self, container: Container, docker_id: str) -> None:
        """After a restart of ours: go on where its log ends, whatever Docker's log got meanwhile. Fine when
        that is done, or nothing is left to do.

        Raises FailedPrecondition when Docker keeps its log with another driver.
        """
        if not container.log_path or container.id in self._followed:
            return
        found = await self._objects.inspect_docker(docker_id)
        if found is None:
            return
        if (driver := found["HostConfig"]["LogConfig"]["Type"]) != DRIVER:
            raise FailedPrecondition(
                f"container {container.id[:12]} logs with Docker's driver {driver!r}, which leaves no file"
                f" that a CRI log could be made of: containers of pods need {DRIVER!r}"
            )
        source = await self._source(docker_id)
        if not found["State"]["Running"] and all_is_written(source, self._notes / container.id):
            return
        await self._follow(container, docker_id)

    async def finish(self, container_id: str) -> None:
        """It has ended: have its last line written. At once when it is not followed."""
        if container_id in self._followed:
            with step("end log"):
                await self._let_go(container_id, all_of_it=True)

    async def reopen(self, container: Container) -> None:
        """Go on in a new file at the log's path: no later line goes to the old one.

        Raises FailedPrecondition when it cannot be opened, or the container has ended.
        """
        followed = self._followed.get(container.id)
        if followed is None:
            raise FailedPrecondition(f"container {container.id[:12]} writes no log: it does not run")
        await followed.reopen()

    async def remove(self, container_id: str) -> None:
        """The container is about to be removed; its CRI log stays."""
        await self._let_go(container_id)
        (self._notes / container_id).unlink(missing_ok=True)

    async def _follow(self, container: Container, docker_id: str) -> None:
        source = await self._source(docker_id)
        if container.id in self._followed:
            return
        assert self._watch is not None
        try:
            self._watch.add(source.parent, inotify.CREATE | inotify.MODIFY)
        except OSError as error:
            raise FailedPrecondition(
                f"the log of container {container.id[:12]} cannot be made: Docker's directory {source.parent}"
                f" is not here ({error.strerror}); the Docker Engine must run on this host"
            ) from error
        followed = _Followed(container, source, self.check(container), self._notes / container.id)
        self._followed[container.id] = followed
        followed.task = asyncio.ensure_future(followed.run())

    async def _source(self, docker_id: str) -> Path:
        """Where Docker writes the log; the file comes with the start."""
        if self._root is None:
            self._root = Path((await self._docker.call("GET", "/info"))["DockerRootDir"])
        return self._root / "containers" / docker_id / f"{docker_id}-json.log"

    async def _let_go(self, id: str, *, all_of_it: bool = False) -> None:
        followed = self._followed.get(id)
        if followed is None:
            return
        await to_the_end(followed.close(all_of_it))
        if self._followed.get(id) is followed:
            del self._followed[id]
            if self._watch is not None:
                self._watch.remove(followed.source.parent)

    async def _see(self, watch: inotify.Watch) -> None:
        async for event in watch:
            for followed in self._followed.values():
                if event.overflow or event.path == followed.source.parent:
                    followed.news.set()


class _Followed:
    """A log that is being written."""

    def __init__(self, container: Container, source: Path, limits: Limits, note: Path) -> None:
        self.source = source
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._container = container
        self._limits = limits
        self._note = note
        self._copy: Copy | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def run(self) -> None:
        """Write what comes."""
        try:
            while True:
                self.news.clear()
                async with self._turn:
                    more = await to_the_end(asyncio.to_thread(self._go_on))
                if not more and not await self._has_news():
                    async with self._turn:
                        await to_the_end(asyncio.to_thread(self._tick))
        except OSError as error:
            self._complain(error)

    async def reopen(self) -> None:
        """See `Logs.reopen`."""
        async with self._turn:
            try:
                await to_the_end(asyncio.to_thread(self._reopen))
            except OSError as error:
                raise _unwritable(self._container.log_path, error) from error

    async def close(self, all_of_it: bool) -> None:
        """Write no more, after `all_of_it` or at once. Twice is fine."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        async with self._turn:
            if not self._closed:
                self._closed = True
                await asyncio.to_thread(self._close, all_of_it)

    async def _has_news(self) -> bool:
        """Wait for something to write; False when limits have something to say though nothing came."""
        due = self._copy.file.keeper.due() if self._copy is not None else None
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                await self.news.wait()
            return True
        return False

    # In threads, one at a time

    def _go_on(self) -> bool:
        if self._copy is None:
            if not self.source.exists():
                return False  # Docker makes it with the start
            self._copy = Copy(self.source, self._container.log_path, self._limits, self._note)
        return self._copy.go_on()

    def _tick(self) -> None:
        if self._copy is not None:
            self._copy.tick()

    def _reopen(self) -> None:
        if self._copy is not None:
            self._copy.reopen()
        else:
            _make(self._container.log_path)

    def _close(self, all_of_it: bool) -> None:
        try:
            while all_of_it and self._go_on():
                pass
        except OSError as error:
            self._complain(error)
        finally:
            if self._copy is not None:
                self._copy.close()

    def _complain(self, error: OSError) -> None:
        log.error("the log of container %s is not written any more: %s", self._container.id[:12], error)


def _make(path: str) -> None:
    """A CRI log is there from the start, if it is empty."""
    try:
        LogFile(path, Limits()).close()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> FailedPrecondition:
    where = f" ({error.filename})" if error.filename and str(error.filename) != path else ""
    return FailedPrecondition(f"the log {path} cannot be written: {error.strerror or error}{where}")
