"""The library's Pod on a fake node, by a virtual clock: its life, its changes, its end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

import podwright
from podwright import errors
from podwright.kube.manifests import manifest as manifests
from podwright.pods import Pod
from podwright.testing import FakeNode

T = TypeVar("T")
IMAGE = "example.test/web:1"
LOCAL = "example.test/local:latest"
HOURS = 100_000
"""Seconds that do not pass in a test."""


def tree(name: str = "web", *, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    main = {"name": "main", "image": IMAGE, **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [main], **spec},
    }


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[FakeNode]:
    async with FakeNode(root=tmp_path / "state", seed=3) as made:
        yield made
        assert not made.world.sandboxes and not made.world.containers
        assert not list((tmp_path / "state" / "pods").glob("*"))


@asynccontextmanager
async def passing(node: FakeNode) -> AsyncIterator[None]:
    """Time passes."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.002)
            await node.advance(0.5)

    ticking = asyncio.ensure_future(tick())
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.wait({ticking})


async def soon(node: FakeNode, what: Awaitable[T]) -> T:
    async with asyncio.timeout(30), passing(node):
        return await what


async def test_a_pod_lives_as_long_as_its_block(node: FakeNode) -> None:
    async with passing(node), await node.runtime.pod(tree()) as pod:
        assert isinstance(pod, podwright.Pod)
        await pod.ready(60)
        assert (pod.phase, pod.name, pod.namespace) == ("Running", "web", "default")
        assert pod.ips and pod.status.podIP == pod.ips[0]
        assert pod.status.containerStatuses is not None and pod.status.containerStatuses[0].ready
        assert "Started" in [one.reason for one in pod.events]
        assert list(pod.containers) == ["main"] and pod.sandbox_id in node.world.sandboxes
        result = await pod.containers["main"].exec(["echo", "hello"])
        assert result.stdout == b"hello\n"
        async with pod.containers["main"].process(["cat"]) as process:
            await process.stdin.write(b"x")
            await process.stdin.close()
            assert await process.stdout.read() == b"x" and await process.wait() == 0
    outcome = await pod.wait()
    assert (outcome.exit_code, outcome.error) == (143, "")


async def test_waiting_for_its_end(node: FakeNode) -> None:
    async with await node.runtime.pod(tree(restartPolicy="Never")) as pod:
        await soon(node, pod.ready())
        node.exit("web/main", 7)
        outcome = await soon(node, pod.wait())
        assert (outcome.exit_code, outcome.containers[0].exit_code) == (7, 7)
        assert pod.phase == "Failed"


async def test_changes_are_told_until_the_end(node: FakeNode) -> None:
    pod = await node.runtime.pod(tree(restartPolicy="Never"))
    await pod.start()
    phases: list[str] = []

    async def follow() -> None:
        async for status in pod.changes():
            if status.phase and status.phase not in phases:
                phases.append(status.phase)
            if status.phase == "Running" and len(phases) == 2:
                node.exit("web/main", 0)

    await soon(node, follow())
    assert phases == ["Pending", "Running", "Succeeded"]
    await soon(node, pod.delete())


async def test_ready_says_what_was_in_the_way(node: FakeNode) -> None:
    node.inject_error("PullImage", errors.NotFound("no such image"), count=0)
    async with passing(node), await node.runtime.pod(tree()) as pod:
        with pytest.raises(errors.DeadlineExceeded, match=r"not ready after 45 s: .*main.*no such image"):
            await pod.ready(45)


async def test_a_pod_that_ends_before_it_is_ready(node: FakeNode) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    made = tree(container={"readinessProbe": probe}, restartPolicy="Never")
    async with await node.runtime.pod(made) as pod:
        waiting = asyncio.ensure_future(pod.ready())
        async with passing(node):
            async for status in pod.changes():
                if status.phase == "Running":
                    break
            node.exit("web/main", 3)
            with pytest.raises(errors.FailedPrecondition, match="'main' ended with exit code 3"):
                await waiting


