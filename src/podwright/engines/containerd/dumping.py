"""Checkpoints of containerd's tasks, and what they are restored from: containerd lets the shim let the
runtime let CRIU work. Layers go into snapshots, and out of those that are no directories, by the daemon's own
diff service."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from podwright.engines.base import Container
from podwright.engines.containerd.api import Containerd, any_of
from podwright.engines.containerd.content import Content
from podwright.engines.containerd.host import Shims, shim_path
from podwright.engines.containerd.objects import ROOT, Objects
from podwright.engines.containerd.pulls import copied
from podwright.engines.containerd.shims import Shim
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.containerd.unpack import LAYER_TYPE
from podwright.engines.containerd.volumes import Unpacked
from podwright.engines.node.places import Places
from podwright.errors import FailedPrecondition, PodwrightError
from podwright.images.documents import Descriptor
from podwright.images.importing import FileFetch
from podwright.images.layers import pack_changes
from podwright.linux.criu import NAME, Criu, Found
from podwright.linux.waiting import to_the_end
from podwright.server.endpoint import socket_path
from podwright.wire.containerd import diff_pb2, runc_pb2, task_types_pb2, types_pb2

LEASE = timedelta(hours=24)
"""After which containerd may collect what a podwright has left that was killed."""


class DaemonsCriu(Criu):
    """CRIU as the runtimes of a containerd find it: in that daemon's PATH."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def find(self) -> Found:
        path = shim_path(socket_path(self._endpoint))
        program = shutil.which(NAME, path=path)
        if program is None:
            raise FailedPrecondition(
                f"{NAME} is not installed where containerd looks for programs: {path} (Debian: {NAME})"
            )
        self._program = program
        return await super().find()


class Dumping:
    """Implements engines.node.checkpointing.Dumping; and takes in what was dumped."""

    def __init__(
        self,
        containerd: Containerd,
        places: Places,
        shims: Shims,
        objects: Objects,
        snapshots: Snapshots,
        tasks: Tasks,
        images: Unpacked,
        snapshotter: str,
    ) -> None:
        """`snapshotter` is where images are looked into."""
        self._containerd = containerd
        self._content = Content(containerd)
        self._places = places
        self._shims = shims
        self._objects = objects
        self._snapshots = snapshots
        self._tasks = tasks
        self._images = images
        self._snapshotter = snapshotter

    def runtime(self, container: Container) -> Shim:
        return self._shims.get(container.sandbox.handler)

    def spec(self, container: Container) -> Path:
        return self._places.container_run(container.id) / "config.json"

    async def freeze(self, container: Container) -> None:
        await self._tasks.pause(container.id)

    async def resume(self, container: Container) -> str:
        try:
            await self._tasks.resume(container.id)
        except PodwrightError as error:
            process = await self._tasks.state(container.id)
            if process is not None and process.status == task_types_pb2.PAUSED:
                return str(error)
        return ""

    async def dump(self, container: Container, images: Path, work: Path) -> str:
        options = runc_pb2.CheckpointOptions(
            open_tcp=True, file_locks=True, image_path=str(images), work_path=str(work)
        )
        try:
            await self._tasks.checkpoint(container.id, any_of(options))
        except PodwrightError as error:
            return str(error)
        return ""

    async def pack_changes(self, container: Container, target: Path) -> None:
        key, snapshotter = container.id, self.runtime(container).snapshotter
        found = await self._snapshots.mounts(key, snapshotter)
        if (upper := self._snapshots.upper_dir(found)) is not None:
            await pack_changes(upper, target)
            return
        parent = await self._snapshots.parent(key, snapshotter)
        async with self._view(parent, snapshotter, key) as below:
            request = diff_pb2.DiffRequest(
                left=below, right=found, media_type=LAYER_TYPE, ref=f"podwright-{key}"
            )
            answer = await self._containerd.ask(
                self._containerd.diffs.Diff, request, f"changes of {key[:12]}", timeout=None
            )
            await copied(self._content, answer.diff.digest, target)

    async def unpack_changes(self, found: list[types_pb2.Mount], layer: Path, digest: str) -> None:
        """Apply the uncompressed layer in a file to the snapshot that `found` mounts. PodwrightError."""
        blob = Descriptor(digest, LAYER_TYPE, layer.stat().st_size)
        async with self._leased():
            await self._content.write(f"podwright-{digest}", blob, FileFetch(blob, layer).pieces, {})
            descriptor = types_pb2.Descriptor(media_type=LAYER_TYPE, digest=digest, size=blob.size)
            request = diff_pb2.ApplyRequest(diff=descriptor, mounts=found)
            await self._containerd.ask(
                self._containerd.diffs.Apply, request, f"changes {digest}", timeout=None
            )

    @asynccontextmanager
    async def layer(self, image: str) -> AsyncIterator[Path]:
        """The topmost layer of the image with an id, as a directory. FailedPrecondition when it is none."""
        chain = await self._images.chain(image, self._snapshotter)
        async with self._view(chain, self._snapshotter, "") as found:
            lower = self._snapshots.lower_dirs(found)
            if not lower:
                raise FailedPrecondition(
                    f"the layers of snapshotter {self._snapshotter!r} are no directories"
                )
            yield lower[0]

    @asynccontextmanager
    async def _view(self, parent: str, snapshotter: str, owner: str) -> AsyncIterator[list[types_pb2.Mount]]:
        """How to mount a snapshot as it is, inside. When podwright is killed meanwhile, the view goes with
        the lease: it has no object's name by which it would be found."""
        key = f"{owner or self._objects.root}#{secrets.token_hex(6)}"
        async with self._leased():
            try:
                yield await self._snapshots.view(
                    key, parent, snapshotter, {ROOT: self._objects.root}, leased=True
                )
            finally:
                await to_the_end(self._snapshots.remove(key, snapshotter))

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[None]:
        expiry = (datetime.now(UTC) + LEASE).isoformat(timespec="seconds")
        async with self._containerd.lease(f"podwright-{secrets.token_hex(8)}", expire=expiry):
            yield
