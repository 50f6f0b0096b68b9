"""What the oci engine would make of a request, without making anything: no directory, mount, copy or lock.

Whoever has the engine open explains with its parts; `planned` gives the same from a configuration alone,
beside a server that runs, and to users who are not root as far as they may read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Container, Explanation, Image, Sandbox
from podwright.engines.node import host, layered, user_namespaces
from podwright.engines.node.labels import Levels
from podwright.engines.node.places import Places
from podwright.engines.node.requests import (
    PAUSE,
    Requests,
    cgroups_path,
    check_sandbox,
    has_pause,
    hook_target,
    namespace_paths,
)
from podwright.engines.oci.runtimes import Runtime, Runtimes
from podwright.errors import FailedPrecondition, NotFound, PodwrightError
from podwright.hooks.running import Hooks
from podwright.images.store import ImageStore
from podwright.spec.inputs import HostFacts, MountSource, NamespacePaths, RootfsFiles
from podwright.spec.linux import mounts as mount_rules
from podwright.spec.linux.build import Built, build_container, build_sandbox
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.state.database import Database
from podwright.wire import cri_pb2 as cri

PAUSE_PID, TARGET_PID = "PAUSE_PID", "TARGET_PID"
"""Stand in paths where the number of a process will be."""
UNKNOWN_ID = 65534
"""Shown for a user or group whose number only the image knows, when the image cannot be read."""


class Plan:
    """Implements engines.base.Planner."""

    name = "oci"

    def __init__(
        self,
        config: Config,
        places: Places,
        runtimes: Runtimes,
        images: ImageStore | None,
        facts: HostFacts,
        requests: Requests,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._images = images
        self._facts = facts
        self._requests = requests
        self._hooks = hooks
        self._levels = Levels(places, facts, config.spec.selinux_category_range)

    def check_handler(self, name: str) -> None:
        if name and name not in self._config.handlers:
            self._runtimes.get(name)

    async def recursive_read_only(self, handler: str) -> bool:
        return await self._runtimes.recursive_read_only(handler)

    def runs_here(self, handler: str) -> bool:
        return not self._runtime(handler)[0].sandboxed

    async def find_image(self, reference: str) -> Image | None:
        return await self._images.find(reference) if self._images is not None else None

    async def explain_container(self, container: Container, to_come: Sequence[str] = ()) -> Explanation:
        await check_sandbox(self._places, self._runtimes, container.sandbox)
        runtime, warnings = self._runtime(container.sandbox.handler)
        wanted = mount_rules.lookups(container.config, self._facts.policy)
        facts = self._requests.facts(container.config)
        parts = _Foreseen(container, self._places, self._images, self._levels, to_come)
        request = await self._requests.container(container, runtime, wanted, facts, parts)
        built = build_container(request, facts, explain=True)
        if ids := user_namespaces.id_maps(self._places, container.sandbox):
            ids.to_host(built.user.uid, built.user.gid)
        origins = dict(built.origins)
        if parts.unknown_names:
            origins["process.user"] = f"image: the number of {parts.unknown_names} is not known here"
        spec = built.spec
        if self._hooks.adjusts:
            spec = await self._hooks.adjust(spec, hook_target(container, runtime), origins)
        return Explanation(spec, origins, (*warnings, *parts.warnings, *_warnings(built)))

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        await check_sandbox(self._places, self._runtimes, sandbox)
        sandbox_sysctls(sandbox.config, self._facts.policy)
        cgroups_path(self._config, sandbox, sandbox.id)
        if not has_pause(sandbox):
            return None
        runtime, warnings = self._runtime(sandbox.handler)
        if shutil.which(PAUSE) is None:
            warnings.append(f"{PAUSE} is not installed: pods cannot share a PID namespace without it")
        level = self._levels.foreseen_of_pod(sandbox)
        built = build_sandbox(self._requests.sandbox(sandbox, runtime, level), self._facts, explain=True)
        origins, spec = dict(built.origins), built.spec
        if self._hooks.adjusts:
            spec = await self._hooks.adjust(spec, hook_target(sandbox, runtime), origins)
        return Explanation(spec, origins, (*warnings, *_warnings(built)))

    def _runtime(self, handler: str) -> tuple[Runtime, list[str]]:
        """The handler's runtime; one that cannot work here can still be explained."""
        try:
            return self._runtimes.get(handler), []
        except FailedPrecondition as error:
            return self._runtimes.as_configured(handler), [str(error)]