async def test_leaving_the_block_keeps_to_the_grace_period(node: FakeNode) -> None:
    hook = {"preStop": {"sleep": {"seconds": 4}}}
    async with passing(node):
        async with await node.runtime.pod(tree(container={"lifecycle": hook})) as pod:
            await pod.ready()
            began = node.world.clock.monotonic()
        assert node.world.clock.monotonic() - began >= 4
        hook["preStop"]["sleep"]["seconds"] = HOURS
        patient = tree(container={"lifecycle": hook}, terminationGracePeriodSeconds=HOURS)
        with pytest.raises(RuntimeError, match="of the test"):
            async with await node.runtime.pod(patient) as pod:
                await pod.ready()
                began = node.world.clock.monotonic()
                raise RuntimeError("an error of the test")
        assert node.world.clock.monotonic() - began < HOURS


async def test_delete_may_be_hurried(node: FakeNode) -> None:
    hook = {"preStop": {"sleep": {"seconds": HOURS}}}
    made = tree(container={"lifecycle": hook}, terminationGracePeriodSeconds=HOURS)
    async with await node.runtime.pod(made) as pod:
        await soon(node, pod.ready())
        deleting = asyncio.ensure_future(pod.delete())
        await asyncio.sleep(0.01)
        assert not deleting.done()
        outcome = await soon(node, pod.kill())
        assert await deleting == outcome


async def test_cancelling_the_block_ends_the_pod_at_once(node: FakeNode) -> None:
    up = asyncio.Event()

    async def run() -> None:
        hook = {"preStop": {"sleep": {"seconds": HOURS}}}
        made = tree(container={"lifecycle": hook}, terminationGracePeriodSeconds=HOURS)
        async with await node.runtime.pod(made) as pod:
            await pod.ready()
            up.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(run())
    await soon(node, up.wait())
    task.cancel()
    await soon(node, asyncio.wait({task}))
    assert task.cancelled()


async def test_a_detached_pod_is_taken_over_by_its_uid(node: FakeNode) -> None:
    made = tree()
    made["metadata"]["uid"] = "1234"
    async with await node.runtime.pod(made) as first:
        await soon(node, first.ready())
        container = first.containers["main"].id
        await first.detach()
    assert container in node.world.containers
    async with await node.runtime.pod(made) as second:
        await soon(node, second.ready())
        assert second.containers["main"].id == container


async def test_objects_may_come_beside(node: FakeNode, tmp_path: Path) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"A": "1"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "p"}, "stringData": {"B": "2"}}
    made = tree(
        container={"envFrom": [{"configMapRef": {"name": "s"}}, {"secretRef": {"name": "p"}}],
                   "command": ["sh", "-c", "echo $A$B; sleep 100000"]},
    )  # fmt: skip
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all([settings, secret]))
    for objects in ([settings, secret], file, file.read_text()):
        async with await node.runtime.pod(made, objects=objects) as pod:
            await soon(node, pod.ready())
            async for line in pod.containers["main"].logs():
                assert line.text == b"12"
    with pytest.raises(errors.InvalidArgument, match="'Pod' is no object"):
        await node.runtime.pod(made, objects=[tree()])


async def test_bound_volumes(node: FakeNode, tmp_path: Path) -> None:
    made = tree(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
                container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]})  # fmt: skip
    async with await node.runtime.pod(made, bindings={"data": tmp_path}) as pod:
        await soon(node, pod.ready())
        status = await pod.containers["main"].status()
        assert str(tmp_path) in [one.host_path for one in status.mounts]


async def test_images_and_resources_change_in_place(node: FakeNode) -> None:
    requests = {"requests": {"cpu": "100m", "memory": "10Mi"}, "limits": {"cpu": "200m", "memory": "20Mi"}}
    async with await node.runtime.pod(tree(container={"resources": requests})) as pod:
        await soon(node, pod.ready())
        before = pod.containers["main"].id
        more = {"requests": {"cpu": "200m", "memory": "10Mi"}, "limits": {"cpu": "400m", "memory": "20Mi"}}
        pod.update(resources={"main": more})

        async def quota(wanted: int) -> None:
            while True:
                status = await pod.containers["main"].status()
                if status.resources.linux.cpu_quota == wanted:
                    return
                await asyncio.sleep(0.001)

        await soon(node, quota(40000))
        assert pod.containers["main"].id == before
        pod.update(images={"main": "example.test/web:2"})

        async def replaced() -> None:
            async for _ in pod.changes():
                if pod.containers["main"].id != before and pod.status.containerStatuses[0].ready:  # type: ignore[index]
                    return

        await soon(node, replaced())
        status = await pod.containers["main"].status()
        assert status.image.user_specified_image == "example.test/web:2"
        whole = tree(container={"resources": more})
        pod.update(whole)
        assert pod.manifest.container("main").image == IMAGE  # type: ignore[union-attr]


