"""Images as volumes: each is mounted once in a pod, for all its containers that show files of it.

The mount lives as long as one of them. Who they are is told by files beside it; after a reboot, when both
are gone, the store still knows what each container uses.
"""

from __future__ import annotations

from pathlib import Path

from podwright.engines.base import Sandbox
from podwright.engines.node import layered, rootfs
from podwright.engines.node.places import Places
from podwright.engines.node.runtimes import VolumeImages
from podwright.engines.node.user_namespaces import IdMaps
from podwright.errors import FailedPrecondition, ImageVolumeMountFailed
from podwright.linux import mounts, trees


class ImageMounts:
    def __init__(self, places: Places, images: VolumeImages) -> None:
        self._places = places
        self._images = images

    async def show(
        self, sandbox: Sandbox, container: str, reference: str, sub_path: str, field: str, ids: IdMaps | None
    ) -> Path:
        """The directory `sub_path` of an image, to be bound read-only into `container`, an id. `field` is
        where the request has the image.

        ImageVolumeMountFailed when it is not here, has no such directory, or cannot be mounted.
        """
        image = await self._images.find(reference)
        if image is None:
            raise ImageVolumeMountFailed(f"{field}: there is no image {reference!r} here; pull it first")
        digits = image.id.rpartition(":")[2]
        try:
            lower = await self._images.acquire(image.id, f"{container}#{digits}")
        except FailedPrecondition as error:
            raise ImageVolumeMountFailed(f"{field}: {error}") from error
        parts = layered.directory(lower, sub_path, field)
        users = self._places.pod_image_users(sandbox.id, digits)
        users.mkdir(parents=True, exist_ok=True)
        (users / container).touch()
        target = self._places.pod_image(sandbox.id, digits)
        if not mounts.is_mounted(target):
            try:
                rootfs.overlay(lower, self._kept(sandbox.id, digits), target, users.parent / "layers", ids)
            except (OSError, FailedPrecondition) as error:
                raise ImageVolumeMountFailed(f"{field}: {error}") from error
        return target.joinpath(*parts)

    def release(self, sandbox: str, container: str) -> None:
        """What `container` used no longer has it as a user; what nobody uses is unmounted. Twice is fine."""
        for home in self._mounted(sandbox):
            users = home / "users"
            (users / container).unlink(missing_ok=True)
            if not any(users.iterdir()):
                self._unmount(sandbox, home)

    def release_pod(self, sandbox: str) -> None:
        for home in self._mounted(sandbox):
            self._unmount(sandbox, home)

    def _mounted(self, sandbox: str) -> list[Path]:
        try:
            return list(self._places.pod_images(sandbox).iterdir())
        except FileNotFoundError:
            return []

    def _unmount(self, sandbox: str, home: Path) -> None:
        mounts.unmount_below(home)
        trees.remove(self._kept(sandbox, home.name))
        trees.remove(home)

    def _kept(self, sandbox: str, digits: str) -> Path:
        return self._places.sandbox_root(sandbox) / "images" / digits
