"""Images of containerd as a plan may look at them: nothing is unpacked, no snapshot is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from podwright import structs
from podwright.engines.base import Image
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.content import Content
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.snapshots import Snapshots
from podwright.errors import NotFound, PodwrightError
from podwright.images.layers import chain_ids
from podwright.wire.containerd import snapshots_pb2

SHOWN = (snapshots_pb2.ACTIVE, snapshots_pb2.VIEW)
"""Kinds of snapshots whose mounts containerd tells."""


class Finds(Protocol):
    async def find(self, reference: str, /) -> Image | None: ...


class SeenImages:
    """A foreseen.SeenImages."""

    def __init__(self, containerd: Containerd, images: Finds, shims: Shims) -> None:
        self._content = Content(containerd)
        self._images = images
        self._shims = shims
        self._snapshots = Snapshots(containerd)

    async def find(self, reference: str) -> Image | None:
        try:
            return await self._images.find(reference)
        except PodwrightError:
            return None

    async def layers(self, image_id: str, handler: str) -> Sequence[Path]:
        """Of a committed snapshot containerd does not tell where it is, but of any that stands on it: those
        of containers. NotFound when there is none, or it is not made of directories of this host."""
        shim = self._shims.of_existing(handler) or self._shims.as_configured(handler)
        try:
            chain = await self._chain(image_id)
            filter = f'parent=="{chain}"'
            for each in await self._snapshots.list(shim.snapshotter, filter):
                if each.kind in SHOWN:
                    mounts = await self._snapshots.mounts(each.name, shim.snapshotter)
                    if found := self._snapshots.lower_dirs(mounts):
                        return found
        except PodwrightError as error:
            raise NotFound(str(error)) from error
        raise NotFound(f"no container stands on the layers of image {image_id}")

    async def _chain(self, image_id: str) -> str:
        try:
            text = await self._content.read(image_id)
            diff_ids = structs.decode(text, _Document).rootfs.diff_ids
        except msgspec.DecodeError as error:
            raise NotFound(f"image {image_id} has no layers: {error}") from error
        if not diff_ids:
            raise NotFound(f"image {image_id} has no layers")
        return chain_ids(diff_ids)[-1]


class _Rootfs(msgspec.Struct):
    diff_ids: list[str]


class _Document(msgspec.Struct):
    """An image's configuration."""

    rootfs: _Rootfs
