"""One recorded case played again: the pod's worker on a fake node with a virtual clock, with the images and
files that the recordings' README names.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from podwright.kube import volumes
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import TOKEN_SECRET, Secret
from podwright.kube.node import Node
from podwright.testing import FakeNode
from tests.kube import golden
from tests.kube.golden_words import Words

STEP, PATIENCE = 0.5, 30.0
"""Virtual seconds: between two looks, and for a part of a case at most."""

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIGS: dict[str, dict[str, Any]] = {
    "busybox:1": {"Env": [PATH, "FROM_IMAGE=one"], "Cmd": ["sh"]},
    "busybox:2": {"Env": [PATH, "FROM_IMAGE=two"], "Cmd": ["sh"]},
    "app:1": {
        "Env": [PATH, "FROM_IMAGE=one", "OVERRIDE=image"],
        "Entrypoint": ["/bin/sh", "/srv/run.sh"],
        "Cmd": ["8080"],
        "WorkingDir": "/srv",
        "User": "1234:2345",
    },
    "nameduser:1": {"Env": [PATH], "User": "appuser", "Cmd": ["sh", "-c", "id; exec sleep 3600"]},
    "sig:1": {"Env": [PATH], "StopSignal": "SIGUSR1", "Cmd": ["sleep", "inf"]},
    "data:1": {},
}


def scenario(case: str, extra: dict[str, Any]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for name, config in CONFIGS.items():
        for registry, present in (("registry.test", True), ("other.test", False), ("pull.test", False)):
            items.append(
                {
                    "reference": f"{registry}/{name}",
                    "present": present or (registry == "other.test" and name == "busybox:2"),
                    "config": config,
                    "build": registry,
                }
            )
    items.append({"reference": "other.test/busybox:latest", "config": CONFIGS["busybox:1"]})
    items.append(
        {
            "reference": "private.test/busybox:1",
            "config": CONFIGS["busybox:1"],
            "username": "alice",
            "password": "wonder",
        }
    )
    items = [*extra.pop("images", []), *items]
    app = {"match": {"image": "*/app:1"}, "program": ["sleep", "inf"]}
    return {
        "handlers": {"runc": {}, "secondary": {}},
        "default_handler": "runc",
        "images": {"unknown": "refuse", "items": items},
        "containers": [*extra.pop("containers", []), app],
        **extra,
    }


class Stage:
    """One case that plays."""

    def __init__(self, case: str, node: FakeNode, worker: PodWorker, root: Path) -> None:
        self.case, self.node, self.worker, self.root = case, node, worker, root
        self.life: asyncio.Task[Any] = asyncio.get_running_loop().create_task(worker.run())
        places = {
            str(root / "kubelet"): "${KUBELET_ROOT}",
            str(root / "logs"): "${POD_LOG_DIR}",
            str(root / "golden"): "/srv/golden",
        }
        self._words = Words(node.calls, worker, places)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Let time pass until `condition` holds; whether it does in the end."""
        passed = 0.0
        while True:
            await self.settle()
            if condition():
                return True
            if passed >= patience or self.life.done():
                return condition()
            await self.node.advance(STEP)
            passed += STEP

    async def settle(self) -> None:
        """What can happen without time passing has happened. Who waits for the clock is not idle either."""
        quiet, before = 0, (-1, -1)
        while quiet < 40:
            await asyncio.sleep(0.001)
            now = (sum(1 for one in self.node.calls if one.ended), len(self.worker.events))
            quiet, before = quiet + 1 if now == before else 0, now
            if self.worker.idle.is_set() or self.life.done():
                # Its wake may be on the way.
                await asyncio.sleep(0.002)
                if self.worker.idle.is_set() or self.life.done():
                    return

    def calls(self) -> list[dict[str, Any]]:
        return self._words.calls()

    def events(self) -> list[tuple[str, str, str, str]]:
        return self._words.events()

    def status(self) -> dict[str, Any]:
        return self._words.status()

    def manifest(self, *steps: str) -> Manifest:
        return read(self.case, self.root, *steps)

    async def lose_sandbox(self) -> None:
        # Whoever stops a sandbox kills what is in it.
        self.node.exit("main", 137)
        self.node.lose(self.worker.manifest.name)


@asynccontextmanager
async def staged(case: str, root: Path, extra: dict[str, Any] | None = None) -> AsyncIterator[Stage]:
    """The case with its pod about to begin; at the end nothing of it is left."""
    files(root)
    async with FakeNode(scenario(case, dict(extra or {})), root=root / "state", seed=7) as fake:
        clock, manifest = fake.world.clock, read(case, root)
        worker = PodWorker(
            fake.cri, manifest, node(case, root),
            clock=clock, source="file" if manifest.static else "api",
        )  # fmt: skip
        stage = Stage(case, fake, worker, root)
        try:
            yield stage
        finally:
            if not stage.life.done():
                stage.life.cancel()
                await asyncio.wait({stage.life})
            await asyncio.to_thread(volumes.remove, worker.directory)


def read(case: str, root: Path, *steps: str) -> Manifest:
    """The Pod of the case after the steps; the recordings' files of the host are below `root`."""
    made = golden.read(case, *steps)
    for volume in made.spec.volumes or []:
        if volume.hostPath is not None:
            volume.hostPath.path = volume.hostPath.path.replace("/srv/golden", str(root / "golden"))
    # The recordings' API server issued tokens.
    token = Secret(made.namespace, "token", {"token": b"${GENERATED}"}, TOKEN_SECRET)
    return replace(made, objects=made.objects.adding(token))


def files(root: Path) -> None:
    """What the recordings' node had below /srv/golden."""
    golden = root / "golden"
    (golden / "dir" / "sub").mkdir(parents=True)
    (golden / "shared").mkdir()
    (golden / "file.txt").write_text("golden\n")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(golden, os.O_PATH)
        try:
            made.bind(f"/proc/self/fd/{here}/sock")  # the path itself may be too long for an address
        finally:
            os.close(here)


def node(case: str, root: Path) -> Node:
    return replace(golden.node(case), root=root / "kubelet", pod_logs=root / "logs")
