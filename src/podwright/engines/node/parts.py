"""What a creation makes for one container before its spec can be built: a `requests.Parts`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from podwright.engines.base import Container, ContainerFacts
from podwright.engines.node import host, rootfs
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.labels import Levels
from podwright.engines.node.places import Places
from podwright.engines.node.requests import has_pause, namespace_paths
from podwright.engines.node.user_namespaces import IdMaps
from podwright.errors import FailedPrecondition
from podwright.linux import proc
from podwright.linux.waiting import to_the_end
from podwright.spec.inputs import MountSource, NamespacePaths, RootfsFiles
from podwright.spec.linux.mounts import Lookup
from podwright.steps import step


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What a creation reads of the image."""

    users: RootfsFiles
    """Its own user databases."""
    shown: Callable[[], AbstractAsyncContextManager[Path]]
    """Inside, its tree is to be seen at that directory."""


def mounted(root: Path) -> ImageFiles:
    """Those of an image that is mounted at `root` already."""

    @asynccontextmanager
    async def shown() -> AsyncIterator[Path]:
        yield root

    return ImageFiles(rootfs.user_files(root), shown)


class Made:
    def __init__(
        self,
        container: Container,
        files: ImageFiles,
        places: Places,
        alive: Callable[[Container], bool],
        images: ImageMounts,
        levels: Levels,
        made: list[Path],
        ids: IdMaps | None,
    ) -> None:
        """`alive` tells whether a container's process still runs. Directories made for mounts are appended to
        `made`."""
        self._container = container
        self._files = files
        self._places = places
        self._alive = alive
        self._images = images
        self._levels = levels
        self._made = made
        self._ids = ids

    def users(self) -> RootfsFiles:
        return self._files.users

    def namespaces(self) -> NamespacePaths:
        sandbox = self._container.sandbox
        # An engine may hold every pod by a process, which most pods share no PID namespace with.
        paths = namespace_paths(self._places, sandbox, sandbox.facts.pid if has_pause(sandbox) else 0)
        target = self._container.target
        if target is None:
            return paths
        if not self._alive(target):
            raise FailedPrecondition(
                f"config.linux.security_context.namespace_options.target_id: container {target.id} has ended"
            )
        return replace(paths, target_pid=f"/proc/{target.facts.pid}/ns/pid")

    def levels(self) -> tuple[str, str]:
        container = self._container
        return (
            self._levels.of_pod(container.sandbox.id, container.sandbox.config),
            self._levels.of_container(container.id, container.config),
        )

    async def source(self, place: int, wanted: Lookup) -> MountSource:
        if wanted.image is not None:
            with step("image volume", wanted.image.image):
                return await self._image(place, wanted)
        host.check_source(wanted, place)
        try:
            return host.mount_source(wanted, self._made)
        except OSError as error:
            raise FailedPrecondition(
                f"config.mounts[{place}].host_path: cannot make {wanted.host_path}: {error.strerror}"
            ) from error

    async def _image(self, place: int, wanted: Lookup) -> MountSource:
        """The files of an image, shown read-only: the spec binds them so."""
        assert wanted.image is not None
        shown = await self._images.show(
            self._container.sandbox,
            self._container.id,
            wanted.image.image_ref or wanted.image.image,
            wanted.image_sub_path,
            f"config.mounts[{place}].image",
            self._ids,
        )
        return MountSource(path=str(shown))

    async def volumes(self, paths: Sequence[str]) -> Mapping[str, str]:
        if not paths:
            return {}
        volumes: dict[str, str] = {}
        owner = self._ids.root if self._ids else (0, 0)
        async with self._files.shown() as root:
            for number, path in enumerate(paths):
                volume = self._places.volume(self._container.id, number)
                # A copy that went on would fill, or make again, what is being removed.
                with step("fill volume", path):
                    await to_the_end(asyncio.to_thread(rootfs.fill_volume, root, path, volume, owner))
                volumes[path] = str(volume)
        return volumes


def started(container: Container) -> int:
    """When its first process started (`proc.start_time`), 0 when nobody noted it."""
    return int(container.facts.own.get("started", 0))


def with_process(facts: ContainerFacts, id: str, pid: int) -> ContainerFacts:
    """The facts of a container whose first process has come into being."""
    try:
        return replace(facts, pid=pid, own={**facts.own, "started": proc.start_time(pid)})
    except ProcessLookupError:
        raise FailedPrecondition(f"container {id} died before its start") from None
