"""Lives of pods that recordings do not show, on the fake node: what is left when they end, what it counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from podwright.api import Cri
from podwright.errors import InvalidArgument, PodwrightError
from podwright.kube.failures import ImageError
from podwright.kube.life.backoff import Backoff
from podwright.kube.life.events import Recorder
from podwright.kube.life.images import Images, Wanted
from podwright.kube.life.pull_secrets import JSON_TYPE
from podwright.kube.life.runner import PodRun
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests import manifest
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import Objects, Secret
from podwright.kube.node import Node
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri

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


async def test_a_pod_that_is_started_again_in_place_has_no_grace_and_keeps_its_logs(
    fake: FakeNode, tmp_path: Path
) -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    made = pod(
        "Never",
        container("main", "echo up; sleep 5; exit 42", restartPolicy="Never", restartPolicyRules=[rule]),
        container("other", "echo up; sleep 1000", lifecycle={"preStop": {"exec": {"command": ["bye"]}}}),
        initContainers=[container("early", "true")],
    )
    node = Node(root=tmp_path / "node")
    worker = PodWorker(fake.cri, made, node, clock=fake.world.clock)
    phases: set[str | None] = set()
    worker.subscribe(lambda _, status: phases.add(status.phase))
    life = asyncio.create_task(worker.run())

    def again() -> bool:
        told = worker.status.containerStatuses or []
        return [one.restartCount for one in told if one.state and one.state.running] == [1, 1]

    await passing(fake, again)
    asked = [(one.rpc, one.request) for one in fake.calls]
    assert [request.timeout for rpc, request in asked if rpc == "StopContainer"] == [2]
    assert "ExecSync" not in [rpc for rpc, _ in asked]
    attempts = [request.config.metadata.attempt for rpc, request in asked if rpc == "CreateContainer"]
    assert attempts == [0, 0, 0, 1, 1, 1]
    ends = [one.lastState.terminated for one in worker.status.containerStatuses or [] if one.lastState]
    assert [one.reason for one in ends if one is not None] == ["RestartingAllContainers"] * 2
    assert phases <= {"Pending", "Running"}
    assert [one.message for one in worker.events if one.reason == "Killing"] == ["killing"]
    assert sorted(one.name for one in worker.directory.logs("other").iterdir()) == ["0.log", "1.log"]
    worker.kill()
    await passing(fake, life.done)
    await worker.remove()


async def test_a_container_waits_for_the_images_that_it_mounts(tmp_path: Path) -> None:
    images = [
        {"reference": IMAGE, "present": True, "config": {"Cmd": ["sh"]}},
        {"reference": "example.test/data:1", "error": {"code": "NotFound", "message": "no such image"}},
    ]
    volume = {"name": "data", "image": {"reference": "example.test/data:1"}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    made = pod(
        "Always", container("main", "sleep 1000"), container("user", "sleep 1000", volumeMounts=mounts),
        volumes=[volume],
    )  # fmt: skip
    async with FakeNode({"images": {"items": images}}, root=tmp_path / "fake", seed=8) as fake:
        worker = PodWorker(fake.cri, made, Node(root=tmp_path / "node"), clock=fake.world.clock)
        life = asyncio.create_task(worker.run())

        def waiting() -> list[str | None]:
            told = [one.state for one in worker.status.containerStatuses or []]
            return [one.waiting.reason for one in told if one is not None and one.waiting is not None]

        await passing(fake, lambda: waiting() == ["ErrImagePull"])
        await passing(fake, lambda: waiting() == ["ImagePullBackOff"])
        failed = [(one.object, one.message) for one in worker.events if one.reason == "Failed"]
        pulled = 'Failed to pull image "example.test/data:1": rpc error: code = NotFound desc = no such image'
        assert ("", pulled) in failed
        assert {words for place, words in failed if place} == {
            "Error: ErrImagePull",
            "Error: ImagePullBackOff",
        }
        assert {place for place, _ in failed if place} == {"spec.containers{user}"}
        worker.kill()
        await passing(fake, life.done)


async def test_all_credentials_that_fail_are_told(fake: FakeNode) -> None:
    class Refusing:
        async def pull_image(self, request: cri.PullImageRequest) -> None:
            raise InvalidArgument("auth", f"not {request.auth.username}")

    keys = {"example.test/web": {"username": "a"}, "example.test": {"username": "b"}}
    secret = Secret("default", "keys", {".dockerconfigjson": json.dumps({"auths": keys}).encode()}, JSON_TYPE)
    made = pod("Always", container("main", ""), imagePullSecrets=[{"name": "keys"}])
    made = replace(made, objects=Objects().adding(secret))
    images = Images(cast(Cri, Refusing()), fake.world.clock, Recorder(), Backoff(fake.world.clock))
    with pytest.raises(PodwrightError) as caught:
        await images._pull(made, cri.ImageSpec(image=IMAGE), cri.PodSandboxConfig())
    code = "rpc error: code = InvalidArgument desc = auth"
    assert str(caught.value) == f"[{code}: not a, {code}: not b]"


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("example.test/UPPER:1", ": repository name (UPPER) must be lowercase"),
        ("example.test/web:1:2", ""),
    ],
)
async def test_names_that_are_none(fake: FakeNode, reference: str, fault: str) -> None:
    recorder, backoff = Recorder(), Backoff(fake.world.clock)
    images = Images(fake.cri, fake.world.clock, recorder, backoff)
    made = pod("Always", container("main", ""))
    with pytest.raises(ImageError) as caught:
        await images.ensure(made, Wanted(reference, "Always", ""), cri.PodSandboxConfig())
    assert caught.value.message.endswith(f'"{reference}": invalid reference format{fault}')
