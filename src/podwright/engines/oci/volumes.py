"""Images of the store as volumes of pods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from podwright.engines.base import Image
from podwright.images.store import ImageStore


class StoreVolumes:
    """Implements engines.node.runtimes.VolumeImages."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images

    async def find(self, reference: str) -> Image | None:
        return await self._images.find(reference)

    async def acquire(self, image_id: str, user: str) -> Sequence[Path]:
        self._images.acquire(image_id, user)
        return self._images.lower_dirs(image_id)