async def test_what_may_not_change_is_named(node: FakeNode) -> None:
    pod = await node.runtime.pod(tree())
    for changed, words in (
        (tree(container={"command": ["x"]}), r"spec.containers\[0\].command: cannot change"),
        (tree(hostNetwork=True), "spec.hostNetwork.*cannot change"),
        (tree("other"), "metadata.name: a pod keeps its name"),
        (tree(container={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}), "quality of service"),
        ({"kind": "Pod"}, "metadata: is needed"),
    ):
        with pytest.raises(errors.InvalidArgument, match=words):
            pod.update(changed)
    with pytest.raises(errors.InvalidArgument, match="'none' is none of the pod's"):
        pod.update(images={"none": IMAGE})
    with pytest.raises(errors.InvalidArgument, match="neither requests nor limits"):
        pod.update(resources={"main": {"cpu": "1"}})


async def test_a_debugger_joins(node: FakeNode) -> None:
    async with await node.runtime.pod(tree()) as pod:
        await soon(node, pod.ready())
        container = await soon(node, pod.debug("example.test/tools:1", ["sleep", "1000"], target="main"))
        assert container.name == "debugger-0" and container.id == pod.containers["debugger-0"].id
        await soon(node, node.runtime.pull(LOCAL))
        second = await soon(node, pod.debug("example.test/tools:1", env={"A": "b"}))
        assert second.name == "debugger-1"
        node.inject_error("PullImage", errors.NotFound("no such image"), count=0)
        with pytest.raises(errors.FailedPrecondition, match=r"'x': ErrImagePull: .*no such image"):
            await soon(node, pod.debug("example.test/none:1", name="x"))
        # An image that is here and nowhere else, though its tag is latest.
        await soon(node, pod.debug(LOCAL, pull_policy="IfNotPresent"))
        with pytest.raises(errors.FailedPrecondition, match=r"'y': ErrImagePull"):
            await soon(node, pod.debug(LOCAL, name="y"))
        with pytest.raises(errors.InvalidArgument, match="imagePullPolicy"):
            await pod.debug(LOCAL, pull_policy="Sometimes")
        with pytest.raises(errors.InvalidArgument, match="main"):
            await pod.debug(IMAGE, name="main")
        changed = tree()
        with pytest.raises(errors.InvalidArgument, match="stays as it was made"):
            pod.update(changed)


async def test_one_pod_is_wanted(node: FakeNode, tmp_path: Path) -> None:
    two = yaml.safe_dump_all([tree("a"), tree("b")])
    with pytest.raises(errors.InvalidArgument, match="manifest: holds 2 Pods, one is wanted"):
        await node.runtime.pod(two)
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(tree()))
    for source in (file, str(file), file.read_text(), manifests.read(file)[0], tree()):
        assert (await node.runtime.pod(source)).name == "web"


async def test_before_the_start_there_is_nothing(node: FakeNode) -> None:
    pod = await node.runtime.pod(tree())
    assert (pod.phase, pod.ips, dict(pod.containers), pod.events, pod.sandbox_id) == (
        "Pending",
        (),
        {},
        (),
        "",
    )
    with pytest.raises(errors.FailedPrecondition, match="has not been started"):
        await pod.wait()
    with pytest.raises(errors.FailedPrecondition, match="no sandbox yet"):
        pod.port_forward(80)
    assert isinstance(pod, Pod)


async def test_the_example_works(tmp_path: Path) -> None:
    node = FakeNode(root=tmp_path / "state", clock="system")
    async with node, node.serve(tmp_path / "cri.sock"), asyncio.timeout(90):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            Path(__file__).parent.parent.parent / "examples" / "pod.py",
            env={
                **os.environ,
                "PODWRIGHT_ROOT": str(tmp_path / "client"),
                "PODWRIGHT_ENDPOINT": f"unix://{tmp_path}/cri.sock",
            },
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    told = [line for line in out.decode().splitlines() if not line.startswith(("ready at", "events:"))]
    assert told == ["phase: Pending", "phase: Running", "page: hello", "debugger: whole", "phase: Succeeded"]
