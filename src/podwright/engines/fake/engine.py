"""The fake engine's face towards core: each operation is a row of steps on the world.

Every step can fail, wait or be the engine's last (a crash): what exists is undone, found again and finished
by core exactly as it would be on a real host.
"""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from podwright import __version__
from podwright.checkpoints import reading
from podwright.checkpoints.layout import Checkpoint
from podwright.clock import Clock, VirtualClock
from podwright.config import LogsConfig
from podwright.engines.base import (
    Container,
    ContainerFacts,
    EngineStatus,
    ExecResult,
    Exit,
    Explanation,
    Figure,
    Handler,
    Json,
    Observation,
    Orphan,
    Presence,
    Sandbox,
    SandboxFacts,
)
from podwright.engines.fake import (
    attaching,
    checkpoints,
    execution,
    figures,
    forwarding,
    sessions,
    stats,
)
from podwright.engines.fake.command import command
from podwright.engines.fake.connections import Connections
from podwright.engines.fake.faults import Fault
from podwright.engines.fake.images import FakeImages
from podwright.engines.fake.output import Log
from podwright.engines.fake.plan import Plan
from podwright.engines.fake.refusals import check_container, check_sandbox
from podwright.engines.fake.stages import STAGES
from podwright.engines.fake.starting import start
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.world import FakeContainer, FakeSandbox, World
from podwright.engines.log_limits import LogLimits
from podwright.engines.streams import Connection, Streams
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.steps import step
from podwright.wire import cri_pb2 as cri


