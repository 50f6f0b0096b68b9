"""Fake containers without core above them: an engine on a virtual clock, asked directly."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podwright.clock import VirtualClock
from podwright.engines.base import Container, ExecResult, Image, Presence, Sandbox
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.scenario import parse
from podwright.engines.fake.world import FakeContainer, World
from podwright.logs.lines import Line
from podwright.logs.lines import parse as parse_line
from podwright.wire import cri_pb2 as cri

START = 1_700_000_000_000_000_000
"""2023-11-14T22:13:20Z, in nanoseconds."""
LIMIT = 1 << 20


def open_files() -> int:
    """Of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Node:
    """An engine whose time passes when the test says so."""

    def __init__(self, logs: Path, scenario: dict[str, Any] | None = None) -> None:
        self.logs = logs
        self.clock = VirtualClock(START)
        self.world = World(self.clock, parse({"seed": 1, **(scenario or {})}))
        self.engine = FakeEngine(self.world)
        self._numbers = itertools.count()

    async def create(
        self,
        *command: str,
        name: str = "",
        log: bool = True,
        image: dict[str, Any] | None = None,
        stored: Image | None = None,
        **fields: Any,
    ) -> Case:
        name = name or f"c{next(self._numbers)}"
        own = {"namespace_options": cri.NamespaceOption(pid=cri.CONTAINER)}
        security = own | fields.pop("security", {})
        resources = fields.pop("resources", {})
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image="registry.test/app:1"),
            command=command,
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(**resources),
                security_context=cri.LinuxContainerSecurityContext(**security),
            ),
            **fields,
        )
        sandbox = Sandbox(
            "5" * 64,
            "pod",
            cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(name="pod", namespace="space", uid="u"), hostname="pod-host"
            ),
            "",
        )
        container = Container(
            self.world.new_id(),
            name,
            sandbox,
            config,
            stored or Image("sha256:" + "0" * 64, (), (), 1, image or {}),
            str(self.logs / name / "0.log") if log else "",
        )
        async with AsyncExitStack() as undo:
            facts = await self.engine.create_container(container, undo)
            undo.pop_all()
        return Case(self, replace(container, facts=facts))

    async def start(self, *command: str, **options: Any) -> Case:
        case = await self.create(*command, **options)
        await self.engine.start_container(case.container)
        return case

    async def run(self, *command: str, seconds: float = 60.0, **options: Any) -> Case:
        """Start it and let `seconds` pass."""
        case = await self.start(*command, **options)
        await self.clock.advance(seconds)
        return case

    async def shell(self, script: str, **options: Any) -> Case:
        return await self.run("/bin/sh", "-c", script, **options)


@dataclass
class Case:
    """One container."""

    node: Node
    container: Container

    @property
    def made(self) -> FakeContainer:
        return self.node.world.containers[self.container.id]

    @property
    def running(self) -> bool:
        return self.made.presence is Presence.RUNNING

    @property
    def code(self) -> int:
        """Of its exit."""
        assert self.made.exit is not None, "it has not ended"
        return self.made.exit.code

    @property
    def ended_at(self) -> float:
        """Seconds from the clock's start to its exit."""
        assert self.made.exit is not None, "it has not ended"
        return round((self.made.exit.finished_at - START) / 1e9, 6)

    async def signal(self, number: int) -> None:
        await self.node.engine.signal_container(self.container, number)

    async def exec(self, *argv: str, timeout: float | None = None, limit: int = LIMIT) -> ExecResult:
        return await self.node.engine.exec_sync(self.container, argv, timeout, limit)

    async def timed_exec(self, *argv: str, seconds: float = 60.0) -> ExecResult:
        """An exec during which time passes."""
        task = asyncio.ensure_future(self.exec(*argv))
        await self.node.clock.advance(0)
        if not task.done():
            await self.node.clock.advance(seconds)
        assert task.done(), f"{argv} has not ended after {seconds} s"
        return task.result()

    @property
    def log_file(self) -> Path:
        return Path(self.container.log_path)

    def lines(self) -> list[Line]:
        return [parse_line(each) for each in self.log_file.read_bytes().splitlines(keepends=True)]

    def output(self, stream: str = "stdout") -> str:
        return b"".join(
            each.text + (b"" if each.partial else b"\n") for each in self.lines() if each.stream == stream
        ).decode(errors="surrogateescape")
