"""Containers of the containerd engine, from their creation to their removal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from podwright.checkpoints.layout import Checkpoint
from podwright.config import Config
from podwright.engines.base import Container, ContainerFacts, Json, Observation
from podwright.engines.containerd import platforms
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.creation import Creation, by_runtime
from podwright.engines.containerd.dumping import DaemonsCriu, Dumping
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.limits import Changeable
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.podsandbox import described
from podwright.engines.containerd.restore import Restores
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.containerd.volumes import Unpacked, VolumeViews
from podwright.engines.log_limits import LogLimits
from podwright.engines.node import host, labels, rootfs, unstartable, user_namespaces
from podwright.engines.node.building import Building
from podwright.engines.node.checkpointing import Checkpoints
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.parts import started
from podwright.engines.node.places import Places
from podwright.engines.node.processes import send_signal
from podwright.engines.node.requests import Requests
from podwright.engines.node.updates import Updates
from podwright.errors import FailedPrecondition, PodwrightError, Unavailable
from podwright.hooks.running import Hooks
from podwright.linux import cgroups, mounts, trees
from podwright.linux.waiting import together
from podwright.logs.writing import LogWriter
from podwright.spec.inputs import HostFacts
from podwright.steps import step
from podwright.wire import cri_pb2 as cri


class Containers:
    def __init__(
        self,
        config: Config,
        containerd: Containerd,
        places: Places,
        shims: Shims,
        objects: Objects,
        snapshots: Snapshots,
        tasks: Tasks,
        images: Unpacked,
        volumes: ImageMounts,
        views: VolumeViews,
        facts: HostFacts,
        requests: Requests,
        hooks: Hooks,
        logs: LogWriter,
        log_limits: LogLimits,
    ) -> None:
        self._config = config
        self._places = places
        self._shims = shims
        self._objects = objects
        self._snapshots = snapshots
        self._tasks = tasks
        self._volumes = volumes
        self._views = views
        self._facts = facts
        self._logs = logs
        levels = labels.Levels(places, facts, config.spec.selinux_category_range)
        building = Building(places, shims, volumes, requests, hooks, levels, self._alive)
        self._creation = Creation(
            places, objects, snapshots, tasks, images, facts, requests, building, logs, log_limits
        )
        dumping = Dumping(
            containerd,
            places,
            shims,
            objects,
            snapshots,
            tasks,
            images,
            config.containerd.snapshotter,
        )
        self.criu = DaemonsCriu(containerd.endpoint)
        """As containerd's runtimes find it."""
        self._checkpoints = Checkpoints(places, dumping, self.criu)
        self._restores = Restores(places, objects, snapshots, tasks, self._creation, dumping, self.criu)
        self._updates = Updates(config, Changeable(shims, objects, tasks), facts)

    async def create(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        shim = self._shims.get(container.sandbox.handler)
        builder = platforms.of(container.sandbox)
        wanted = builder.lookups(container.config, self._facts.policy)
        made: list[Path] = []
        undo.push_async_callback(self._unmake, container, made)
        if container.checkpoint is not None:
            await self._restores.require(container, shim)
        ids = user_namespaces.id_maps(self._places, container.sandbox)
        found = await self._creation.snapshot(container, shim)
        if container.checkpoint is not None:
            await self._restores.take_in(container, shim, container.checkpoint, found)
        root = await self._creation.root(container, shim, found, ids)
        drawn = await self._creation.draw(container, shim, builder, wanted, root, ids, made)
        spec = drawn.spec
        if container.checkpoint is not None:
            spec = self._restores.with_options(container, spec)
        recording = self._creation.record(container, shim, spec, ids)
        if container.checkpoint is not None:
            # A process it gets by its start.
            await recording
            return ContainerFacts(0, drawn.user.uid, drawn.user.gid, drawn.user.groups)
        streams, _ = await together(self._creation.streams(container), recording)
        return await self._creation.first_process(container, shim, drawn, root.mounts, streams)

    async def start(self, container: Container) -> ContainerFacts | None:
        shim = self._shims.get(container.sandbox.handler)
        if self._restores.pending(container.id):
            return await self._restores.start(container, shim)
        unstartable.check(self._places.container_run(container.id), shim.kind)
        try:
            await self._tasks.start(container.id)
        except PodwrightError as error:
            raise by_runtime(error, shim) from error
        return None

    async def signal(self, container: Container, number: int) -> None:
        id, everything = container.id, number == signal.SIGKILL
        if everything:
            self._checkpoints.abort(id)
        if await self._restores.signal(id, number) or unstartable.end(self._places, id, number):
            await self._tasks.tell_noted(id)
            return
        try:
            await self._tasks.kill(id, number, everything=everything)
        except PodwrightError:
            shim = self._shims.of_existing(container.sandbox.handler)
            if shim is None or shim.sandboxed or not self._alive(container):
                raise
            # containerd, the shim or the runtime is away; the kernel has the process all the same.
            send_signal(container.facts.pid, started(container), number)
            if everything:
                cgroups.kill_all(self._tasks.cgroup(id))

    async def remove(self, container: Container) -> None:
        id = container.id
        await self._tasks.end(id)
        await self._logs.finish(id)
        record = await self._objects.get(id)
        with step("unmount"):
            rootfs.unmount(self._places, id)
            mounts.unmount_below(self._places.container_run(id))
            self._volumes.release(container.sandbox.id, id)
        with step("remove snapshot"):
            for snapshotter in [record.snapshotter] if record is not None else self._snapshotters(container):
                await self._snapshots.remove(id, snapshotter)
            if any(each.HasField("image") for each in container.config.mounts):
                await self._views.release(id)
        # The record goes after what it names, and the files last: they tell that there is something left.
        await self._objects.delete(id)
        with step("remove files"):
            await asyncio.to_thread(self._remove_files, id)

    async def check_update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        self._updates.check(container, resources)

    async def update(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None,
    ) -> None:
        await self._updates.apply(container, resources, former)

    async def reopen_log(self, container: Container) -> None:
        """FailedPrecondition when nobody writes it any more."""
        if not container.log_path:
            return
        if not self._logs.has(container.id):
            raise FailedPrecondition(f"nobody writes the log {container.log_path}: its container has ended")
        await self._logs.reopen(container.id)

    async def checkpoint(self, container: Container, status: cri.ContainerStatus, location: Path) -> None:
        await self._checkpoints.make(container, status, location)

    async def read_checkpoint(self, reference: str) -> Checkpoint:
        return await self._restores.look(reference)

    async def observe(self, container: Container) -> Observation:
        if (waiting := await self._restores.observe(container.id)) is not None:
            return waiting
        if (waiting := unstartable.observe(self._places, container.id)) is not None:
            return waiting
        return await self._tasks.observe(container.id)

    async def info(self, container: Container) -> Mapping[str, Json]:
        try:
            record = await self._objects.get(container.id)
            told = described(record) if record is not None else {}
        except Unavailable as error:
            # Who follows a log asks for the pid, and shall not take this for the server's end.
            told = {"containerd": {"error": str(error)}}
        return {
            **told,
            "sandboxID": container.sandbox.id,
            "pid": container.facts.pid,
            "cgroup": self._tasks.cgroup(container.id),
            "rootfs": self._rootfs(container),
            "runtimeHandler": container.sandbox.handler or self._config.default_handler,
        }

    def _alive(self, container: Container) -> bool:
        return self._tasks.alive(container.id, container.facts.pid, started(container))

    def _rootfs(self, container: Container) -> str:
        """Where it is mounted on this host; "" when the shim has it where only that knows."""
        if user_namespaces.wanted(container.sandbox):
            return str(user_namespaces.rootfs(self._places, container))
        return ""

    def _snapshotters(self, container: Container) -> Sequence[str]:
        """Where its snapshot may be, when no record tells."""
        shim = self._shims.of_existing(container.sandbox.handler)
        configured = self._config.containerd.snapshotter
        return sorted({configured, shim.snapshotter if shim is not None else configured})

    # Undoing

    async def _unmake(self, container: Container, made: Sequence[Path]) -> None:
        await self.remove(container)
        host.unmake_directories(made)

    def _remove_files(self, id: str) -> None:
        for each in self._places.of_container(id):
            trees.remove(each)
        self._places.exit_file(id).unlink(missing_ok=True)