class FakeEngine:
    name = "fake"
    runtime_version = __version__
    cgroup_driver = "cgroupfs"

    def __init__(self, world: World, logs: LogsConfig | None = None) -> None:
        """`logs` are the limits of its containers' logs. FailedPrecondition when they mean nothing."""
        self.world = world
        if logs is not None:
            world.logs.limits = LogLimits.of(logs)
        self.images = FakeImages(world, self._step)
        self._exits: asyncio.Queue[Exit] = asyncio.Queue()
        self._crashed = False
        self._doom: Fault | None = None
        """Crashes this engine when the act of the step that met it is done."""
        self._buried = asyncio.Event()
        self._connections = Connections()
        """Of clients with programs and ports, by way of this engine."""

    @property
    def clock(self) -> Clock:
        return self.world.clock

    def new_id(self) -> str:
        return self.world.new_id()

    async def open(self) -> None:
        self.world.listen(self._exits.put_nowait)

    async def close(self) -> None:
        if not self._crashed:
            self.world.listen(None)

    def crash(self) -> None:
        """From this instruction on this engine does nothing any more; the world goes on."""
        self._crashed = True
        self.world.listen(None)
        self._connections.cut()

    def bury(self) -> None:
        """Whatever still waits in a step of this crashed engine is cancelled there, and all that comes."""
        self._buried.set()

    async def status(self) -> EngineStatus:
        scenario = self.world.scenario
        return EngineStatus(
            handlers=tuple(
                Handler(name, not each.error, each.error, each.recursive_read_only, each.user_namespaces)
                for name, each in scenario.handlers.items()
            ),
            default_handler=scenario.default_handler,
            runtime_error=scenario.runtime_error,
            network_error=scenario.network_error,
            info={"engine": self.name},
            config={
                "default_handler": scenario.default_handler,
                "handlers": {name: msgspec.structs.asdict(each) for name, each in scenario.handlers.items()},
                "seed": scenario.seed,
                "clock": "virtual" if isinstance(self.clock, VirtualClock) else "system",
            },
        )

    async def use_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        """Its addresses are the scenario's."""

    def check_handler(self, name: str) -> None:
        handlers = self.world.scenario.handlers
        handler = handlers.get(name or self.world.scenario.default_handler)
        if handler is None:
            raise InvalidArgument(
                "runtime_handler", f"no handler {name!r} is configured: {', '.join(sorted(handlers))}"
            )
        if handler.error:
            raise FailedPrecondition(f"runtime handler {name!r} cannot work here: {handler.error}")

    async def _step(self, name: str, subject: Subject) -> None:
        """Before each act: what comes after it happens only if this returns."""
        with step(STAGES[name]):
            if self.world.on_step is not None:
                await self.world.on_step(name, subject)
            if self.world.faults.some or self._doom is not None:
                await self._meet(name, subject)
            if self._crashed:
                await self._buried.wait()
                raise asyncio.CancelledError

    async def _meet(self, name: str, subject: Subject) -> None:
        """What the world's faults want of this step."""
        self._fall()
        meeting = self.world.faults.meet(name, subject)
        if meeting.latency:
            await self.world.clock.sleep(meeting.latency)
        if self._crashed:
            return
        if meeting.error is not None:
            raise meeting.error
        if meeting.crash is not None:
            self._doom = meeting.crash
            if meeting.crash.crash == "before":
                self._fall()
            else:
                # After the act comes another step or, when it was the operation's last, the event loop.
                asyncio.get_running_loop().call_soon(self._fall)

    def _fall(self) -> None:
        """The crash that a fault wants, if there is one."""
        if self._doom is not None and not self._crashed:
            self.crash()
            if self.world.on_crash is not None:
                self.world.on_crash(self._doom)

    def _undoing(self, undo: AsyncExitStack, name: str, subject: Subject, act: Callable[[], object]) -> None:
        async def unmake() -> None:
            await self._step(name, subject)
            act()

        undo.push_async_callback(unmake)

    # Sandboxes

    async def create_sandbox(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        world, subject = self.world, Subject.of_sandbox(sandbox)
        options = sandbox.config.linux.security_context.namespace_options
        check_sandbox(sandbox)
        await self._step("create_sandbox.namespaces", subject)
        made = world.sandboxes[sandbox.id] = FakeSandbox(sandbox.id)
        self._undoing(undo, "undo_sandbox.namespaces", subject, lambda: self._unmake(made))
        if options.network != cri.NODE:
            await self._step("create_sandbox.network", subject)
            if world.scenario.network_error:
                raise PodwrightError(f"network: {world.scenario.network_error}")
            made.ips = world.take_addresses()
            self._undoing(undo, "undo_sandbox.network", subject, lambda: self._release(made))
        if options.pid == cri.POD:
            await self._step("create_sandbox.pause", subject)
            made.pid = world.new_pid()
        script = world.scenario.pod_script(subject)
        if delay := script.latency.draw(world.chance):
            with step("ready"):
                await world.clock.sleep(delay)
        await self._step("create_sandbox.ready", subject)
        made.ready, made.created, made.traffic = True, world.clock.monotonic(), script.network
        if script.lost is not None:
            made.timer = world.clock.call_later(script.lost.draw(world.chance), world.pause_ended, made)
        return SandboxFacts(ips=made.ips, pid=made.pid)

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        subject, made = Subject.of_sandbox(sandbox), self.world.sandboxes.get(sandbox.id)
        if made is None:
            return
        await self._step("stop_sandbox.network", subject)
        self._release(made)
        await self._step("stop_sandbox.namespaces", subject)
        self._close(made)

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        await self._step("remove_sandbox.files", Subject.of_sandbox(sandbox))
        made = self.world.sandboxes.pop(sandbox.id, None)
        if made is not None:
            self._release(made)
            self._close(made)

    def _unmake(self, made: FakeSandbox) -> None:
        self._close(made)
        if not made.ips:  # what could not be released is still held for it
            self.world.sandboxes.pop(made.id, None)

    def _close(self, made: FakeSandbox) -> None:
        made.ready, made.pid = False, 0
        made.cut()
        if made.timer is not None:
            made.timer.cancel()
            made.timer = None

    def _release(self, made: FakeSandbox) -> None:
        if made.ips:
            self.world.give_back(made.ips)
            made.ips = ()

    async def sandbox_alive(self, sandbox: Sandbox) -> bool:
        await self._step("sandbox_alive.look", Subject.of_sandbox(sandbox))
        made = self.world.sandboxes.get(sandbox.id)
        return made is not None and made.ready

    async def sandbox_info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        return {"pid": sandbox.facts.pid, "engine": self.name}

    # Containers

    async def create_container(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        world, subject = self.world, Subject.of_container(container)
        handler = world.scenario.handlers.get(container.sandbox.handler or world.scenario.default_handler)
        check_container(container, recursive_read_only=handler is None or handler.recursive_read_only)
        world.logs.limits.of_container(container)
        asked = command(container)
        await self._step("create_container.rootfs", subject)
        made = world.containers[container.id] = FakeContainer(
            container.id,
            sandbox=world.sandboxes.get(container.sandbox.id),
            image=container.image.id,
            limit=container.config.linux.resources.memory_limit_in_bytes,
            usage=world.scenario.script(subject).stats,
        )
        self._undoing(undo, "undo_container.rootfs", subject, lambda: world.drop(container.id))
        if container.checkpoint is not None:
            await self._step("create_container.restore", subject)
            made.restored = checkpoints.read(container.checkpoint)
        await self._step("create_container.task", subject)
        made.presence, made.pid = Presence.CREATED, world.new_pid()
        return ContainerFacts(made.pid, asked.uid, asked.gid, asked.groups)

    async def start_container(self, container: Container) -> ContainerFacts | None:
        subject = Subject.of_container(container)
        await self._step("start_container.start", subject)
        made = self._made(container)
        start(self.world, made, container, subject, self.world.scenario.script(subject))
        await self._step("start_container.started", subject)
        return None

    async def signal_container(self, container: Container, signal: int) -> None:
        await self._step("signal_container.signal", Subject.of_container(container))
        made = self.world.containers.get(container.id)
        if made is None:
            return
        if made.presence is Presence.CREATED and signal == signals.SIGKILL:
            self.world.ended(made, 128 + signal)
        elif made.process is not None:
            made.process.signal(signal)

    async def remove_container(self, container: Container) -> None:
        subject = Subject.of_container(container)
        await self._step("remove_container.task", subject)
        made = self.world.containers.get(container.id)
        if made is None:
            return
        if made.process is not None:
            made.process.signal(signals.SIGKILL)
        made.presence = Presence.MISSING
        await self._step("remove_container.rootfs", subject)
        self.world.drop(container.id)

    async def check_update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        """What core has checked is all there is to check."""

    async def update_container(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None = None,
    ) -> None:
        await self._step("update_container.limits", Subject.of_container(container))
        made = self.world.containers.get(container.id)
        if made is not None:
            made.limit = resources.memory_limit_in_bytes

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        await self._step("exec_sync.exec", Subject.of_container(container))
        with step("exec"):
            return await execution.run(
                self.world,
                self._running(container),
                container,
                argv,
                timeout,
                limit,
                lambda: not self._crashed,
            )

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        await self._step("exec.start", Subject.of_container(container))
        with step("exec"):
            return await sessions.run(
                self.world, self._running(container), container, argv, streams, self._connections
            )

    async def attach(self, container: Container, streams: Streams) -> None:
        await self._step("attach.attach", Subject.of_container(container))
        with step("attach"):
            running = self._running(container)
            await attaching.attach(self.world, running, container, streams, self._connections)

    async def port_forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        await self._step("port_forward.connect", Subject.of_sandbox(sandbox))
        with step("forward"):
            await forwarding.forward(self.world, sandbox, port, connection, self._connections)

    async def reopen_log(self, container: Container) -> None:
        await self._step("reopen_log.reopen", Subject.of_container(container))
        made = self.world.containers.get(container.id)
        if made is not None and container.log_path:
            log = made.inside.output.log if made.inside is not None else None
            (log or Log(self.world.logs, container.log_path)).reopen()

    async def checkpoint_container(
        self, container: Container, status: cri.ContainerStatus, location: Path
    ) -> None:
        subject = Subject.of_container(container)
        await self._step("checkpoint_container.dump", subject)
        made = self._running(container)
        if made.presence is not Presence.RUNNING:
            raise FailedPrecondition(f"container {container.id} has ended")
        await self._step("checkpoint_container.archive", subject)
        checkpoints.write(self.world, made, container, status, location)

    async def read_checkpoint(self, reference: str) -> Checkpoint:
        return reading.look_at_once(reference, Path(reference))

    async def container_stats(self, containers: Sequence[Container]) -> Mapping[str, cri.ContainerStats]:
        return await stats.of_containers(self.world, containers)

    async def sandbox_stats(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, cri.LinuxPodSandboxStats]:
        return await stats.of_sandboxes(self.world, sandboxes)

    async def container_figures(self, containers: Sequence[Container]) -> Mapping[str, Sequence[Figure]]:
        return await figures.of_containers(self.world, containers)

    async def sandbox_figures(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, Sequence[Figure]]:
        return await figures.of_sandboxes(self.world, sandboxes)

    async def observe_container(self, container: Container) -> Observation:
        await self._step("observe_container.look", Subject.of_container(container))
        made = self.world.containers.get(container.id)
        return Observation(made.presence, made.exit) if made is not None else Observation(Presence.MISSING)

    async def container_info(self, container: Container) -> Mapping[str, Json]:
        return {"pid": container.facts.pid, "engine": self.name}

    async def explain_container(self, container: Container) -> Explanation:
        return await Plan(self.world.scenario).explain_container(container)

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        return await Plan(self.world.scenario).explain_sandbox(sandbox)

    async def exits(self) -> AsyncIterator[Exit]:
        while True:
            yield await self._exits.get()

    def _running(self, container: Container) -> FakeContainer:
        made = self.world.containers.get(container.id)
        if made is None:
            raise NotFound(f"container {container.id} is gone")
        return made

    def _made(self, container: Container) -> FakeContainer:
        made = self.world.containers.get(container.id)
        if made is None or made.presence is not Presence.CREATED:
            raise PodwrightError(f"container {container.id}: its task is gone")
        return made

    # Repair

    async def forget_others(self, sandboxes: set[str]) -> None:
        await self._step("forget_others.network", Subject())
        for sandbox in list(self.world.sandboxes.values()):
            if sandbox.id not in sandboxes:
                self._release(sandbox)

    async def orphans(self, sandboxes: set[str], containers: set[str]) -> Sequence[Orphan]:
        return [
            *(Orphan("sandbox", each) for each in self.world.sandboxes if each not in sandboxes),
            *(Orphan("container", each) for each in self.world.containers if each not in containers),
        ]

    async def remove_orphan(self, orphan: Orphan) -> None:
        self.world.sandboxes.pop(orphan.name, None)
        self.world.drop(orphan.name)
