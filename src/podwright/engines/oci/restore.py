"""Containers that are restored from a checkpoint: what it holds is taken in when they are created, and their
processes come to life when they are started.

Between the two there is no process, only files: CRIU makes a running container in one go. They are in
`Places.restore`, which goes when the container runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from podwright.checkpoints import layout, reading
from podwright.checkpoints.layout import Checkpoint
from podwright.engines.base import Container, Json, Observation, Presence
from podwright.engines.node import exits
from podwright.engines.node.places import Places
from podwright.engines.oci import checkpoint, conmon
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.runtimes import Runtime
from podwright.engines.oci.tasks import Tasks
from podwright.errors import CommandFailed, FailedPrecondition, InvalidArgument
from podwright.images.store import ImageStore
from podwright.linux import cgroups, criu, mounts, trees
from podwright.linux.beneath import open_in_root
from podwright.linux.criu import Criu
from podwright.linux.waiting import to_the_end
from podwright.steps import step

OPTIONS_FILE = "criu.conf"
"""In the bundle."""
CLOSE_CONNECTIONS = "tcp-close\n"
"""They were another pod's, with another address. One that is closed a program can notice."""


class Restores:
    def __init__(self, places: Places, tasks: Tasks, images: ImageStore, criu: Criu) -> None:
        self._places = places
        self._tasks = tasks
        self._images = images
        self._criu = criu
        self._under_way: set[str] = set()

    async def look(self, reference: str) -> Checkpoint:
        """See `Engine.read_checkpoint`."""
        if reference.startswith("/"):
            return await reading.look(reference, Path(reference))
        return await reading.look(f"image {reference}", self._layer(reference), reference)

    def _layer(self, image: str) -> Path:
        return self._images.lower_dirs(image)[0]

    # Creating

    async def take_in(self, container: Container, runtime: Runtime, found: Checkpoint) -> None:
        """Copy what the checkpoint holds, and make its changes of files the upper directory of the rootfs,
        which is not mounted yet. Core undoes by removing the container."""
        await checkpoint.require(runtime, container, self._criu, "restored")
        work, root = self._places.restore(container.id), self._places.container_root(container.id)
        work.mkdir(mode=0o700, parents=True)
        with step("checkpoint", found.source):
            source = self._layer(found.image) if found.image else Path(found.source)
            await reading.extract(found.source, source, work)
        diff = work / layout.DIFF
        if diff.exists():
            with step("rootfs diff"):
                digest = await reading.diff_id(found.source, diff)
                upper = await self._images.unpack_changes(container.image.id, digest, diff, work)
                upper.rename(root / "upper")
                diff.unlink()

    async def remove_deleted(self, container: Container, root: Path) -> None:
        """What archives of CRI-O and Podman list as removed goes from the mounted rootfs."""
        listed = self._places.restore(container.id) / layout.DELETED
        if listed.exists():
            content = await asyncio.to_thread(listed.read_bytes)
            paths = layout.read("the checkpoint", layout.DELETED, content, list[str])
            await to_the_end(asyncio.to_thread(_remove, root, paths))

    def with_options(self, container: Container, spec: dict[str, Json]) -> dict[str, Json]:
        """The OCI spec with what CRIU has to be told beyond what the runtime tells it."""
        bundle = self._places.container_run(container.id)
        (bundle / OPTIONS_FILE).write_text(CLOSE_CONNECTIONS)
        annotations = {**(spec.get("annotations") or {}), layout.CRIU_CONFIG: str(bundle / OPTIONS_FILE)}
        return {**spec, "annotations": annotations}

    # Starting

    def pending(self, id: str) -> bool:
        """Whether container `id` is still to be restored."""
        return self._places.restore(id).is_dir()

    async def start(self, container: Container, runtime: Runtime, task: Supervised) -> int:
        """Bring its processes to life; the pid of the first. FailedPrecondition with CRIU's words."""
        await checkpoint.require(runtime, container, self._criu, "restored")
        id = container.id
        images = self._places.restore(id) / layout.IMAGES
        restored = replace(task, restore=images, search_path=self._criu.search_path())
        self._under_way.add(id)
        try:
            with step("criu restore"):
                pid = await self._tasks.create(runtime, restored)
        except CommandFailed as error:
            words = criu.log_complaints(task.bundle / "restore.log") or str(error)
            raise FailedPrecondition(f"container {id[:12]} cannot be restored: {words}") from error
        finally:
            self._under_way.discard(id)
        await asyncio.to_thread(trees.remove, self._places.restore(id))
        return pid

    # While there is no process

    def signal(self, id: str, number: int) -> bool:
        """Whether `number` is for a container that has no process yet: SIGKILL ends it all the same."""
        if not self.pending(id) or id in self._under_way or self._tasks.pid(id):
            return False
        if number == signal.SIGKILL and not self._places.exit_file(id).exists():
            exits.write(self._places.exits, id, 128 + number)
        return True

    async def observe(self, id: str) -> Observation | None:
        """What there is of a container that is still to be restored; None when its processes tell."""
        if not self.pending(id) or self._places.exit_file(id).exists() or self._tasks.pid(id):
            return None
        if id in self._under_way:
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


def _remove(root: Path, paths: Sequence[str]) -> None:
    """Remove each of `paths`, as the container sees them; what is not there is fine."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            head, _, name = path.rstrip("/").rpartition("/")
            if name in ("", ".", "..") or "\0" in path:
                raise InvalidArgument("config.image.image", f"{layout.DELETED} lists {path!r}")
            try:
                parent = open_in_root(top, head.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                _remove_at(parent, name)
            finally:
                os.close(parent)
    finally:
        os.close(top)


def _remove_at(parent: int, name: str) -> None:
    try:
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)
