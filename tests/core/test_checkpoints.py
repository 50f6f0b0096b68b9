"""Whom a checkpoint can be made of, where to, and how long it may take; what must be there to restore one."""

from __future__ import annotations

import asyncio
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from podwright.checkpoints.layout import Checkpoint, ConfigDump, DumpedMount, SpecDump
from podwright.core.checkpoints import missing_mounts
from podwright.core.views import image_shown
from podwright.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from podwright.wire import cri_pb2 as cri
from tests.core.client import Client
from tests.core.node import IMAGE, Node, until


async def _running(node: Node, *command: str) -> tuple[str, str]:
    client = Client(node)
    pod = await client.pod()
    request = node.container_request(pod, "main")
    request.config.command[:] = command or ["sleep", "100"]
    id = (await node.runtime.create_container(request)).container_id
    await client.start(id)
    return pod, id


async def _checkpoint(node: Node, id: str, location: Path | str, timeout: int = 0) -> None:
    request = cri.CheckpointContainerRequest(container_id=id, location=str(location), timeout=timeout)
    await node.runtime.checkpoint_container(request)


async def _restore(node: Node, pod: str, archive: Path, **fields: object) -> str:
    request = node.container_request(pod, "restored")
    request.config.image.image = str(archive)
    request.config.MergeFrom(cri.ContainerConfig(**fields))  # type: ignore[arg-type]
    return (await node.runtime.create_container(request)).container_id


@pytest.mark.parametrize(
    "location", ["", "relative.tar", "/", "/a/../b.tar", "/tmp/", "nul\0", "/nul\0"], ids=repr
)
async def test_a_location_is_the_absolute_path_of_a_file(node: Node, location: str) -> None:
    _, id = await _running(node)
    with pytest.raises(InvalidArgument) as caught:
        await _checkpoint(node, id, location)
    assert caught.value.field == "location"


async def test_a_location_where_no_file_can_be_is_refused(node: Node, tmp_path: Path) -> None:
    _, id = await _running(node)
    with pytest.raises(InvalidArgument, match="no regular file"):
        await _checkpoint(node, id, tmp_path)
    with pytest.raises(FailedPrecondition, match="does not exist"):
        await _checkpoint(node, id, tmp_path / "absent/checkpoint.tar")
    with pytest.raises(InvalidArgument, match="timeout"):
        await _checkpoint(node, id, tmp_path / "checkpoint.tar", -1)
    assert list(tmp_path.iterdir()) == []


async def test_only_what_runs_can_be_checkpointed(node: Node, tmp_path: Path) -> None:
    client = Client(node)
    pod, id = await _running(node)
    created = await client.create(pod, "created")
    with pytest.raises(FailedPrecondition, match="created: only a running one"):
        await _checkpoint(node, created, tmp_path / "a.tar")
    await client.stop(id)
    with pytest.raises(FailedPrecondition, match="exited: only a running one"):
        await _checkpoint(node, id, tmp_path / "a.tar")
    with pytest.raises(NotFound):
        await _checkpoint(node, "0" * 64, tmp_path / "a.tar")


async def test_an_archive_has_containerds_layout_and_is_for_its_owner(node: Node, tmp_path: Path) -> None:
    _, id = await _running(node)
    archive = tmp_path / "checkpoint.tar"
    archive.write_text("another one")
    await _checkpoint(node, id, archive)
    assert (await node.status(id)).state == cri.CONTAINER_RUNNING
    assert archive.stat().st_mode & 0o7777 == 0o600
    with tarfile.open(archive) as tar:
        assert {"config.dump", "spec.dump", "status.dump", "status", "checkpoint"} <= set(tar.getnames())
        assert {entry.mode for entry in tar if entry.isreg()} == {0o600}

        def document(name: str) -> object:
            stream = tar.extractfile(name)
            assert stream is not None
            return json.load(stream)

        status = await node.status(id)
        config = document("config.dump")
        assert isinstance(config, dict)
        assert (config["id"], config["name"]) == (id, "main")
        assert (config["rootfsImage"], config["rootfsImageRef"]) == (status.image.image, status.image_ref)
        assert config["restored"] is False
        told = document("status.dump")
        assert isinstance(told, dict)
        assert (told["id"], told["started_at"], told["state"]) == (id, status.started_at, 1)
        own = document("status")
        assert isinstance(own, dict)
        assert (own["Version"], own["CreatedAt"]) == ("v1", status.created_at)


async def test_a_checkpoint_that_takes_too_long_leaves_nothing(node: Node, tmp_path: Path) -> None:
    _, id = await _running(node)
    gate = node.points.gates["checkpoint_container.archive"] = asyncio.Event()
    call = asyncio.ensure_future(_checkpoint(node, id, tmp_path / "a.tar", 5))
    await node.clock.advance(4.9)
    assert not call.done()
    await node.clock.advance(0.2)
    with pytest.raises(DeadlineExceeded, match="not checkpointed within 5 s"):
        await call
    gate.set()
    await until(lambda: not node.ground.checkpoints)
    assert list(tmp_path.iterdir()) == []
    assert (await node.status(id)).state == cri.CONTAINER_RUNNING
    await _checkpoint(node, id, tmp_path / "a.tar", 5)


@pytest.mark.parametrize("act", ["stop", "remove"])
async def test_a_container_that_is_killed_does_not_wait_for_its_checkpoint(
    node: Node, tmp_path: Path, act: str
) -> None:
    client = Client(node)
    _, id = await _running(node)
    node.points.gates["checkpoint_container.archive"] = asyncio.Event()
    call = asyncio.ensure_future(_checkpoint(node, id, tmp_path / "a.tar"))
    await until(lambda: node.ground.checkpoints)
    await getattr(client, act)(id)
    with pytest.raises(FailedPrecondition, match="ended before its checkpoint"):
        await call
    assert list(tmp_path.iterdir()) == []


