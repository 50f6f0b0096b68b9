"""Containers that are restored from a checkpoint: what it holds is taken in when they are created, and their
processes come to life when they are started. What engines share of that.

Between the two there is no process, only files: CRIU makes a running container in one go. They are in
`Places.restore`, which goes when the container runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from podwright.checkpoints import layout, reading
from podwright.checkpoints.layout import Checkpoint
from podwright.engines.base import Container, Json
from podwright.engines.node import exits
from podwright.engines.node.checkpointing import require
from podwright.engines.node.places import Places
from podwright.engines.node.runtimes import Runtime
from podwright.errors import InvalidArgument
from podwright.linux import trees
from podwright.linux.beneath import open_in_root
from podwright.linux.criu import Criu
from podwright.linux.waiting import to_the_end
from podwright.steps import step

OPTIONS_FILE = "criu.conf"
"""In the bundle."""

Layer = Callable[[str], AbstractAsyncContextManager[Path]]
"""The topmost layer of the image with an id, as a directory, inside."""


class Waiting:
    """Containers with a checkpoint that they wait to be restored from."""

    def __init__(self, places: Places, layer: Layer, criu: Criu, options: str) -> None:
        """`options` are lines of CRIU's configuration file, beyond what the runtime tells it."""
        self._places = places
        self._layer = layer
        self._criu = criu
        self._options = options
        self.under_way: set[str] = set()
        """Those that are just being restored."""

    async def look(self, reference: str) -> Checkpoint:
        """See `Engine.read_checkpoint`."""
        if reference.startswith("/"):
            return await reading.look(reference, Path(reference))
        async with self._layer(reference) as layer:
            return await reading.look(f"image {reference}", layer, reference)

    async def require(self, container: Container, runtime: Runtime) -> None:
        """FailedPrecondition when it cannot be restored here."""
        await require(runtime, container, self._criu, "restored")

    async def take_in(self, container: Container, found: Checkpoint) -> tuple[Path, str] | None:
        """Copy what the checkpoint holds. What the container had changed in its root file system is the file
        that is returned, a layer, with its digest; None when there is none. Core undoes by removing the
        container."""
        work = self._places.restore(container.id)
        work.mkdir(mode=0o700, parents=True)
        with step("checkpoint", found.source):
            if found.image:
                async with self._layer(found.image) as layer:
                    await reading.extract(found.source, layer, work)
            else:
                await reading.extract(found.source, Path(found.source), work)
        diff = work / layout.DIFF
        return (diff, await reading.diff_id(found.source, diff)) if diff.exists() else None

    def lists_deleted(self, id: str) -> bool:
        """Whether its archive lists files as removed, as those of CRI-O and Podman do."""
        return (self._places.restore(id) / layout.DELETED).exists()

    async def remove_deleted(self, id: str, root: Path) -> None:
        """Those go from the rootfs that is mounted at `root`."""
        if self.lists_deleted(id):
            content = await asyncio.to_thread((self._places.restore(id) / layout.DELETED).read_bytes)
            paths = layout.read("the checkpoint", layout.DELETED, content, list[str])
            await to_the_end(asyncio.to_thread(_remove, root, paths))

    def with_options(self, container: Container, spec: dict[str, Json]) -> dict[str, Json]:
        """The OCI spec with what CRIU has to be told beyond what the runtime tells it."""
        file = self._places.container_run(container.id) / OPTIONS_FILE
        file.write_text(self._options)
        annotations = {**(spec.get("annotations") or {}), layout.CRIU_CONFIG: str(file)}
        return {**spec, "annotations": annotations}

    def pending(self, id: str) -> bool:
        """Whether container `id` is still to be restored."""
        return self._places.restore(id).is_dir()

    def images(self, id: str) -> Path:
        """What CRIU has dumped of it."""
        return self._places.restore(id) / layout.IMAGES

    async def over(self, id: str) -> None:
        """It has been restored."""
        await asyncio.to_thread(trees.remove, self._places.restore(id))

    def end(self, id: str, number: int) -> None:
        """A signal for a container that has no process yet: SIGKILL ends it all the same."""
        if number == signal.SIGKILL and not self._places.exit_file(id).exists():
            exits.write(self._places.exits, id, 128 + number)


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
