"""Containers of the oci engine that are restored from a checkpoint, by the OCI runtime's `restore`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from podwright.checkpoints.layout import Checkpoint
from podwright.engines.base import Container, Json, Observation, Presence
from podwright.engines.node.places import Places
from podwright.engines.node.restoring import Waiting
from podwright.engines.oci import conmon
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.runtimes import Runtime
from podwright.engines.oci.tasks import Tasks
from podwright.errors import CommandFailed, FailedPrecondition
from podwright.images.store import ImageStore
from podwright.linux import cgroups, criu, mounts
from podwright.linux.criu import Criu
from podwright.steps import step

CLOSE_CONNECTIONS = "tcp-close\n"
"""They were another pod's, with another address. One that is closed a program can notice."""


class Restores:
    def __init__(self, places: Places, tasks: Tasks, images: ImageStore, criu: Criu) -> None:
        self._places = places
        self._tasks = tasks
        self._images = images
        self._criu = criu
        self._waiting = Waiting(places, self._layer, criu, CLOSE_CONNECTIONS)

    async def look(self, reference: str) -> Checkpoint:
        """See `Engine.read_checkpoint`."""
        return await self._waiting.look(reference)

    @asynccontextmanager
    async def _layer(self, image: str) -> AsyncIterator[Path]:
        yield self._images.lower_dirs(image)[0]

    # Creating

    async def take_in(self, container: Container, runtime: Runtime, found: Checkpoint) -> None:
        """Copy what the checkpoint holds, and make its changes of files the upper directory of the rootfs,
        which is not mounted yet. Core undoes by removing the container."""
        await self._waiting.require(container, runtime)
        changes = await self._waiting.take_in(container, found)
        if changes is not None:
            diff, digest = changes
            with step("rootfs diff"):
                work, root = self._places.restore(container.id), self._places.container_root(container.id)
                upper = await self._images.unpack_changes(container.image.id, digest, diff, work)
                upper.rename(root / "upper")
                diff.unlink()

    async def remove_deleted(self, container: Container, root: Path) -> None:
        """What archives of CRI-O and Podman list as removed goes from the mounted rootfs."""
        await self._waiting.remove_deleted(container.id, root)

    def with_options(self, container: Container, spec: dict[str, Json]) -> dict[str, Json]:
        return self._waiting.with_options(container, spec)

    # Starting

    def pending(self, id: str) -> bool:
        """Whether container `id` is still to be restored."""
        return self._waiting.pending(id)

    async def start(self, container: Container, runtime: Runtime, task: Supervised) -> int:
        """Bring its processes to life; the pid of the first. FailedPrecondition with CRIU's words."""
        await self._waiting.require(container, runtime)
        id = container.id
        restored = replace(task, restore=self._waiting.images(id), search_path=self._criu.search_path())
        self._waiting.under_way.add(id)
        try:
            with step("criu restore"):
                pid = await self._tasks.create(runtime, restored)
        except CommandFailed as error:
            words = criu.log_complaints(task.bundle / "restore.log") or str(error)
            raise FailedPrecondition(f"container {id[:12]} cannot be restored: {words}") from error
        finally:
            self._waiting.under_way.discard(id)
        await self._waiting.over(id)
        return pid

    # While there is no process

    def signal(self, id: str, number: int) -> bool:
        """Whether `number` is for a container that has no process yet: SIGKILL ends it all the same."""
        if not self.pending(id) or id in self._waiting.under_way or self._tasks.pid(id):
            return False
        self._waiting.end(id, number)
        return True

    async def observe(self, id: str) -> Observation | None:
        """What there is of a container that is still to be restored; None when its processes tell."""
        if not self.pending(id) or self._places.exit_file(id).exists() or self._tasks.pid(id):
            return None
        if id in self._waiting.under_way:
            return Observation(Presence.CREATED)
        bundle = self._places.container_run(id)
        if conmon.supervisor(bundle) or (bundle / "conmon.pid").exists():
            # A podwright was killed while CRIU was at work: nobody knows how far that has come.
            await conmon.kill(bundle)
            cgroups.kill_all(self._tasks.cgroup(id))
            return Observation(Presence.MISSING)
        if (bundle / "config.json").exists() and mounts.mounts_below(self._places.rootfs(id)):
            return Observation(Presence.CREATED)
        return Observation(Presence.MISSING)