async def test_two_checkpoints_of_one_container_are_made_one_after_the_other(
    node: Node, tmp_path: Path
) -> None:
    _, id = await _running(node)
    gate = node.points.gates["checkpoint_container.dump"] = asyncio.Event()
    calls = [asyncio.ensure_future(_checkpoint(node, id, tmp_path / name)) for name in ("a.tar", "b.tar")]
    await until(lambda: node.points.passed.count("checkpoint_container.dump"))
    gate.set()
    await asyncio.gather(*calls)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tar", "b.tar"]


async def test_a_restored_container_is_the_requests_and_goes_on_where_it_was(
    node: Node, tmp_path: Path
) -> None:
    pod, id = await _running(node, "sleep", "100")
    await node.clock.advance(70)
    await _checkpoint(node, id, tmp_path / "a.tar")
    await node.clock.advance(1)
    restored = await _restore(node, pod, tmp_path / "a.tar", labels={"new": "yes"})
    status = await node.status(restored)
    assert (status.state, dict(status.labels)) == (cri.CONTAINER_CREATED, {"new": "yes"})
    assert status.image_ref == (await node.status(id)).image_ref
    await Client(node).start(restored)
    await node.clock.advance(29)
    assert (await node.status(restored)).state == cri.CONTAINER_RUNNING
    await node.clock.advance(2)
    assert (await node.status(restored)).state == cri.CONTAINER_EXITED


async def test_the_image_of_a_restored_container_is_its_base_and_no_archive(
    node: Node, tmp_path: Path
) -> None:
    pod, id = await _running(node)
    base = await node.status(id)
    archive = str(tmp_path / "a.tar")
    await _checkpoint(node, id, archive)
    request = node.container_request(pod, "restored")
    request.config.image.image = request.config.image.user_specified_image = archive
    restored = (await node.runtime.create_container(request)).container_id
    await Client(node).start(restored)
    listed = (await node.runtime.list_containers(cri.ListContainersRequest())).containers
    (item,) = [each for each in listed if each.id == restored]
    expected = base.image.image
    for image in ((await node.status(restored)).image, item.image):
        assert (image.image, image.user_specified_image) == (expected, expected)
    told = await node.runtime.list_pod_sandbox_metrics(cri.ListPodSandboxMetricsRequest())
    (part,) = [
        each for pod in told.pod_metrics for each in pod.container_metrics if each.container_id == restored
    ]
    assert expected in part.metrics[0].label_values
    record = node.runtime._ground.records.containers.get(restored)
    record.image = replace(record.image, repo_tags=())
    assert image_shown(record).image == base.image_ref


async def test_a_restored_container_has_the_files_that_it_had_written(node: Node, tmp_path: Path) -> None:
    pod, id = await _running(node, "sh", "-c", "echo 7 >/tmp/number; sleep 1000")
    await node.clock.advance(1)
    await _checkpoint(node, id, tmp_path / "a.tar")
    restored = await _restore(node, pod, tmp_path / "a.tar")
    await Client(node).start(restored)
    request = cri.ExecSyncRequest(container_id=restored, cmd=["cat", "/tmp/number"])
    assert (await node.runtime.exec_sync(request)).stdout == b"7\n"


async def test_a_checkpoint_whose_base_image_is_gone_says_what_to_pull(node: Node, tmp_path: Path) -> None:
    pod, id = await _running(node)
    await _checkpoint(node, id, tmp_path / "a.tar")
    await node.runtime.remove_image(cri.RemoveImageRequest(image=cri.ImageSpec(image=IMAGE)))
    with pytest.raises(NotFound, match=f"{IMAGE}.*pull it first"):
        await _restore(node, pod, tmp_path / "a.tar")


async def test_a_checkpoint_chooses_no_mount_of_the_host(node: Node, tmp_path: Path) -> None:
    client = Client(node)
    pod = await client.pod()
    request = node.container_request(pod, "main")
    request.config.mounts.add(host_path=str(tmp_path), container_path="/data")
    id = (await node.runtime.create_container(request)).container_id
    await client.start(id)
    await _checkpoint(node, id, tmp_path / "a.tar")
    with pytest.raises(InvalidArgument, match="expects mounts that the request lacks: /data") as caught:
        await _restore(node, pod, tmp_path / "a.tar")
    assert caught.value.field == "config.mounts"
    mount = cri.Mount(host_path=str(tmp_path), container_path="/data/")
    await client.start(await _restore(node, pod, tmp_path / "a.tar", mounts=[mount]))


async def test_what_is_no_checkpoint_is_refused(node: Node, tmp_path: Path) -> None:
    pod, _ = await _running(node)
    (tmp_path / "text").write_text("no archive")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(NotFound, match="there is no checkpoint"):
        await _restore(node, pod, tmp_path / "absent.tar")
    for name in ("text", "empty.tar"):
        with pytest.raises(InvalidArgument) as caught:
            await _restore(node, pod, tmp_path / name)
        assert caught.value.field == "config.image.image"


def test_mounts_that_every_container_has_are_not_missed() -> None:
    mounts = [
        *(DumpedMount("/proc", "proc"), DumpedMount("/dev/shm", "bind"), DumpedMount("/etc/hosts", "bind")),
        *(DumpedMount("/data", "bind"), DumpedMount("/cache", "bind"), DumpedMount("/scratch", "tmpfs")),
    ]
    checkpoint = Checkpoint("/a.tar", ConfigDump(), SpecDump(mounts))
    assert missing_mounts(checkpoint, [], []) == ["/data", "/cache"]
    assert missing_mounts(checkpoint, ["/data/"], {"/cache": {}}) == []
