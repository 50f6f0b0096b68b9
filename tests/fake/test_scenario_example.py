"""examples/scenario.yaml, loaded and lived through on a node: what its comments promise happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from podwright.engines.fake.scenario import Scenario, load, parse_yaml, to_yaml
from podwright.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    PodwrightError,
    RegistryUnavailable,
    Unavailable,
)
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri

EXAMPLE = Path(__file__).parents[2] / "examples" / "scenario.yaml"
STEP = 0.25
T = TypeVar("T")


@dataclass
class Stage:
    node: FakeNode
    logs: Path
    pods: dict[str, cri.PodSandboxConfig] = field(default_factory=dict)

    async def within(self, call: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
        """What `call` answers while at most `seconds` pass on the node."""
        task = asyncio.create_task(call)
        for _ in range(round(seconds / STEP)):
            await self.node.advance(STEP)
            if task.done():
                break
        else:
            task.cancel()
        return await task

    async def pull(self, image: str, **auth: str) -> str:
        request = cri.PullImageRequest(
            image=cri.ImageSpec(image=image), auth=cri.AuthConfig(**auth) if auth else None
        )
        return (await self.within(self.node.cri.pull_image(request))).image_ref

    async def pod(self, name: str, namespace: str = "default", attempt: int = 0) -> str:
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace=namespace, uid=name, attempt=attempt),
            log_directory=str(self.logs),
        )
        answer = await self.within(self.node.cri.run_pod_sandbox(cri.RunPodSandboxRequest(config=config)))
        self.pods[answer.pod_sandbox_id] = config
        return answer.pod_sandbox_id

    async def container(
        self,
        pod: str,
        name: str,
        image: str = "busybox",
        labels: dict[str, str] | None = None,
        attempt: int = 0,
    ) -> str:
        """Created and started."""
        if not (await self.node.cri.image_status(_status_of(image))).HasField("image"):
            await self.pull(image)
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            image=cri.ImageSpec(image=image),
            labels=labels,
            log_path=f"{name}.log",
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=self.pods[pod])
        id = (await self.node.cri.create_container(request)).container_id
        await self.within(self.node.cri.start_container(cri.StartContainerRequest(container_id=id)))
        return id

    async def status(self, id: str) -> cri.ContainerStatus:
        return (await self.node.cri.container_status(cri.ContainerStatusRequest(container_id=id))).status

    async def stats(self, id: str) -> cri.ContainerStats:
        return (await self.node.cri.container_stats(cri.ContainerStatsRequest(container_id=id))).stats

    async def exec(self, id: str, *command: str) -> cri.ExecSyncResponse:
        return await self.within(self.node.cri.exec_sync(cri.ExecSyncRequest(container_id=id, cmd=command)))

    async def elapsed(self, call: Coroutine[Any, Any, object]) -> float:
        before = self.node.world.clock.monotonic()
        await call
        return self.node.world.clock.monotonic() - before


def _status_of(image: str) -> cri.ImageStatusRequest:
    return cri.ImageStatusRequest(image=cri.ImageSpec(image=image))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    (tmp_path / "logs").mkdir()
    async with FakeNode(EXAMPLE, root=tmp_path / "node") as node:
        yield Stage(node, tmp_path / "logs")


def test_it_says_something_of_every_part() -> None:
    scenario, empty = load(EXAMPLE), Scenario()
    assert parse_yaml(to_yaml(scenario)) == scenario
    parts = ("handlers", "addresses", "images", "pods", "containers", "faults")
    assert [part for part in parts if getattr(scenario, part) == getattr(empty, part)] == []


async def test_handlers_and_images(stage: Stage) -> None:
    status = await stage.node.cri.status(cri.StatusRequest())
    assert {each.name for each in status.runtime_handlers} >= {"fake"}
    [pause] = (await stage.node.cri.list_images(cri.ListImagesRequest())).images
    assert pause.pinned and pause.repo_tags == ["registry.k8s.io/pause:3.10"] and pause.size == 750_000
    took = await stage.elapsed(stage.pull("nginx:1.27"))
    assert 1.9 <= took < 2.5, "half a second, 70 MB at 50 MB/s, and 50 ms of a fault"
    image = (await stage.node.cri.image_status(_status_of("nginx:1.27"))).image
    assert await stage.pull("nginx") == image.id, "an alias is another image"
    with pytest.raises(PodwrightError, match="unauthorized"):
        await stage.pull("registry.example/private/app")
    await stage.pull("registry.example/private/app", username="robot", password="hunter2")
    with pytest.raises(RegistryUnavailable, match=r"registry\.example answers 503"):
        await stage.pull("registry.example/broken:1")


async def test_a_web_server(stage: Stage) -> None:
    pod = await stage.pod("web-0")
    ips = (
        await stage.node.cri.pod_sandbox_status(cri.PodSandboxStatusRequest(pod_sandbox_id=pod))
    ).status.network
    assert ips.ip == "10.88.0.2" and [each.ip for each in ips.additional_ips] == ["fd00:88::2"]
    id = await stage.container(pod, "web", "nginx:1.27")
    await stage.node.advance("7s")
    log = (stage.logs / "web.log").read_text()
    assert [line.split(" ", 3)[3] for line in log.splitlines()] == [
        "listening on port 80",
        *(f"GET /{number} 200" for number in range(3)),
    ]
    test = await stage.exec(id, "nginx", "-t")
    assert b"test is successful" in test.stderr and test.exit_code == 0
    assert (await stage.exec(id, "curl", "http://localhost")).exit_code == 7
    await stage.node.advance("60s")
    stats = await stage.stats(id)
    assert stats.memory.working_set_bytes.value == 200 << 20
    assert 0.05e9 < stats.cpu.usage_nano_cores.value < 0.3e9
    assert 0.12 < stats.cpu.usage_core_nano_seconds.value / 1e9 / 67 < 0.18
    took = await stage.elapsed(
        stage.within(stage.node.cri.stop_container(cri.StopContainerRequest(container_id=id, timeout=10)))
    )
    assert took <= 1.25
    assert (await stage.status(id)).exit_code == 128 + 3, "SIGQUIT, as the image says"


async def test_ends_of_containers(stage: Stage) -> None:
    pod = await stage.pod("app")
    for attempt, code in enumerate([1, 1, None]):
        flaky = await stage.container(pod, "flaky", attempt=attempt)
        await stage.node.advance("2s")
        status = await stage.status(flaky)
        assert (status.exit_code if status.state == cri.CONTAINER_EXITED else None) == code
    leaky = await stage.container(pod, "cache", labels={"app": "leaky"})
    await stage.node.advance("59s")
    stats = await stage.stats(leaky)
    assert stats.memory.working_set_bytes.value > 250 << 20 and stats.memory.psi.Some.Avg10 > 30
    await stage.node.advance("2s")
    status = await stage.status(leaky)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)
    stubborn = await stage.container(pod, "stubborn")
    stop = cri.StopContainerRequest(container_id=stubborn, timeout=5)
    assert 5 <= await stage.elapsed(stage.within(stage.node.cri.stop_container(stop))) < 6
    assert (await stage.status(stubborn)).exit_code == 137
    job = await stage.container(await stage.pod("job", "jobs"), "main")
    await stage.node.advance("6s")
    assert (await stage.status(job)).exit_code == 0
    assert (stage.logs / "main.log").read_text().endswith(" stdout F done\n")


async def test_pods_that_are_slow_and_break(stage: Stage) -> None:
    created = []
    for number in range(4):
        took = await stage.elapsed(stage.pod(f"shaky{number}", "shaky"))
        created.append(took)
    assert min(created) >= 0.2 and max(created) <= 3.25 and len(set(created)) > 1
    await stage.node.advance("20m")
    pods = (await stage.node.cri.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    assert {each.state for each in pods} == {cri.SANDBOX_NOTREADY}


async def test_faults(stage: Stage) -> None:
    for _ in range(2):
        with pytest.raises(PodwrightError, match="plugin type=bridge failed"):
            await stage.pod("unlucky", "unlucky")
    await stage.pod("unlucky", "unlucky")
    pod, failed = await stage.pod("chaos", "chaos"), 0
    for number in range(99):
        try:
            await stage.container(pod, f"c{number}")
        except DeadlineExceeded:
            failed += 1
    assert 2 <= failed <= 22
    with pytest.raises(Unavailable):
        await stage.container(pod, "c99")
    assert not stage.node.is_up
    await stage.node.advance("2.9s")
    assert not stage.node.is_up
    await stage.node.advance("0.2s")
    await stage.node.started()
    containers = (await stage.node.cri.list_containers(cri.ListContainersRequest())).containers
    assert len(containers) == 99
    with pytest.raises(FailedPrecondition, match="runsc is not installed"):
        await stage.node.cri.run_pod_sandbox(
            cri.RunPodSandboxRequest(config=stage.pods[pod], runtime_handler="gvisor")
        )
