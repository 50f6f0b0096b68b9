"""An engine whose pods are dictionary entries, for the rules of core alone.

Every step can be made to fail or to wait (`gates`), and what exists is plain to see. The behaviour suite
runs on the real engines; this one is for orders of events that those cannot be forced into.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

from podwright.clock import SYSTEM
from podwright.engines.base import (
    Container,
    ContainerFacts,
    Credentials,
    EngineStatus,
    ExecResult,
    Exit,
    FilesystemUse,
    Handler,
    Image,
    Json,
    Observation,
    Orphan,
    Presence,
    Sandbox,
    SandboxFacts,
)
from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

IMAGE = Image(
    "sha256:" + "ab" * 32,
    ("docker.io/library/box:latest",),
    ("docker.io/library/box@sha256:" + "cd" * 32,),
    1000,
    {"Cmd": ["sh"]},
)


class World:
    """What outlives the engine: a crash takes the engine and core, never the world."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, str] = {}
        self.containers: dict[str, Presence] = {}
        self.exits: dict[str, Exit] = {}


class MemoryImages:
    async def list(self) -> Sequence[Image]:
        return [IMAGE]

    async def find(self, reference: str) -> Image | None:
        return IMAGE if reference in ("box", IMAGE.id) else None

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        return IMAGE

    async def remove(self, reference: str) -> None:
        pass

    async def filesystem_use(self) -> FilesystemUse:
        return FilesystemUse("/", 1, 1)


class MemoryEngine:
    name = "memory"
    runtime_version = "1"
    cgroup_driver = "cgroupfs"
    clock = SYSTEM

    def __init__(self, world: World) -> None:
        self.world = world
        self.images = MemoryImages()
        self.gates: dict[str, asyncio.Event] = {}
        """A step named here waits for its event, half done."""
        self.failures: dict[str, Exception] = {}
        """A step named here raises once, half done."""
        self.calls: list[str] = []
        self.signals: list[tuple[str, int]] = []
        self.updates: list[cri.LinuxContainerResources] = []
        self.dies_of_sigterm = True
        self.kept: set[str] | None = None
        """The sandboxes that existed when recovery ended."""
        self._exits: asyncio.Queue[Exit] = asyncio.Queue()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def status(self) -> EngineStatus:
        return EngineStatus((Handler("memory", True),), "memory")

    def check_handler(self, name: str) -> None:
        if name not in ("", "memory"):
            raise InvalidArgument("runtime_handler", f"there is no handler {name!r}")

    def new_id(self) -> str:
        return secrets.token_hex(32)

    async def _step(self, name: str) -> None:
        self.calls.append(name)
        if gate := self.gates.get(name):
            await gate.wait()
        if error := self.failures.pop(name, None):
            raise error

    async def create_sandbox(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        self.world.sandboxes[sandbox.id] = "half"

        async def unmake() -> None:
            await self._step("undo_sandbox")
            del self.world.sandboxes[sandbox.id]

        undo.push_async_callback(unmake)
        await self._step("create_sandbox")
        self.world.sandboxes[sandbox.id] = "ready"
        return SandboxFacts(ips=("10.0.0.2",))

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        await self._step("stop_sandbox")
        if sandbox.id in self.world.sandboxes:
            self.world.sandboxes[sandbox.id] = "stopped"

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        await self._step("remove_sandbox")
        self.world.sandboxes.pop(sandbox.id, None)

    async def sandbox_alive(self, sandbox: Sandbox) -> bool:
        return self.world.sandboxes.get(sandbox.id) == "ready"

    async def sandbox_info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        return {"pid": 0}

    async def create_container(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        self.world.containers[container.id] = Presence.MISSING

        async def unmake() -> None:
            await self._step("undo_container")
            del self.world.containers[container.id]

        undo.push_async_callback(unmake)
        await self._step("create_container")
        self.world.containers[container.id] = Presence.CREATED
        return ContainerFacts(pid=4711, uid=7)

    async def start_container(self, container: Container) -> None:
        await self._step("start_container")
        self.world.containers[container.id] = Presence.RUNNING

    async def signal_container(self, container: Container, signal_: int) -> None:
        self.signals.append((container.id, signal_))
        if signal_ == signal.SIGKILL or self.dies_of_sigterm:
            self.exit(container.id, 128 + signal_)

    def exit(self, id: str, code: int, oom: bool = False) -> None:
        """The program in container `id` ends."""
        self.world.containers[id] = Presence.EXITED
        self.world.exits[id] = Exit(id, code, time.time_ns(), oom)
        self._exits.put_nowait(self.world.exits[id])

    def sandbox_ends(self, id: str) -> None:
        """The pause process of sandbox `id` ends."""
        self._exits.put_nowait(Exit(id, 137, time.time_ns(), sandbox=True))

    async def remove_container(self, container: Container) -> None:
        await self._step("remove_container")
        self.world.containers.pop(container.id, None)

    async def update_container(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        self.updates.append(resources)
        await self._step("update_container")

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        return ExecResult(" ".join(argv).encode(), b"", 0)

    async def reopen_log(self, container: Container) -> None:
        await self._step("reopen_log")

    async def container_stats(self, containers: Sequence[Container]) -> Mapping[str, cri.ContainerStats]:
        return {}

    async def sandbox_stats(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, cri.LinuxPodSandboxStats]:
        return {}

    async def observe_container(self, container: Container) -> Observation:
        presence = self.world.containers.get(container.id, Presence.MISSING)
        return Observation(presence, self.world.exits.get(container.id))

    async def container_info(self, container: Container) -> Mapping[str, Json]:
        return {"pid": 4711}

    async def exits(self) -> AsyncIterator[Exit]:
        while True:
            yield await self._exits.get()

    async def forget_others(self, sandboxes: set[str]) -> None:
        self.kept = sandboxes

    async def orphans(self, sandboxes: set[str], containers: set[str]) -> Sequence[Orphan]:
        return []

    async def remove_orphan(self, orphan: Orphan) -> None:
        pass
