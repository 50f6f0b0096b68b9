"""Containers of the oci engine: rootfs, spec and bundle, and the task that runs in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from podwright.config import Config
from podwright.engines.base import Container, ContainerFacts, ExecResult, Json, Observation
from podwright.engines.oci import conmon, exec, host, labels, node_files, rootfs, runtimes
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.places import Places
from podwright.engines.oci.runtimes import Runtime, Runtimes
from podwright.engines.oci.sandboxes import Sandboxes
from podwright.engines.oci.tasks import Tasks
from podwright.errors import CommandFailed, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from podwright.images.store import ImageStore
from podwright.linux import cgroups, mounts, proc, spawn, trees
from podwright.linux.waiting import to_the_end
from podwright.spec import cdi
from podwright.spec.encode import encode
from podwright.spec.inputs import (
    ContainerInput,
    HostFacts,
    ImageConfig,
    MountSource,
    NamespacePaths,
)
from podwright.spec.linux import cdi as cdi_rules
from podwright.spec.linux import devices, security
from podwright.spec.linux import mounts as mount_rules
from podwright.spec.linux.build import build_container
from podwright.spec.resources import to_oci
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


class Containers:
    def __init__(
        self,
        config: Config,
        places: Places,
        runtimes: Runtimes,
        tasks: Tasks,
        sandboxes: Sandboxes,
        images: ImageStore,
        host: HostFacts,
        conmon: str,
    ) -> None:
        self._conmon = conmon
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._tasks = tasks
        self._sandboxes = sandboxes
        self._images = images
        self._host = host
        self._base_specs = node_files.base_specs(config)
        self._levels = labels.Levels(places, host, config.spec.selinux_category_range)

    async def create(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        runtime = self._runtimes.get(container.sandbox.handler)
        wanted = mount_rules.lookups(container.config)
        made: list[Path] = []
        undo.push_async_callback(self._unmake, container, made)
        self._images.acquire(container.image.id, container.id)
        root = rootfs.mount(self._places, container.id, self._images.lower_dirs(container.image.id))
        facts = self._facts(container.config)
        request = await self._request(container, runtime, root, wanted, made, facts)
        built = build_container(request, facts)
        for warning in built.warnings:
            log.info("container %s: %s", container.id, warning)
        await asyncio.to_thread(labels.relabel, built.relabels)
        bundle = self._places.container_run(container.id)
        (bundle / "config.json").write_bytes(encode(built.spec))
        if container.log_path:
            Path(container.log_path).parent.mkdir(parents=True, exist_ok=True)
        config = container.config
        pid = await self._tasks.create(
            runtime,
            Supervised(
                id=container.id,
                name=container.name,
                bundle=bundle,
                exits=self._places.exits,
                log_path=container.log_path,
                stdin=config.stdin,
                stdin_once=config.stdin_once,
                terminal=config.tty,
            ),
        )
        try:
            started = proc.start_time(pid)
        except ProcessLookupError:
            raise FailedPrecondition(f"container {container.id} died before its start") from None
        user = built.user
        return ContainerFacts(
            pid=pid,
            uid=user.uid,
            gid=user.gid,
            supplemental_groups=user.groups,
            own={"started": started},
        )

    async def start(self, container: Container) -> None:
        await self._tasks.start(self._runtimes.get(container.sandbox.handler), container.id)

    async def signal(self, container: Container, number: int) -> None:
        runtime = self._runtimes.get(container.sandbox.handler)
        await self._tasks.signal(runtime, container.id, container.facts.pid, _started(container), number)

    async def remove(self, container: Container) -> None:
        id = container.id
        await self._tasks.end(id, container.facts.pid, _started(container))
        rootfs.unmount(self._places, id)
        self._unmount_images(id)
        await asyncio.to_thread(self._remove_files, id)
        # By the store's own account: after a reboot no mount tells any more which images were volumes.
        self._images.release_all(id)

    async def update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        runtime = self._runtimes.get(container.sandbox.handler)
        if refusal := runtimes.resources_refused(runtime):
            raise Unimplemented(f"linux.resources: {refusal}")
        minimum = self._config.handlers[runtime.handler].minimum_memory
        limits = to_oci(resources, self._host, "linux", minimum_memory=minimum)
        file = self._places.container_run(container.id) / "resources.json"
        try:
            file.write_bytes(msgspec.json.encode(limits))
        except FileNotFoundError:
            return  # it has just been removed
        done = await spawn.run(runtime.argv("update", "--resources", str(file), container.id))
        if done.status != 0 and self._tasks.alive(container.id, container.facts.pid, _started(container)):
            words = conmon.plain_words(done.stderr.decode(errors="replace"))
            raise CommandFailed(runtime.kind, done.status, words)

    async def exec(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        runtime = self._runtimes.get(container.sandbox.handler)
        bundle = self._places.container_run(container.id)
        try:
            return await exec.run(self._conmon, runtime, bundle, container.id, argv, timeout, limit)
        except FileNotFoundError as error:
            raise NotFound(f"container {container.id} has no bundle any more: {error}") from error

    async def reopen_log(self, container: Container) -> None:
        if container.log_path:
            await conmon.reopen_log(self._places.container_run(container.id), container.log_path)

    async def observe(self, container: Container) -> Observation:
        runtime = self._runtimes.get(container.sandbox.handler)
        return await self._tasks.observe(runtime, container.id, container.facts.pid, _started(container))

    def info(self, container: Container) -> Mapping[str, Json]:
        bundle = self._places.container_run(container.id)
        config = bundle / "config.json"
        return {
            "sandboxID": container.sandbox.id,
            "pid": container.facts.pid,
            "supervisorPid": conmon.supervisor(bundle),
            "bundle": str(bundle),
            "rootfs": str(self._places.rootfs(container.id)),
            "snapshot": str(self._places.container_root(container.id)),
            "cgroup": self._tasks.cgroup(container.id),
            "runtimeHandler": container.sandbox.handler or self._config.default_handler,
            "runtimeSpec": msgspec.json.decode(config.read_bytes()) if config.exists() else None,
        }

    # The request that the spec is built from

    def _facts(self, config: cri.ContainerConfig) -> HostFacts:
        """The host's, with the CDI files as they are now: device plugins write them at any time."""
        if self._host.cdi is None or not cdi.requested(config):
            return self._host
        return replace(self._host, cdi=node_files.cdi_registry(self._config.spec.cdi_spec_dirs))

    async def _request(
        self,
        container: Container,
        runtime: Runtime,
        root: Path,
        wanted: Sequence[mount_rules.Lookup],
        made: list[Path],
        facts: HostFacts,
    ) -> ContainerInput:
        config = container.config
        image = ImageConfig.parse(container.image.config)
        handler = replace(
            node_files.handler_options(self._config, runtime.handler, runtime.sandboxed),
            base_spec=self._base_specs.get(runtime.handler),
            recursive_read_only=any(mount.recursive_read_only for mount in config.mounts)
            and await self._runtimes.recursive_read_only(runtime.handler),
        )
        pod = container.sandbox.config
        nodes = devices.lookups(config, handler, pod, facts.policy)
        found = {path: host.devices_at(path) for path in (*nodes.paths, *cdi_rules.lookups(config, facts))}
        profile = security.localhost_path(
            config.linux.security_context, facts.policy, pod.annotations, config.metadata.name
        )
        return ContainerInput(
            id=container.id,
            config=config,
            sandbox_id=container.sandbox.id,
            sandbox=container.sandbox.config,
            image=image,
            cgroups_path=cgroups.container_path(
                self._config.cgroup_driver, self._sandboxes.cgroup_parent(container.sandbox), container.id
            ),
            rootfs_path=str(root),
            rootfs=rootfs.user_files(root),
            namespaces=self._namespaces(container),
            system=self._sandboxes.system_files(container.sandbox),
            handler=handler,
            mount_sources=[
                await self._source(container, place, each, made) for place, each in enumerate(wanted)
            ],
            devices={path: each for path, each in found.items() if each is not None},
            host_devices=(host.devices_at("/dev") or ()) if nodes.all_host_devices else (),
            volumes=await self._volumes(container, image, root),
            seccomp_profile=host.seccomp_profile(profile, self._config.seccomp_root) if profile else None,
            pod_selinux_level=self._levels.of_pod(container.sandbox.id, pod),
            selinux_level=self._levels.of_container(container.id, config),
        )

    def _namespaces(self, container: Container) -> NamespacePaths:
        paths = self._sandboxes.namespace_paths(container.sandbox)
        target = container.target
        if target is None:
            return paths
        if not self._tasks.alive(target.id, target.facts.pid, _started(target)):
            raise FailedPrecondition(
                f"config.linux.security_context.namespace_options.target_id: container {target.id} has ended"
            )
        return replace(paths, target_pid=f"/proc/{target.facts.pid}/ns/pid")

    async def _source(
        self, container: Container, place: int, wanted: mount_rules.Lookup, made: list[Path]
    ) -> MountSource:
        if wanted.image is not None:
            return await self._image_source(container, place, wanted)
        try:
            return host.mount_source(wanted, made)
        except OSError as error:
            raise FailedPrecondition(
                f"config.mounts[{place}].host_path: cannot make {wanted.host_path}: {error.strerror}"
            ) from error

    async def _image_source(
        self, container: Container, place: int, wanted: mount_rules.Lookup
    ) -> MountSource:
        """The files of an image, shown read-only: the spec binds them so."""
        field = f"config.mounts[{place}].image"
        assert wanted.image is not None
        image = await self._images.find(wanted.image.image)
        if image is None:
            raise NotFound(f"{field}: there is no image {wanted.image.image!r} here; pull it first")
        # A use and a mount of its own for each: they are found and undone by the container's id alone.
        self._images.acquire(image.id, f"{container.id}#{place}")
        keep = self._places.container_root(container.id) / "images" / str(place)
        target = self._places.container_run(container.id) / "images" / str(place)
        for each in (keep / "upper", keep / "work", target):
            each.mkdir(parents=True, exist_ok=True)
        mounts.overlay(
            target, self._images.lower_dirs(image.id), keep / "upper", keep / "work", options="volatile"
        )
        shown = rootfs.inside(target, wanted.image_sub_path)
        if not shown.is_relative_to(target) or not shown.exists():
            raise InvalidArgument(f"{field}_sub_path", f"{wanted.image_sub_path!r} is not in the image")
        return MountSource(path=str(shown))

    def _unmount_images(self, id: str) -> None:
        """Unmount the images that container `id` has mounted as volumes."""
        directory = self._places.container_run(id) / "images"
        if not directory.is_dir():
            return
        for each in sorted(directory.iterdir()):
            mounts.unmount(each)

    async def _volumes(self, container: Container, image: ImageConfig, root: Path) -> dict[str, str]:
        needed = mount_rules.volumes_needed(container.config, image, self._host.policy)
        volumes: dict[str, str] = {}
        for number, path in enumerate(needed):
            volume = self._places.container_root(container.id) / "volumes" / str(number)
            # A copy that went on would fill, or make again, what is being removed.
            await to_the_end(asyncio.to_thread(rootfs.fill_volume, root, path, volume))
            volumes[path] = str(volume)
        return volumes

    # Undoing

    async def _unmake(self, container: Container, made: Sequence[Path]) -> None:
        await self.remove(container)
        host.unmake_directories(made)

    def _remove_files(self, id: str) -> None:
        for each in (self._places.container_run(id), self._places.container_root(id)):
            trees.remove(each)


def _started(container: Container) -> int:
    return int(container.facts.own.get("started", 0))
