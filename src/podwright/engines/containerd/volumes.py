"""Images as volumes: a view of the image's layers for each container that shows files of it, which keeps them
as long as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from podwright.config import Config
from podwright.engines.base import Image
from podwright.engines.containerd.objects import ROOT, Objects, quoted
from podwright.engines.containerd.snapshots import Snapshots
from podwright.errors import AlreadyExists, FailedPrecondition

OWNER = "podwright.io/volume-of"
"""Label of a view: the container that it is for."""


class Unpacked(Protocol):
    """The images of containerd."""

    async def find(self, reference: str, /) -> Image | None: ...

    async def chain(self, image_id: str, snapshotter: str, /, *, look: bool = True) -> str:
        """The name of the snapshot that the image is; see `Images.chain`."""


class VolumeViews:
    """Implements engines.node.runtimes.VolumeImages."""

    def __init__(self, config: Config, images: Unpacked, snapshots: Snapshots, objects: Objects) -> None:
        self._snapshotter = config.containerd.snapshotter
        self._images = images
        self._snapshots = snapshots
        self._objects = objects

    async def find(self, reference: str) -> Image | None:
        return await self._images.find(reference)

    async def acquire(self, image_id: str, user: str) -> Sequence[Path]:
        """`user` begins with a container's id; `release` takes that."""
        chain = await self._images.chain(image_id, self._snapshotter)
        labels = {ROOT: self._objects.root, OWNER: user.partition("#")[0]}
        try:
            found = await self._snapshots.view(user, chain, self._snapshotter, labels)
        except AlreadyExists:  # it shows several directories of the image
            found = await self._snapshots.mounts(user, self._snapshotter)
        lower = self._snapshots.lower_dirs(found)
        if not lower:
            raise FailedPrecondition(
                f"the layers of snapshotter {self._snapshotter!r} (containerd.snapshotter) are no directories"
            )
        return lower

    async def release(self, container: str) -> None:
        """Whatever `container` has acquired; twice is fine."""
        for each in await self._snapshots.list(self._snapshotter, f'labels."{OWNER}"=={quoted(container)}'):
            await self._snapshots.remove(each.name, self._snapshotter)
