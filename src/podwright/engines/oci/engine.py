"""The oci engine: pods by an OCI runtime under conmon, on our own image store, with CNI networks.

This is the engine's face towards core (engines/base.py); each method hands on to the part that does it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from podwright import __version__
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
from podwright.engines.cgroup_stats import Statistics
from podwright.engines.log_limits import LogLimits
from podwright.engines.node import host
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.places import Places
from podwright.engines.node.pods import Pods
from podwright.engines.node.requests import Requests
from podwright.engines.node.updates import Updates
from podwright.engines.oci.containers import Containers
from podwright.engines.oci.plan import Plan, StoredImages
from podwright.engines.oci.repair import Repair
from podwright.engines.oci.resources import Changeable
from podwright.engines.oci.runtimes import Runtimes, as_json
from podwright.engines.oci.sandboxes import Sandboxes
from podwright.engines.oci.stats import OciSight
from podwright.engines.oci.tasks import Tasks
from podwright.engines.oci.volumes import StoreVolumes
from podwright.engines.streams import Connection, Streams
from podwright.errors import FailedPrecondition, PodwrightError
from podwright.hooks.running import Hooks
from podwright.images.store import ImageStore
from podwright.linux import cgroups
from podwright.linux.criu import Criu
from podwright.linux.migration import Migrations
from podwright.logs.writing import LogWriter
from podwright.network.cni import Cni
from podwright.state.database import Database
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


class OciEngine:
    name = "oci"
    runtime_version = __version__
    clock = SYSTEM

    def __init__(self, config: Config, database: Database, hooks: Hooks | None = None) -> None:
        self.cgroup_driver: str = config.cgroup_driver
        self._config = config
        self._hooks = hooks or Hooks()
        self._places = Places(config)
        self._images = ImageStore(config.root_path / "images", database, config)
        self._runtimes = Runtimes(config, self._places)
        self._network = Cni(
            Path(config.cni.conf_dir),
            [Path(each) for each in config.cni.bin_dirs],
            config.cni_cache,
            default_bridge=config.cni.default_bridge,
            ip_preference=config.cni.ip_preference,
            conf_template=Path(config.cni.conf_template) if config.cni.conf_template else None,
        )
        self._criu = Criu(config.criu)
        self._migrations = Migrations()
        self._logs = LogWriter(self._places.logs)
        self._repair = Repair(config, self._places, self._runtimes, self._network)
        self._tasks: Tasks
        self._sandboxes: Sandboxes
        self._containers: Containers
        self._plan: Plan
        self._updates: Updates
        self._stats: Statistics

    @property
    def images(self) -> ImageStore:
        return self._images

    @property
    def network(self) -> Cni:
        return self._network

    async def open(self) -> None:
        """Prepare directories and look at the host. FailedPrecondition when this host cannot do it at all."""
        conmon = shutil.which(self._config.conmon)
        if conmon is None:
            raise FailedPrecondition(
                f"configuration conmon: {self._config.conmon!r} is no program here: the oci engine cannot run"
                " containers without conmon"
            )
        facts = host.facts(self._config)
        log_limits = LogLimits.of(self._config.logs)
        self._places.make()
        self._runtimes.find()
        self._runtimes.make_roots()
        self._tasks = Tasks(conmon, self._places, self._runtimes, self._logs)
        images = str(self._config.root_path / "images")
        self._stats = Statistics(OciSight(self._config, self._places, self._tasks, images))
        requests = Requests(self._config, self._places, self._runtimes, facts)
        volumes = ImageMounts(self._places, StoreVolumes(self._images))
        self._sandboxes = Sandboxes(
            self._config,
            self._places,
            self._runtimes,
            self._tasks,
            Pods(self._config, self._places, self._network, facts, volumes),
            facts,
            requests,
            self._hooks,
        )
        self._containers = Containers(
            self._config,
            self._places,
            self._runtimes,
            self._tasks,
            self._images,
            volumes,
            facts,
            requests,
            self._hooks,
            conmon,
            self._logs,
            log_limits,
            self._criu,
        )
        self._updates = Updates(self._config, Changeable(self._places, self._runtimes, self._tasks), facts)
        self._plan = Plan(
            self._config,
            self._places,
            self._runtimes,
            StoredImages(self._images),
            facts,
            requests,
            self._hooks,
        )
        await self._network.open()
        self._tasks.open()
        await self._logs.open()
        await self._images.open()

    async def close(self) -> None:
        """Let go; containers keep running."""
        self._migrations.close()
        self._containers.close()
        await self._stats.close()
        await self._tasks.close()
        await self._logs.close()
        await self._network.close()
        await self._images.close()
        if self.cgroup_driver == "cgroupfs":
            cgroups.prune(self._config.cgroup_parent)

    async def status(self) -> EngineStatus:
        network_error, handlers, criu = await asyncio.gather(
            self._network.status(), self._runtimes.handlers(), self._criu.words()
        )
        runtime_error = ""
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
                "cgroups": _cgroup_words(),
                "runtimes": {each.handler: as_json(each) for each in self._runtimes.all()},
                "versions": dict(self._runtimes.versions),
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
        self._runtimes.get(name)

    def new_id(self) -> str:
        return secrets.token_hex(32)

    # Sandboxes

    async def create_sandbox(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        # Its first container mostly follows at once.
        with self._migrations.expected():
            return await self._sandboxes.create(sandbox, undo)

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        await self._sandboxes.stop(sandbox)

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        self._stats.leave_sandbox(sandbox)
        await self._sandboxes.remove(sandbox)

    async def sandbox_alive(self, sandbox: Sandbox) -> bool:
        return self._sandboxes.alive(sandbox)

    async def sandbox_info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        return await self._sandboxes.info(sandbox)

    # Containers

    async def create_container(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        with self._migrations.expected():
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
        self._updates.check(container, resources)

    async def update_container(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None = None,
    ) -> None:
        with step("update limits"):
            await self._updates.apply(container, resources, former)

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        return await self._containers.exec_sync(container, argv, timeout, limit)

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        return await self._containers.exec(container, argv, streams)

    async def attach(self, container: Container, streams: Streams) -> None:
        with step("attach"):
            await self._containers.attach(container, streams)

    async def port_forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        with step("forward"):
            await self._sandboxes.forward(sandbox, port, connection)

    async def reopen_log(self, container: Container) -> None:
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
            return await self._containers.observe(container)

    async def container_info(self, container: Container) -> Mapping[str, Json]:
        return self._containers.info(container)

    async def explain_container(self, container: Container) -> Explanation:
        return await self._plan.explain_container(container)

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        return await self._plan.explain_sandbox(sandbox)

    def exits(self) -> AsyncIterator[Exit]:
        return self._tasks.exits()

    # Repair

    async def forget_others(self, sandboxes: set[str]) -> None:
        with step("release networks"):
            removed = await self._network.gc(sandboxes, sole_user=self._config.cni.sole_user)
        if removed:
            log.warning("networks of sandboxes that are gone were released: %s", ", ".join(removed))

    async def orphans(self, sandboxes: set[str], containers: set[str]) -> Sequence[Orphan]:
        known = sandboxes | containers
        stray_images = [
            each
            for each in self._images.orphans(known)
            # An image that is mounted as a volume is used in the name of CONTAINER#NUMBER.
            if each.kind != "image-use" or each.name.partition("#")[0] not in known
        ]
        return [*self._repair.orphans(known), *stray_images]

    async def remove_orphan(self, orphan: Orphan) -> None:
        if orphan.kind.startswith("image-"):
            await self._images.remove_orphan(orphan)
        elif orphan.kind == "log":
            await self._logs.finish(orphan.name)
        else:
            await self._repair.remove(orphan)


def _cgroup_words() -> dict[str, Json]:
    layout = cgroups.layout()
    return {"version": layout.version, "hybrid": layout.hybrid}
