"""The containerd engine: pods as containers and tasks of a containerd, on its image store, with CNI networks.

This is the engine's face towards core (engines/base.py); each method hands on to the part that does it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from podwright.checkpoints.layout import Checkpoint
from podwright.clock import SYSTEM
from podwright.config import Config
from podwright.engines.base import (
    Container,
    ContainerFacts,
    EngineStatus,
    ExecResult,
    Exit,
    Explanation,
    Figure,
    Json,
    Observation,
    Orphan,
    Sandbox,
    SandboxFacts,
)
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.containers import Containers
from podwright.engines.containerd.host import Host, Shims
from podwright.engines.containerd.images import Images
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.plan import Plan
from podwright.engines.containerd.repair import Repair
from podwright.engines.containerd.sandboxes import Sandboxes
from podwright.engines.containerd.seen_images import SeenImages
from podwright.engines.containerd.sessions import Sessions
from podwright.engines.containerd.shims import Shim, write_settings
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.stats import Statistics
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.containerd.volumes import VolumeViews
from podwright.engines.log_limits import LogLimits
from podwright.engines.node import host
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.places import Places
from podwright.engines.node.pods import Pods
from podwright.engines.node.requests import Requests
from podwright.engines.streams import Connection, Streams
from podwright.errors import FailedPrecondition, PodwrightError
from podwright.hooks.running import Hooks
from podwright.linux import cgroups
from podwright.logs.writing import LogWriter
from podwright.network.cni import Cni
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

WRITER_LINGER = 60.0
"""Seconds: every container has the log writer, and a first one waits for its start."""


class ContainerdEngine:
    name = "containerd"
    clock = SYSTEM

    def __init__(self, config: Config, hooks: Hooks | None = None) -> None:
        self.cgroup_driver: str = config.cgroup_driver
        self.runtime_version = ""
        """containerd's own, once it is opened."""
        self._config = config
        self._hooks = hooks or Hooks()
        self._places = Places(config)
        self._containerd = Containerd(config.containerd)
        self._shims = Shims(config, self._containerd, self._places)
        self._host = Host(config, self._containerd, self._shims)
        self._objects = Objects(self._containerd, config)
        self._snapshots = Snapshots(self._containerd)
        self._images = Images(self._containerd, config)
        self._network = Cni(
            Path(config.cni.conf_dir),
            [Path(each) for each in config.cni.bin_dirs],
            config.cni_cache,
            default_bridge=config.cni.default_bridge,
            ip_preference=config.cni.ip_preference,
            conf_template=Path(config.cni.conf_template) if config.cni.conf_template else None,
        )
        self._logs = LogWriter(self._places.logs, linger=WRITER_LINGER)
        self._tasks = Tasks(self._containerd, self._places, self._logs)
        self._sessions = Sessions(self._containerd, self._tasks, self._places, self._logs, config)
        self._stats = Statistics(config, self._places, self._tasks, self._containerd)
        self._repair = Repair(
            config, self._containerd, self._places, self._objects, self._snapshots, self._tasks, self._network
        )
        self._sandboxes: Sandboxes
        self._containers: Containers
        self._plan: Plan

    @property
    def images(self) -> Images:
        return self._images

    @property
    def network(self) -> Cni:
        return self._network

    async def open(self) -> None:
        facts = host.facts(self._config)
        log_limits = LogLimits.of(self._config.logs)
        requests = Requests(self._config, self._places, self._shims, facts)
        views = VolumeViews(self._config, self._images, self._snapshots, self._objects)
        volumes = ImageMounts(self._places, views)
        self._sandboxes = Sandboxes(
            self._config,
            self._containerd,
            self._places,
            self._shims,
            self._objects,
            self._snapshots,
            self._tasks,
            self._images,
            Pods(self._config, self._places, self._network, facts, volumes),
            facts,
            requests,
            self._hooks,
        )
        self._containers = Containers(
            self._config,
            self._containerd,
            self._places,
            self._shims,
            self._objects,
            self._snapshots,
            self._tasks,
            self._images,
            volumes,
            views,
            facts,
            requests,
            self._hooks,
            self._logs,
            log_limits,
        )
        self._plan = Plan(
            self._config,
            self._places,
            self._shims,
            SeenImages(self._containerd, self._images, self._shims),
            facts,
            requests,
            self._hooks,
        )
        self._containerd.open()
        try:
            await self._host.look()
            self.runtime_version = self._host.version
            self._places.make()
            write_settings(self._config, self._places)
            await self._network.open()
            await self._logs.open()
            await self._images.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go; containers keep running."""
        await self._sessions.close()
        await self._stats.close()
        await self._sandboxes.close()
        await self._tasks.close()
        await self._logs.close()
        await self._network.close()
        await self._images.close()
        await self._containerd.close()
        if self.cgroup_driver == "cgroupfs":
            cgroups.prune(self._config.cgroup_parent)

    async def status(self) -> EngineStatus:
        runtime_error = ""
        try:
            await self._host.look()
            self.runtime_version = self._host.version
        except PodwrightError as error:
            runtime_error = str(error)
        network_error, handlers, criu = await asyncio.gather(
            self._network.status(), self._shims.handlers(), self._containers.criu.words()
        )
        if not runtime_error:
            try:
                self.check_handler("")
            except PodwrightError as error:
                runtime_error = str(error)
        network = self._network.network
        return EngineStatus(
            handlers=handlers,
            default_handler=self._config.default_handler,
            runtime_error=runtime_error,
            network_error=network_error,
            info={
                "engine": self.name,
                "containerd": self._host.info,
                "shims": {name: _words(each) for name, each in self._shims.all().items()},
                "versions": dict(self._shims.versions()),
                "criu": criu,
                "network": network.to_json() if network else {},
            },
        )

    async def use_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        try:
            await self._network.use_pod_cidrs(cidrs)
        except OSError as error:
            raise FailedPrecondition(f"cni.conf_dir: the network configuration: {error}") from error

    def check_handler(self, name: str) -> None:
        self._shims.get(name)

    def new_id(self) -> str:
        return secrets.token_hex(32)

    # Sandboxes

    async def create_sandbox(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        return await self._sandboxes.create(sandbox, undo)

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        await self._sandboxes.stop(sandbox)

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        self._stats.leave_sandbox(sandbox)
        await self._sandboxes.remove(sandbox)

    async def sandbox_alive(self, sandbox: Sandbox) -> bool:
        return await self._sandboxes.alive(sandbox)

    async def sandbox_info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        return {"engine": self.name, **await self._sandboxes.info(sandbox)}

    # Containers

    async def create_container(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        facts = await self._containers.create(container, undo)
        self._stats.enter(container)
        return facts

    async def start_container(self, container: Container) -> ContainerFacts | None:
        return await self._containers.start(container)

    async def signal_container(self, container: Container, signal: int) -> None:
        await self._containers.signal(container, signal)

    async def remove_container(self, container: Container) -> None:
        self._stats.leave(container)
        await self._containers.remove(container)

    async def check_update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        await self._containers.check_update(container, resources)

    async def update_container(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None = None,
    ) -> None:
        with step("update limits"):
            await self._containers.update(container, resources, former)

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        with step("exec"):
            return await self._sessions.exec_sync(container, argv, timeout, limit)

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        with step("exec"):
            return await self._sessions.exec(container, argv, streams)

    async def attach(self, container: Container, streams: Streams) -> None:
        with step("attach"):
            await self._sessions.attach(container, streams)

    async def port_forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        with step("forward"):
            await self._sandboxes.forward(sandbox, port, connection)

    async def reopen_log(self, container: Container) -> None:
        with step("reopen log"):
            await self._containers.reopen_log(container)

    async def checkpoint_container(
        self, container: Container, status: cri.ContainerStatus, location: Path
    ) -> None:
        await self._containers.checkpoint(container, status, location)

    async def read_checkpoint(self, reference: str) -> Checkpoint:
        return await self._containers.read_checkpoint(reference)

    async def container_stats(self, containers: Sequence[Container]) -> Mapping[str, cri.ContainerStats]:
        return await self._stats.of_containers(containers)

    async def sandbox_stats(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, cri.LinuxPodSandboxStats]:
        return await self._stats.of_sandboxes(sandboxes)

    async def container_figures(self, containers: Sequence[Container]) -> Mapping[str, Sequence[Figure]]:
        return await self._stats.figures(containers)

    async def sandbox_figures(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, Sequence[Figure]]:
        return await self._stats.sandbox_figures(sandboxes)

    async def observe_container(self, container: Container) -> Observation:
        self._stats.enter(container)
        with step("look"):
            await self._sessions.adopt(container)
            return await self._containers.observe(container)

    async def container_info(self, container: Container) -> Mapping[str, Json]:
        return {"engine": self.name, **await self._containers.info(container)}

    async def explain_container(self, container: Container) -> Explanation:
        return await self._plan.explain_container(container)

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        return await self._plan.explain_sandbox(sandbox)

    def exits(self) -> AsyncIterator[Exit]:
        return self._tasks.exits()

    # Repair

    async def forget_others(self, sandboxes: set[str]) -> None:
        await self._repair.forget_others(sandboxes)

    async def orphans(self, sandboxes: set[str], containers: set[str]) -> Sequence[Orphan]:
        return await self._repair.orphans(sandboxes | containers)

    async def remove_orphan(self, orphan: Orphan) -> None:
        if orphan.kind == "log":
            await self._logs.finish(orphan.name)
        else:
            await self._repair.remove(orphan)


def _words(shim: Shim) -> Json:
    """For a verbose status."""
    return {
        "type": shim.runtime_type,
        "program": shim.program,
        "snapshotter": shim.snapshotter,
        "sandboxer": shim.sandboxer,
    }
