"""Checkpoints of running containers: the runtime lets CRIU dump the processes, what they have changed in
their root file system becomes a layer, and both go into an archive. The container is frozen meanwhile. How an
engine has that done is its own (`Dumping`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from podwright.checkpoints import layout, writing
from podwright.clock import SYSTEM
from podwright.engines.base import Container
from podwright.engines.node import user_namespaces
from podwright.engines.node.places import Places
from podwright.engines.node.runtimes import Runtime
from podwright.errors import FailedPrecondition
from podwright.linux import criu, spawn, trees
from podwright.linux.criu import Criu
from podwright.linux.waiting import to_the_end
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds that a dump which nobody wants any more may take to end by itself: CRIU is inside the processes."""
PROBE_TIMEOUT = 10.0


class Dumping(Protocol):
    """What an engine does for a checkpoint."""

    def runtime(self, container: Container, /) -> Runtime:
        """Errors as `Engine.check_handler`."""

    async def freeze(self, container: Container, /) -> None:
        """Nothing in it runs from now on. PodwrightError."""

    async def resume(self, container: Container, /) -> str:
        """The opposite; why it stays frozen, "" when it does not."""

    async def dump(self, container: Container, images: Path, work: Path, /) -> str:
        """Let CRIU write its images, and its log into `work`, with connections and file locks; what the
        runtime complains of, "" when it is done."""

    async def pack_changes(self, container: Container, target: Path, /) -> None:
        """What it has changed in its root file system, as an uncompressed layer. PodwrightError."""

    def spec(self, container: Container, /) -> Path:
        """The file with its OCI spec."""


class Checkpoints:
    def __init__(self, places: Places, dumping: Dumping, criu: Criu) -> None:
        self._places = places
        self._dumping = dumping
        self._criu = criu
        self._dumps: dict[str, asyncio.Future[None]] = {}
        """CRIU at work, by the container's id."""

    async def make(self, container: Container, status: cri.ContainerStatus, location: Path) -> None:
        """See `Engine.checkpoint_container`."""
        await asyncio.to_thread(writing.check_place, location)
        runtime = self._dumping.runtime(container)
        await require(runtime, container, self._criu, "checkpointed")
        id = container.id
        work = self._places.dump(id)
        trees.remove(work)  # of a podwright that was killed
        (work / layout.IMAGES).mkdir(mode=0o700, parents=True)
        work.chmod(0o700)
        try:
            async with self._frozen(container):
                with step("criu dump"):
                    await self._patiently(id, self._dump(container, work))
                with step("rootfs diff"):
                    await self._dumping.pack_changes(container, work / layout.DIFF)
            now = SYSTEM.now()
            (work / layout.CONFIG).write_bytes(layout.config_dump(status, runtime.handler, now))
            (work / layout.STATUS).write_bytes(layout.status_dump(status))
            (work / layout.TASK).write_bytes(layout.task_dump(status, container.facts.pid))
            with step("archive"):
                await writing.write(location, self._files(container, work))
        finally:
            await to_the_end(asyncio.to_thread(trees.remove, work))

    def abort(self, id: str) -> None:
        """The container is being killed: CRIU need not be spared."""
        if dump := self._dumps.get(id):
            dump.cancel()

    def _files(self, container: Container, work: Path) -> dict[str, Path]:
        """By their names in the archive, those first that a reader looks for first."""
        log_path = Path(container.log_path) if container.log_path else None
        files = {
            layout.CONFIG: work / layout.CONFIG,
            layout.SPEC: self._dumping.spec(container),
            layout.STATUS: work / layout.STATUS,
            layout.TASK: work / layout.TASK,
            layout.DUMP_LOG: work / layout.DUMP_LOG,
            layout.STATISTICS: work / layout.STATISTICS,
            layout.DIFF: work / layout.DIFF,
        }
        if log_path is not None:
            files[layout.LOG] = log_path
        there = {name: path for name, path in files.items() if path.is_file()}
        return there | {f"{layout.IMAGES}/": work / layout.IMAGES}

    @asynccontextmanager
    async def _frozen(self, container: Container) -> AsyncIterator[None]:
        """Inside, nothing in the container runs: its files belong to the same moment as its memory."""
        try:
            await to_the_end(self._dumping.freeze(container))
            yield
        finally:
            if words := await to_the_end(self._dumping.resume(container)):
                log.error("container %s stays frozen: %s", container.id, words)

    async def _dump(self, container: Container, work: Path) -> None:
        words = await self._dumping.dump(container, work / layout.IMAGES, work)
        if words:
            words = criu.log_complaints(work / layout.DUMP_LOG) or words
            raise FailedPrecondition(f"container {container.id[:12]} cannot be checkpointed: criu: {words}")

    async def _patiently(self, id: str, work: Awaitable[None]) -> None:
        """Await a dump. When cancelled it may come to its end first: a CRIU that is killed leaves processes
        in the middle of its own code."""
        dump = self._dumps[id] = asyncio.ensure_future(work)
        try:
            await asyncio.shield(dump)
        except asyncio.CancelledError:
            await to_the_end(asyncio.wait([dump], timeout=GRACE))
            dump.cancel()
            await to_the_end(asyncio.wait([dump]))
            raise
        finally:
            del self._dumps[id]


async def require(runtime: Runtime, container: Container, criu: Criu, what: str) -> None:
    """FailedPrecondition with all reasons when `container` cannot be `what` ("checkpointed", "restored")."""
    reasons = [why] if (why := await refusal(runtime)) else []
    if user_namespaces.wanted(container.sandbox):
        reasons.append("its pod has a user namespace of its own, whose ids the archive would not fit")
    if not runtime.sandboxed:
        try:
            await criu.require()
        except FailedPrecondition as error:
            reasons.append(str(error))
    if why and reasons == [why] and runtime.kind == "crun":
        reasons = [f"{why}; a handler with runc can do it"]
    if reasons:
        raise FailedPrecondition(f"container {container.id[:12]} cannot be {what}: {'; and '.join(reasons)}")


async def refusal(runtime: Runtime) -> str:
    """Why the runtime of a handler cannot let CRIU work; "" when it can."""
    if runtime.sandboxed:
        return f"handler {runtime.handler!r}: gVisor's processes are not this kernel's: CRIU cannot dump them"
    if runtime.kind == "runc":
        return ""
    if runtime.kind == "crun":
        done = await spawn.run([runtime.program, "--version"], timeout=PROBE_TIMEOUT, limit=1 << 12)
        if b"+CRIU" in done.stdout.split():
            return ""
        version = done.stdout.decode(errors="replace").partition("\n")[0].strip()
        return f"handler {runtime.handler!r}: {version or 'crun'} was built without CRIU"
    return f"handler {runtime.handler!r}: podwright does not know how {runtime.kind} is told to do it"
