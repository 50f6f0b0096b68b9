"""Pods as archives: what ran comes back as it was, in a pod of its own; what fails leaves nothing."""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.library import Runtime
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as node:
        yield node


@pytest.fixture
async def runtime(node: FakeNode) -> Runtime:
    runtime = Runtime(node.cri, node.config)
    await runtime.pull("nginx")
    return runtime


async def test_a_pod_comes_back_with_all_that_ran(node: FakeNode, runtime: Runtime, tmp_path: Path) -> None:
    archive = tmp_path / "pod.tar"
    async with await runtime.run_sandbox("web", labels={"app": "web"}, hostname="here") as sandbox:
        await sandbox.run("waits", "nginx", ["sleep", "100"], env={"KEY": "dGVzdA=="})
        await sandbox.run("writes", "nginx", ["sh", "-c", "echo 7 >/tmp/number; sleep 1000"])
        done = await sandbox.run("done", "nginx", ["true"])
        await node.advance("60s")
        assert (await done.status()).state == cri.CONTAINER_EXITED
        assert await sandbox.checkpoint(archive) == ["waits", "writes"]
        assert {each.state for each in await runtime.containers()} == {
            cri.CONTAINER_RUNNING,
            cri.CONTAINER_EXITED,
        }
        old = (await sandbox.status()).metadata.uid
    assert archive.stat().st_mode & 0o7777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["pod.tar"]
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["pod.options", "pod.dump", "waits.tar", "writes.tar"]
        options = tar.extractfile("pod.options")
        assert options is not None and set(json.load(options)["containers"]) == {"waits", "writes"}

    restored = await runtime.restore_pod(archive)
    status = await restored.status()
    assert (status.metadata.name, dict(status.labels)) == ("web", {"app": "web"})
    assert status.metadata.uid not in ("", old)
    by_name = {each.metadata.name: each for each in await runtime.containers()}
    assert set(by_name) == {"waits", "writes"}
    request = cri.ExecSyncRequest(container_id=by_name["writes"].id, cmd=["cat", "/tmp/number"])
    assert (await node.cri.exec_sync(request)).stdout == b"7\n"
    request = cri.ExecSyncRequest(container_id=by_name["waits"].id, cmd=["sh", "-c", "echo $KEY"])
    assert (await node.cri.exec_sync(request)).stdout == b"dGVzdA==\n", "a text, and no base64 of one"
    await node.advance("41s")
    by_name = {each.metadata.name: each for each in await runtime.containers()}
    assert by_name["waits"].state == cri.CONTAINER_EXITED, "it had waited for 60 of its 100 seconds"
    assert by_name["writes"].state == cri.CONTAINER_RUNNING
    await restored.remove()


async def test_a_pod_may_come_back_beside_itself_under_another_name(
    node: FakeNode, runtime: Runtime, tmp_path: Path
) -> None:
    async with await runtime.run_sandbox("web") as sandbox:
        await sandbox.run("main", "nginx", ["sleep", "100"])
        await sandbox.checkpoint(tmp_path / "pod.tar")
        async with await runtime.restore_pod(tmp_path / "pod.tar", name="twin") as twin:
            assert (await twin.status()).metadata.name == "twin"
            assert [each.state for each in await runtime.containers()] == [cri.CONTAINER_RUNNING] * 2


async def test_a_pod_in_which_nothing_runs_has_no_checkpoint(
    node: FakeNode, runtime: Runtime, tmp_path: Path
) -> None:
    async with await runtime.run_sandbox("web") as sandbox:
        with pytest.raises(FailedPrecondition, match="no container runs"):
            await sandbox.checkpoint(tmp_path / "pod.tar")
        container = await sandbox.run("main", "nginx", ["sleep", "100"])
        node.faults.add({"on": "checkpoint_container.archive", "error": {"code": "ResourceExhausted"}})
        with pytest.raises(PodwrightError):
            await sandbox.checkpoint(tmp_path / "pod.tar")
        assert (await container.status()).state == cri.CONTAINER_RUNNING
    assert list(tmp_path.iterdir()) == []


async def test_a_restore_that_fails_removes_what_it_made(
    node: FakeNode, runtime: Runtime, tmp_path: Path
) -> None:
    async with await runtime.run_sandbox("web") as sandbox:
        await sandbox.run("one", "nginx", ["sleep", "100"])
        await sandbox.run("two", "nginx", ["sleep", "100"])
        await sandbox.checkpoint(tmp_path / "pod.tar")
    node.faults.add(
        {"on": "start_container.start", "match": {"container": "two"}, "error": {"code": "Unknown"}}
    )
    with pytest.raises(PodwrightError):
        await runtime.restore_pod(tmp_path / "pod.tar")
    assert await runtime.sandboxes() == []
    assert (node.world.sandboxes, node.world.containers) == ({}, {})


async def test_what_is_no_pods_archive_is_refused(node: FakeNode, runtime: Runtime, tmp_path: Path) -> None:
    async with await runtime.run_sandbox("web") as sandbox:
        container = await sandbox.run("main", "nginx", ["sleep", "100"])
        await container.checkpoint(tmp_path / "container.tar")
    (tmp_path / "text").write_text("nothing")
    for name in ("container.tar", "text"):
        with pytest.raises(InvalidArgument):
            await runtime.restore_pod(tmp_path / name)
    with pytest.raises(NotFound):
        await runtime.restore_pod(tmp_path / "absent")
    assert await runtime.sandboxes() == []
