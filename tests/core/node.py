"""A core on the memory engine that can be crashed and started again."""

from __future__ import annotations

import asyncio
import copy
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from podwright.config import Config
from podwright.core.runtime import Runtime
from podwright.state.database import Database
from podwright.wire import cri_pb2 as cri
from tests.core.memory import MemoryEngine, World


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition()` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.world = World()
        self.config = Config(root=str(root))
        self.others: list[Node] = []
        self._crashes = 0

    async def start(self, gates: Mapping[str, asyncio.Event] | None = None) -> None:
        self.database = Database.open(self.root / "podwright.db")
        self.engine = MemoryEngine(self.world)
        self.engine.gates.update(gates or {})
        self.runtime = Runtime(self.config, self.engine, self.database)
        await self.runtime.open()

    async def after_crash(self, gates: Mapping[str, asyncio.Event] | None = None) -> Node:
        """A node started on what a kill -9 at this very moment would have left: database and world.

        `gates` are those of its engine from the start.
        """
        self._crashes += 1
        other = Node(self.root / f"crash-{self._crashes}")
        other.root.mkdir()
        with (
            sqlite3.connect(other.root / "podwright.db") as copied,
            sqlite3.connect(self.root / "podwright.db") as source,
        ):
            source.backup(copied)
        other.world = copy.deepcopy(self.world)
        await other.start(gates)
        self.others.append(other)
        return other

    async def stop(self) -> None:
        for gate in self.engine.gates.values():
            gate.set()
        await self.runtime.close()
        self.database.close()
        for other in self.others:
            await other.stop()

    # Short forms of calls

    def sandbox_request(self, name: str = "pod", attempt: int = 0) -> cri.RunPodSandboxRequest:
        return cri.RunPodSandboxRequest(
            config=cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(
                    name=name, namespace="ns", uid="uid-" + name, attempt=attempt
                ),
                log_directory="/logs",
                labels={"app": name},
            )
        )

    def container_request(self, sandbox: str, name: str = "main") -> cri.CreateContainerRequest:
        return cri.CreateContainerRequest(
            pod_sandbox_id=sandbox,
            config=cri.ContainerConfig(
                metadata=cri.ContainerMetadata(name=name),
                image=cri.ImageSpec(image="box"),
                log_path=f"{name}/0.log",
            ),
        )

    async def sandbox(self, name: str = "pod") -> str:
        return (await self.runtime.run_pod_sandbox(self.sandbox_request(name))).pod_sandbox_id

    async def container(self, sandbox: str, name: str = "main", *, start: bool = True) -> str:
        request = self.container_request(sandbox, name)
        id = (await self.runtime.create_container(request)).container_id
        if start:
            await self.runtime.start_container(cri.StartContainerRequest(container_id=id))
        return id

    async def status(self, container: str) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=container)
        return (await self.runtime.container_status(request)).status

    async def sandbox_status(self, sandbox: str) -> cri.PodSandboxStatus:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
        return (await self.runtime.pod_sandbox_status(request)).status

    async def sandboxes(self) -> list[str]:
        return [item.id for item in (await self.runtime.list_pod_sandbox(cri.ListPodSandboxRequest())).items]

    async def containers(self) -> list[str]:
        response = await self.runtime.list_containers(cri.ListContainersRequest())
        return [item.id for item in response.containers]
