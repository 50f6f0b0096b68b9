"""checkpoint and restore as a user meets them, at a server whose containers are fake ones."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from podwright.library import Runtime
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri

Podwright = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as node:
        yield node


@pytest.fixture
async def podwright(node: FakeNode, tmp_path: Path) -> AsyncIterator[Podwright]:
    """The program, beside a node with the pod "web": container "main" waits, "side" has a mount."""
    runtime = Runtime(node.cri, node.config)
    await runtime.pull("nginx")
    sandbox = await runtime.run_sandbox("web")
    await sandbox.run("main", "nginx", ["sleep", "100"])
    mount = cri.Mount(host_path=str(tmp_path), container_path="/data")
    await sandbox.run("side", "nginx", ["sleep", "100"], mounts=[mount])
    (socket := tmp_path / "run").mkdir()

    async def run(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "podwright", "--socket", str(socket / "s"), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()

    async with node.serve(socket / "s"):
        yield run


async def _running(node: FakeNode) -> list[str]:
    state = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    request = cri.ListContainersRequest(filter=cri.ContainerFilter(state=state))
    return [each.metadata.name for each in (await node.cri.list_containers(request)).containers]


async def test_a_pod_is_written_and_restored(node: FakeNode, podwright: Podwright, tmp_path: Path) -> None:
    status, out, errors = await podwright("checkpoint", "web", "-o", "pod.tar")
    assert (status, errors) == (0, "")
    assert out.startswith(f"{tmp_path}/pod.tar: web/main,side, ") and out.rstrip().endswith("B")
    status, out, errors = await podwright("restore", "pod.tar", "--name", "twin")
    assert (status, errors) == (0, "")
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=out.strip())
    assert (await node.cri.pod_sandbox_status(request)).status.metadata.name == "twin"
    assert sorted(await _running(node)) == ["main", "main", "side", "side"]


async def test_a_container_is_written_and_restored_in_a_pod(
    node: FakeNode, podwright: Podwright, tmp_path: Path
) -> None:
    status, out, errors = await podwright("checkpoint", "web/side", "-o", "side.tar", "--timeout", "30")
    assert (status, errors) == (0, "")
    assert out.startswith(f"{tmp_path}/side.tar: web/side, ")
    assert node.calls.last("CheckpointContainer").request.timeout == 30

    status, _, errors = await podwright("restore", "side.tar")
    assert status == 1 and "say with --pod" in errors
    status, _, errors = await podwright("restore", "side.tar", "--pod", "web", "--name", "again")
    assert status == 1 and "expects mounts that the request lacks: /data" in errors
    status, _, errors = await podwright("restore", "side.tar", "--pod", "web", "--mount", "data:/data")
    assert status == 1 and "--mount: 'data:/data' is not" in errors
    assert sorted(await _running(node)) == ["main", "side"]
    mount = f"{tmp_path}:/data:ro"
    status, out, errors = await podwright(
        "restore", "side.tar", "--pod", "web", "--name", "again", "--mount", mount
    )
    assert (status, errors) == (0, "")
    assert sorted(await _running(node)) == ["again", "main", "side"]
    made = await node.cri.container_status(cri.ContainerStatusRequest(container_id=out.strip()))
    assert made.status.mounts[0].readonly


async def test_what_cannot_be_is_said(podwright: Podwright, tmp_path: Path) -> None:
    status, _, errors = await podwright("checkpoint", "nobody", "-o", "a.tar")
    assert status == 1 and "no container or pod has the id or name 'nobody'" in errors
    status, _, errors = await podwright("restore", "absent.tar")
    assert status == 1 and "there is no checkpoint" in errors
    (tmp_path / "pod.tar").write_text("nothing" * 100)
    status, _, errors = await podwright("restore", "pod.tar")
    assert status == 1 and f"podwright: {tmp_path}/pod.tar: this is no tar archive" in errors