@contextmanager
def planned(config: Config, hooks: Hooks) -> Iterator[Plan]:
    """A plan of the oci engine as `config` describes it. FailedPrecondition when a configured file or value
    cannot be used."""
    places = Places(config)
    facts = host.facts(config)
    runtimes = Runtimes(config, places)
    runtimes.find()
    requests = Requests(config, places, runtimes, facts)
    with _stored_images(config) as images:
        yield Plan(config, places, runtimes, images, facts, requests, hooks)


@contextmanager
def _stored_images(config: Config) -> Iterator[ImageStore | None]:
    """The image store as its records are now; None when they cannot be read."""
    try:
        database = Database.look(config.root_path / "podwright.db")
    except (OSError, PodwrightError):
        yield None
        return
    try:
        store: ImageStore | None = ImageStore(config.root_path / "images", database, config)
        try:
            assert store is not None
            store.look()
        except PodwrightError:
            store = None
        yield store
    finally:
        database.close()


class _Foreseen:
    """A `requests.Parts` of what would be made."""

    def __init__(
        self,
        container: Container,
        places: Places,
        images: ImageStore | None,
        levels: Levels,
        to_come: Sequence[str],
    ) -> None:
        self._container = container
        self._places = places
        self._images = images
        self._levels = levels
        self._to_come = to_come
        self.warnings: list[str] = []
        self.unknown_names = ""
        """Users and groups that the image alone knows, when it cannot be read."""

    def users(self) -> RootfsFiles:
        try:
            return layered.user_files(self._layers(self._container.image.id))
        except (OSError, NotFound):
            return self._unknown_users()

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

    def _layers(self, image_id: str) -> Sequence[Path]:
        if self._images is None:
            raise NotFound("the image store cannot be read")
        lower = self._images.lower_dirs(image_id)
        for layer in lower:
            layer.stat()
        return lower

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

    async def _image(self, place: int, wanted: mount_rules.Lookup) -> MountSource:
        field = f"config.mounts[{place}].image"
        assert wanted.image is not None
        image = await self._images.find(wanted.image.image) if self._images is not None else None
        path = tuple(part for part in wanted.image_sub_path.split("/") if part)
        try:
            lower = self._layers(image.id if image is not None else "")
            path = layered.directory(lower, wanted.image_sub_path, field)
        except (OSError, NotFound):
            self.warnings.append(f"{field}: image {wanted.image.image!r} is not here, or cannot be read")
        digits = image.id.rpartition(":")[2] if image is not None else "IMAGE"
        target = self._places.pod_image(self._container.sandbox.id, digits)
        return MountSource(path=str(target.joinpath(*path)))

    async def volumes(self, paths: Sequence[str]) -> Mapping[str, str]:
        id = self._container.id
        return {path: str(self._places.volume(id, number)) for number, path in enumerate(paths)}


def _warnings(built: Built) -> Iterator[str]:
    yield from built.warnings
    for each in built.relabels:
        yield f"{each.field}: {each.path} would be relabelled as {each.label}"


def asked_names(container: Container) -> tuple[str, str]:
    """The user and the group that are asked for by name, "" for those that are not."""
    security = container.config.linux.security_context
    asked: str = security.run_as_username
    if not asked and not security.HasField("run_as_user"):
        asked = container.image.user
    user, _, group = asked.partition(":")
    group = "" if security.HasField("run_as_group") else group
    return "" if user.isdecimal() else user, "" if group.isdecimal() else group
