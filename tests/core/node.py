"""A core on the fake engine, by a virtual clock, that can be crashed and started again on what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from podwright.clock import Timer, VirtualClock
from podwright.config import Config
from podwright.core.ground import Ground
from podwright.core.runtime import Runtime
from podwright.engines.base import Container, Exit
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.scenario import Scenario, parse
from podwright.engines.fake.world import World
from podwright.wire import cri_pb2 as cri
from tests.core.points import Crashed, Points, WatchedDatabase, idle

T = TypeVar("T")
IMAGE = "box"
CONFIG = Config()


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition()` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def _unless_dead(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody waits for the tasks of a process that has been killed."""
    if not isinstance(context.get("exception"), Crashed):
        loop.default_exception_handler(context)


class CoreClock:
    """The world's time as one core has it: its timers die with it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._timers: list[Timer] = []
        self.now = clock.now
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        self._timers = [*self.pending(), timer := self._clock.call_later(delay, callback, *arguments)]
        return timer

    def timeout(self, delay: float | None) -> AbstractAsyncContextManager[object]:
        return self._clock.timeout(delay)

    def pending(self) -> list[Timer]:
        return [timer for timer in self._timers if not timer.cancelled()]

    def crash(self) -> None:
        for timer in self._timers:
            timer.cancel()


class WatchedEngine(FakeEngine):
    """Keeps what core asked for where the world does not tell."""

    def __init__(self, world: World, clock: VirtualClock) -> None:
        super().__init__(world)
        self.own_clock = CoreClock(clock)
        self.signals: list[tuple[str, int]] = []
        self.updates: list[cri.LinuxContainerResources] = []
        self.kept: set[str] | None = None
        """The sandboxes that existed when recovery ended."""
        self.hold_exit: Callable[[Exit], Awaitable[None]] | None = None
        """Awaited before core is told of an exit."""

    @property
    def clock(self) -> CoreClock:
        return self.own_clock

    async def signal_container(self, container: Container, signal: int) -> None:
        self.signals.append((container.id, signal))
        await super().signal_container(container, signal)

    async def update_container(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None = None,
    ) -> None:
        self.updates.append(resources)
        await super().update_container(container, resources, former)

    async def exits(self) -> AsyncIterator[Exit]:
        async for exit in super().exits():
            if self.hold_exit is not None:
                await self.hold_exit(exit)
            yield exit

    async def forget_others(self, sandboxes: set[str]) -> None:
        self.kept = sandboxes
        await super().forget_others(sandboxes)


class Node:
    engine: WatchedEngine
    runtime: Runtime
    database: WatchedDatabase

    def __init__(self, scenario: object = None) -> None:
        """`scenario` as in a YAML file."""
        self.clock = VirtualClock(settle=idle)
        self.world = World(self.clock, parse(scenario) if scenario is not None else Scenario())
        self.world.seed()
        self.points = Points()
        self.database = WatchedDatabase(self.points)
        self.dead = False
        """The process has been killed; `crash` and `start` bring up the next."""
        self._others: set[asyncio.Task[Any]] = set()

    @property
    def ground(self) -> Ground:
        return self.runtime._ground

    async def start(self) -> None:
        """A new process on what is there; returns when recovery has ended."""
        self.boot()
        await self.engine.open()
        await self.runtime.open()
        if not await self.engine.images.list():
            await self.engine.images.pull(IMAGE, None)

    def boot(self) -> None:
        self._others = asyncio.all_tasks()
        asyncio.get_running_loop().set_exception_handler(_unless_dead)
        self.world.on_step = self.points.step
        self.engine = WatchedEngine(self.world, self.clock)
        self.runtime = Runtime(CONFIG, self.engine, self.database)

    def kill(self) -> None:
        """The process is dead from here on: nothing that it still does reaches anything."""
        self.dead = True
        self.engine.crash()
        self.engine.own_clock.crash()
        self.database.crash()

    async def crash(self) -> None:
        """Kill the process, if it is not dead already; `start` is the next one."""
        self.kill()
        await self._bury()
        self.points.gates.clear()
        self.database = self.database.after_crash(self.points)
        self.dead = False

    async def after_crash(self) -> None:
        await self.crash()
        await self.start()

    async def _bury(self) -> None:
        """End the tasks of a dead process. They could do nothing any more, but would stay for ever."""
        while left := asyncio.all_tasks() - self._others - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.01)

    async def stop(self) -> None:
        for gate in self.points.gates.values():
            gate.set()
        self.points.hook = self.points.hold = None
        await self.runtime.close()
        await self.engine.close()
        self.database.close()

    # What the world does by itself

    def exit(self, container: str, code: int, oom: bool = False) -> None:
        """The program in `container` ends."""
        self.world.ended(self.world.containers[container], code, oom=oom)

    def sandbox_ends(self, sandbox: str) -> None:
        """Its pause process ends."""
        self.world.pause_ended(self.world.sandboxes[sandbox])

    # Short forms of calls

    def sandbox_request(
        self, name: str = "pod", attempt: int = 0, *, host_network: bool = False, shared_pid: bool = False
    ) -> cri.RunPodSandboxRequest:
        request = cri.RunPodSandboxRequest(
            config=cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(
                    name=name, namespace="ns", uid="uid-" + name, attempt=attempt
                ),
                log_directory="/logs",
                labels={"app": name},
            )
        )
        options = request.config.linux.security_context.namespace_options
        options.network = cri.NODE if host_network else cri.POD
        options.pid = cri.POD if shared_pid else cri.CONTAINER
        return request

    def container_request(
        self, sandbox: str, name: str = "main", *, target: str = ""
    ) -> cri.CreateContainerRequest:
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox,
            config=cri.ContainerConfig(
                metadata=cri.ContainerMetadata(name=name),
                image=cri.ImageSpec(image=IMAGE),
                log_path=f"{name}/0.log",
            ),
        )
        if target:
            options = request.config.linux.security_context.namespace_options
            options.pid, options.target_id = cri.TARGET, target
        return request

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

    async def shortly(self, call: Awaitable[T], seconds: float = 600.0) -> T:
        """What `call` gives, within `seconds` of the virtual clock; TimeoutError when it does not end."""
        task = asyncio.ensure_future(call)
        await self.clock.advance(seconds)
        if not task.done():
            task.cancel()
            raise TimeoutError(f"not done within {seconds:g} s")
        return task.result()
