"""The docker engine: pods on a Docker Engine, with CNI networks or Docker's own.

This is the engine's face towards core (engines/base.py); each method hands on to the part that does it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
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
    Presence,
    Sandbox,
    SandboxFacts,
)
from podwright.engines.docker.api import Docker
from podwright.engines.docker.containers import Containers
from podwright.engines.docker.exits import Exits
from podwright.engines.docker.host import Host
from podwright.engines.docker.images import Images
from podwright.engines.docker.logs import Logs
from podwright.engines.docker.objects import Objects
from podwright.engines.docker.plan import Plan
from podwright.engines.docker.repair import Repair
from podwright.engines.docker.sandboxes import Sandboxes
from podwright.engines.docker.sessions import Sessions
from podwright.engines.docker.stats import Statistics
from podwright.engines.streams import Connection, Streams
from podwright.errors import FailedPrecondition, PodwrightError, Unimplemented
from podwright.linux import cgroups
from podwright.network.cni import Cni
from podwright.steps import step
from podwright.wire import cri_pb2 as cri


class DockerEngine:
    name = "docker"
    clock = SYSTEM

    def __init__(self, config: Config) -> None:
        self.cgroup_driver: str = config.cgroup_driver
        """Docker's own, once it is opened; so is the next."""
        self.runtime_version = ""
        self._config = config
        self._docker = Docker(config.docker)
        self._objects = Objects(self._docker, config.root)
        self._network: Cni | None = None
        if config.docker.network == "cni":
            self._network = Cni(
                Path(config.cni.conf_dir),
                [Path(each) for each in config.cni.bin_dirs],
                config.cni_cache,
                default_bridge=config.cni.default_bridge,
                ip_preference=config.cni.ip_preference,
                conf_template=Path(config.cni.conf_template) if config.cni.conf_template else None,
            )
        self._host = Host(config, self._docker)
        self._images = Images(self._docker, config)
        self._logs = Logs(self._docker, self._objects, config)
        self._sessions = Sessions(self._docker, self._objects, config)
        self._stats = Statistics(self._docker, self._objects, config)
        self._sandboxes = Sandboxes(
            config, self._docker, self._objects, self._host, self._images, self._network
        )
        self._exits = Exits(self._docker, self._objects, self._logs)
        self._containers = Containers(
            config, self._docker, self._objects, self._host, self._logs, self._exits.tell
        )
        self._plan = Plan(config, self._host, self._docker, opened=True)
        self._repair = Repair(self._objects, self._network)

    @property
    def images(self) -> Images:
        return self._images

    @property
    def network(self) -> Cni | None:
        return self._network

    async def open(self) -> None:
        self._docker.open()
        try:
            await self._host.look()
            self.cgroup_driver = self._host.features.cgroup_driver
            self.runtime_version = self._host.version
            if self._network is not None:
                await self._network.open()
            await self._logs.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._sessions.close()
        await self._logs.close()
        await self._stats.close()
        await self._images.close()
        if self._network is not None:
            await self._network.close()
        await self._docker.close()
        if self.cgroup_driver == "cgroupfs":
            cgroups.prune(self._config.cgroup_parent)

    async def status(self) -> EngineStatus:
        runtime_error, network_error = "", ""
        try:
            await self._host.look()
            self.check_handler("")
            network_error = await self._sandboxes.network_error()
        except PodwrightError as error:
            runtime_error = str(error)
        return EngineStatus(
            handlers=self._host.handlers(),
            default_handler=self._host.default_runtime,
            runtime_error=runtime_error,
            network_error=network_error,
            info={
                "engine": self.name,
                "endpoint": self._docker.endpoint,
                "docker": dict(self._host.info),
                "network": self._config.docker.network,
            },
        )

    async def use_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        if self._network is None:
            return  # Docker gives the addresses of its own networks
        try:
            await self._network.use_pod_cidrs(cidrs)
        except OSError as error:
            raise FailedPrecondition(f"cni.conf_dir: the network configuration: {error}") from error

    def check_handler(self, name: str) -> None:
        self._host.runtime(name)

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
        self._stats.enter(container)
        return await self._containers.create(container, undo)

    async def start_container(self, container: Container) -> ContainerFacts | None:
        facts = await self._containers.start(container)
        self._stats.started(container, facts)
        return facts

    async def signal_container(self, container: Container, signal: int) -> None:
        await self._containers.signal(container, signal)

    async def remove_container(self, container: Container) -> None:
        self._stats.leave(container)
        await self._containers.remove(container)
        await self._images.collect()

    async def check_update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        await self._containers.check_update(container, resources)

    async def update_container(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None = None,
    ) -> None:
        with step("update limits"):
            await self._containers.update(container, resources)

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
            await self._sessions.port_forward(sandbox, port, connection)

    async def reopen_log(self, container: Container) -> None:
        with step("reopen log"):
            await self._logs.reopen(container)

    async def checkpoint_container(
        self, container: Container, status: cri.ContainerStatus, location: Path
    ) -> None:
        raise Unimplemented("checkpoints: Docker's own cannot be read or made by others; use engine 'oci'")

    async def read_checkpoint(self, reference: str) -> Checkpoint:
        raise Unimplemented("checkpoints: the docker engine cannot restore them; use engine 'oci'")

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
            seen = await self._containers.observe(container)
            if seen.presence is Presence.RUNNING:
                await self._sessions.hang_up_strays(container)
            return seen

    async def container_info(self, container: Container) -> Mapping[str, Json]:
        return {"engine": self.name, **await self._containers.info(container)}

    async def explain_container(self, container: Container) -> Explanation:
        return await self._plan.explain_container(container)

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        return await self._plan.explain_sandbox(sandbox)

    async def exits(self) -> AsyncIterator[Exit]:
        async with aclosing(self._exits.exits()) as exits:
            async for exit in exits:
                self._containers.ended(exit.id)
                yield exit

    # Repair

    async def forget_others(self, sandboxes: set[str]) -> None:
        await self._repair.forget_others(sandboxes, sole_user=self._config.cni.sole_user)

    async def orphans(self, sandboxes: set[str], containers: set[str]) -> Sequence[Orphan]:
        return await self._repair.orphans(sandboxes | containers)

    async def remove_orphan(self, orphan: Orphan) -> None:
        await self._repair.remove(orphan)
