"""What would be made for a container, for a plan: a `requests.Parts` that makes nothing and draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from podwright.engines.base import Container, Image
from podwright.engines.node import host, layered
from podwright.engines.node.labels import Levels
from podwright.engines.node.places import Places
from podwright.engines.node.requests import has_pause, namespace_paths
from podwright.errors import NotFound
from podwright.spec.inputs import MountSource, NamespacePaths, RootfsFiles
from podwright.spec.linux import mounts as mount_rules
from podwright.wire import cri_pb2 as cri

PAUSE_PID, TARGET_PID = "PAUSE_PID", "TARGET_PID"
"""Stand in paths where the number of a process will be."""
UNKNOWN_ID = 65534
"""Shown for a user or group whose number only the image knows, when the image cannot be read."""


class SeenImages(Protocol):
    """An image store, as far as it can be read without changing anything."""

    async def find(self, reference: str, /) -> Image | None: ...

    async def layers(self, image_id: str, handler: str, /) -> Sequence[Path]:
        """The directories of its layers, topmost first. OSError, NotFound when they cannot be read."""


class Foreseen:
    def __init__(
        self,
        container: Container,
        places: Places,
        images: SeenImages,
        levels: Levels,
        to_come: Sequence[str],
    ) -> None:
        """`to_come` are host paths that will be there by then."""
        self._container = container
        self._places = places
        self._images = images
        self._levels = levels
        self._to_come = to_come
        self._users: RootfsFiles | None = None
        self.warnings: list[str] = []
        self.unknown_names = ""
        """Users and groups that the image alone knows, when it cannot be read."""

    async def look(self) -> None:
        """Read what the image says of users, before a spec is built."""
        try:
            layers = await self._layers(self._container.image.id)
            self._users = layered.user_files(layers)
        except (OSError, NotFound):
            self._users = self._unknown_users()

    def users(self) -> RootfsFiles:
        assert self._users is not None
        return self._users

    def namespaces(self) -> NamespacePaths:
        sandbox, target = self._container.sandbox, self._container.target
        pause = sandbox.facts.pid or (PAUSE_PID if has_pause(sandbox) else 0)
        paths = namespace_paths(self._places, sandbox, pause)
        if self._container.config.linux.security_context.namespace_options.pid != cri.NamespaceMode.TARGET:
            return paths
        pid = target.facts.pid if target is not None and target.facts.pid else TARGET_PID
        return replace(paths, target_pid=f"/proc/{pid}/ns/pid")

    def levels(self) -> tuple[str, str]:
        return self._levels.foreseen(self._container)

    async def source(self, place: int, wanted: mount_rules.Lookup) -> MountSource:
        if wanted.image is not None:
            return await self._image(place, wanted)
        source, there = host.foreseen_source(wanted, place, self._to_come)
        if not there:
            self.warnings.append(
                f"config.mounts[{place}].host_path: {source.path} is not there; a directory would be made"
            )
        return source

    async def volumes(self, paths: Sequence[str]) -> Mapping[str, str]:
        id = self._container.id
        return {path: str(self._places.volume(id, number)) for number, path in enumerate(paths)}

    def _unknown_users(self) -> RootfsFiles:
        """Databases with just the names that are asked for."""
        user, group = asked_names(self._container)
        self.unknown_names = " and ".join(filter(None, (user and f"user {user}", group and f"group {group}")))
        image = self._container.config.image.image or "the image"
        self.warnings.append(
            f"the files of {image} cannot be read here: the ids and groups that its user databases give"
            f" are not known"
            + (f"; {UNKNOWN_ID} stands for {self.unknown_names}" if self.unknown_names else "")
        )
        return RootfsFiles(
            passwd=f"{user}:x:{UNKNOWN_ID}:{UNKNOWN_ID}::/:\n" if user else None,
            group=f"{group}:x:{UNKNOWN_ID}:\n" if group else None,
        )

    async def _layers(self, image_id: str) -> Sequence[Path]:
        layers = await self._images.layers(image_id, self._container.sandbox.handler)
        for each in layers:
            each.stat()
        return layers

    async def _image(self, place: int, wanted: mount_rules.Lookup) -> MountSource:
        field = f"config.mounts[{place}].image"
        assert wanted.image is not None
        image = await self._images.find(wanted.image.image)
        path = tuple(part for part in wanted.image_sub_path.split("/") if part)
        try:
            lower = await self._layers(image.id if image is not None else "")
            path = layered.directory(lower, wanted.image_sub_path, field)
        except (OSError, NotFound):
            self.warnings.append(f"{field}: image {wanted.image.image!r} is not here, or cannot be read")
        digits = image.id.rpartition(":")[2] if image is not None else "IMAGE"
        target = self._places.pod_image(self._container.sandbox.id, digits)
        return MountSource(path=str(target.joinpath(*path)))


def asked_names(container: Container) -> tuple[str, str]:
    """The user and the group that are asked for by name, "" for those that are not."""
    security = container.config.linux.security_context
    asked: str = security.run_as_username
    if not asked and not security.HasField("run_as_user"):
        asked = container.image.user
    user, _, group = asked.partition(":")
    group = "" if security.HasField("run_as_group") else group
    return "" if user.isdecimal() else user, "" if group.isdecimal() else group
