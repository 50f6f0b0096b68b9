"""Checkpoints of the oci engine's containers, by the OCI runtime's `pause`, `checkpoint` and `resume`."""

from __future__ import annotations

from pathlib import Path

from podwright.engines.base import Container
from podwright.engines.node.places import Places
from podwright.engines.oci import conmon
from podwright.engines.oci.runtimes import Runtime, Runtimes
from podwright.engines.oci.tasks import Tasks
from podwright.errors import FailedPrecondition
from podwright.images.layers import pack_changes
from podwright.linux import spawn
from podwright.linux.criu import Criu

OPTIONS = ("--leave-running", "--tcp-established", "--file-locks")


class Dumping:
    """Implements engines.node.checkpointing.Dumping."""

    def __init__(self, places: Places, runtimes: Runtimes, tasks: Tasks, criu: Criu) -> None:
        self._places = places
        self._runtimes = runtimes
        self._tasks = tasks
        self._criu = criu

    def runtime(self, container: Container) -> Runtime:
        return self._runtimes.get(container.sandbox.handler)

    async def freeze(self, container: Container) -> None:
        runtime = self.runtime(container)
        done = await spawn.run(runtime.argv("pause", container.id))
        if done.status != 0:
            words = conmon.plain_words(done.stderr.decode(errors="replace"))
            raise FailedPrecondition(
                f"container {container.id[:12]} cannot be frozen: {runtime.kind}: {words}"
            )

    async def resume(self, container: Container) -> str:
        return await self._tasks.resume(self.runtime(container), container.id)

    async def dump(self, container: Container, images: Path, work: Path) -> str:
        command = self.runtime(container).argv(
            "checkpoint", *OPTIONS, "--image-path", str(images), "--work-path", str(work), container.id
        )
        done = await spawn.run(command, env={"PATH": self._criu.search_path()})
        if done.status == 0:
            return ""
        words = conmon.plain_words(done.stderr.decode(errors="replace"))
        return words or f"it ended with status {done.status}"

    async def pack_changes(self, container: Container, target: Path) -> None:
        await pack_changes(self._places.container_root(container.id) / "upper", target)

    def spec(self, container: Container) -> Path:
        return self._places.container_run(container.id) / "config.json"
