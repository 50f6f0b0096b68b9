"""The images of a fake node: any reference can be pulled, and is the same image on every node."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from podwright.engines.base import Credentials, FilesystemUse, Image
from podwright.engines.fake.world import World
from podwright.images.references import parse


class FakeImages:
    def __init__(self, world: World) -> None:
        self._world = world
        self._images: dict[str, Image] = {}

    async def list(self) -> Sequence[Image]:
        return list(self._images.values())

    async def find(self, reference: str) -> Image | None:
        for image in self._images.values():
            if reference in (image.id, *image.repo_tags, *image.repo_digests):
                return image
        return self._images.get(str(parse(reference)))

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        name = str(parse(reference))
        digest = hashlib.sha256(name.encode()).hexdigest()
        image = Image(f"sha256:{digest}", (name,), (), 10_000_000, {"Cmd": ["sleep", "inf"]})
        self._images[name] = image
        return image

    async def remove(self, reference: str) -> None:
        image = await self.find(reference)
        if image is not None:
            self._images = {key: each for key, each in self._images.items() if each is not image}

    async def filesystem_use(self) -> FilesystemUse:
        return FilesystemUse("/var/lib/podwright", sum(each.size for each in self._images.values()), 1)
