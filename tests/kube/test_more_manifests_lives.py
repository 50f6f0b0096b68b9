"""Lives of pods that recordings do not show, on the fake node: what is left when they end, what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright.kube.life.runner import PodRun
from podwright.kube.manifests import manifest
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node
from podwright.testing import FakeNode

IMAGE = "example.test/web:1"


def container(name: str, command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", command], **more}


def pod(policy: str, *containers: dict[str, Any], **spec: Any) -> Manifest:
    spec = {"restartPolicy": policy, "containers": list(containers), **spec}
    return manifest.from_dict({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeNode]:
    images = {"items": [{"reference": IMAGE, "present": True, "config": {"Cmd": ["sh"]}}]}
    async with FakeNode({"images": images}, root=tmp_path / "fake", seed=8) as made:
        yield made


async def passing(fake: FakeNode, condition: Callable[[], bool], seconds: float = 600) -> None:
    """Let time pass until `condition` holds."""
    for _ in range(int(seconds * 2)):
        for _ in range(20):
            await asyncio.sleep(0.001)
            if condition():
                return
        await fake.advance(0.5)
    raise AssertionError("it never came to that")


async def test_links_to_logs_go_with_their_containers(fake: FakeNode, tmp_path: Path) -> None:
    links = tmp_path / "links"
    node = replace(Node(root=tmp_path / "node"), legacy_logs=links)
    made = pod("OnFailure", container("main", "echo up; exit 1"))
    run = PodRun(fake.cri, made, node, clock=fake.world.clock)
    life = asyncio.create_task(run.run())
    seen: set[str] = set()

    def links_now() -> set[str]:
        now = {one.name for one in links.glob("*.log")}
        seen.update(now)
        return now

    await passing(fake, lambda: bool(links_now()) and len(seen) > 3 and len(links_now()) < 3)
    assert all(name.startswith("web_default_main-") for name in seen)
    run.stop()
    await passing(fake, life.done)
    assert list(links.iterdir()) == []


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (4, 4)])
async def test_how_a_sidecar_ends_says_nothing_about_the_pod(
    fake: FakeNode, tmp_path: Path, code: int, expected: int
) -> None:
    sidecar = container("proxy", "trap 'exit 143' TERM; sleep 1000 & wait", restartPolicy="Always")
    made = pod("Never", container("main", f"sleep 1; exit {code}"), initContainers=[sidecar])
    life = asyncio.create_task(
        PodRun(fake.cri, made, Node(root=tmp_path / "node"), clock=fake.world.clock).run()
    )
    await passing(fake, life.done)
    outcome = life.result()
    assert {one.name: one.exit_code for one in outcome.containers} == {"proxy": 143, "main": code}
    assert (outcome.exit_code, outcome.error) == (expected, "")
