"""A fake node with a directory of manifests and its keeper, which can be killed as kill -9 kills: nothing
that it asks for afterwards happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from podwright.api import Cri
from podwright.engines.fake.subject import Subject
from podwright.kube.node import Node
from podwright.kube.static import files as static_files
from podwright.kube.static import keeper as static_keeper
from podwright.kube.static import slot as static_slot
from podwright.kube.static import watch as static_watch
from podwright.kube.static.keeper import Keeper, Kept
from podwright.testing import FakeNode

TICK = 0.5
"""Virtual seconds that pass at a time."""
PATIENCE = 60.0


def pod(name: str = "web", image: str = "example.test/web:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
    }


ACTS = (
    "run_pod_sandbox", "pull_image", "create_container", "start_container", "stop_container",
    "stop_pod_sandbox", "remove_container", "remove_pod_sandbox",
)  # fmt: skip


class Mortal:
    """A CRI that answers nobody any more once its client is dead."""

    def __init__(self, runtime: Cri, dies: Callable[[str], bool] = lambda _: False) -> None:
        """`dies(moment)`: whether the client dies now, asked before and after each act."""
        self._runtime, self._dies = runtime, dies
        self.dead = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._runtime, name)
        if name == "get_container_events":
            return call

        async def ask(*arguments: Any) -> Any:
            await self._live(f"before {name}" if name in ACTS else "")
            answer = await call(*arguments)
            await self._live(f"after {name}" if name in ACTS else "")
            return answer

        return ask

    async def _live(self, moment: str) -> None:
        if moment and not self.dead.is_set() and self._dies(moment):
            self.dead.set()
        if self.dead.is_set():
            await asyncio.Event().wait()


class StaticStage:
    def __init__(self, node: FakeNode, directory: Path) -> None:
        self.node, self.directory = node, directory
        self.keeper: Keeper | None = None
        self.faults: list[str] = []
        """What should never have been."""
        self._mortal = Mortal(node.cri)
        node.world.on_step = self._look

    async def begin(self, dies: Callable[[str], bool] = lambda _: False) -> Keeper:
        self._mortal = Mortal(self.node.cri, dies)
        self.keeper = Keeper(
            cast(Cri, self._mortal),
            self.directory,
            self.node.config,
            clock=self.node.world.clock,
            node=Node(name="n", root=self.node.config.root_path),
        )
        return await self.keeper.__aenter__()

    async def leave(self) -> None:
        """As SIGTERM."""
        if self.keeper is not None:
            await self.keeper.__aexit__()
            self.keeper = None

    async def kill(self) -> None:
        """As kill -9."""
        self._mortal.dead.set()
        await self.leave()

    @property
    def dead(self) -> bool:
        return self._mortal.dead.is_set()

    def write(self, name: str, *trees: dict[str, Any]) -> None:
        """As careful programs write: at once."""
        draft = self.directory / f".{name}"
        draft.write_text(yaml.safe_dump_all(trees))
        draft.rename(self.directory / name)

    @property
    def pods(self) -> dict[str, Kept]:
        assert self.keeper is not None
        return {one.name: one for one in self.keeper.pods}

    def running(self, name: str) -> list[str]:
        """Images of the running containers of a pod, by the world: nobody's account."""
        return [
            record.config.image.user_specified_image
            for record in self.node.records.containers
            if (made := self.node.world.containers.get(record.id)) is not None
            and made.process is not None
            and record.sandbox.config.metadata.name == name
        ]

    async def _look(self, step: str, subject: Subject) -> None:
        """Before each step of the engine: of no name are there two pods."""
        world = self.node.world
        names = [
            record.config.metadata.name
            for record in self.node.records.sandboxes
            if (made := world.sandboxes.get(record.id)) is not None and made.ready
        ]
        self.faults += [f"{name} twice before {step}" for name in names if names.count(name) > 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until it holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.002)
                if condition():
                    return
                if self.node.is_up:
                    await self.node.advance(TICK)

    def left(self) -> list[str]:
        """What of pods is there."""
        root, world = self.node.config.root_path, self.node.world
        places = ("pods", "logs", "static/pods", "static/files", "pods-removed")
        files = [str(path) for place in places for path in (root / place).glob("*")]
        return [*world.sandboxes, *world.containers, *files]


@asynccontextmanager
async def static_stage(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StaticStage]:
    # The machine's time, of which a test has little.
    monkeypatch.setattr(static_watch, "TOGETHER", 0.005)
    monkeypatch.setattr(static_watch, "ABSENT", 0.05)
    monkeypatch.setattr(static_files, "SETTLED", 0.01)
    monkeypatch.setattr(static_slot, "LEAVE", 0.05)
    monkeypatch.setattr(static_keeper, "SETTLES", 1)
    directory = root / "manifests"
    directory.mkdir()
    async with FakeNode(root=root / "state", seed=5) as node:
        stage = StaticStage(node, directory)
        try:
            yield stage
        finally:
            await stage.leave()
        assert stage.faults == []
