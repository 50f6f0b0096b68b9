"""Checkpoints: a container written to an archive runs on, and runs again from it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import SLEEP, Client, Container, Pod, mount, rejected


def _pod(client: Client) -> Pod:
    # crun of Debian is built without CRIU.
    return client.pod(handler="runc" if client.server.engine == "oci" else "")


def _archive(client: Client, name: str) -> Path:
    return client.server.log_directory("checkpoints") / f"{name}.tar"


def _checkpoint(container: Container, location: Path | str, timeout: int = 0) -> None:
    request = cri.CheckpointContainerRequest(
        container_id=container.id, location=str(location), timeout=timeout
    )
    try:
        container.runtime.CheckpointContainer(request)
    except grpc.RpcError as error:
        caught: grpc.Call = error  # type: ignore[assignment]
        if caught.code() is StatusCode.FAILED_PRECONDITION and "criu" in caught.details():
            pytest.skip(caught.details())
        raise


def test_a_container_runs_on_after_its_checkpoint_and_again_from_it(client: Client) -> None:
    pod, archive = _pod(client), _archive(client, "main")
    container = pod.shell("echo kept >/tmp/word; exec sleep 2147483")
    container.sh("while [ ! -e /tmp/word ]; do sleep 0.1; done")
    _checkpoint(container, archive, timeout=60)
    assert container.status().state == cri.CONTAINER_RUNNING
    with tarfile.open(archive) as tar:
        assert {"config.dump", "spec.dump", "status.dump", "checkpoint"} <= set(tar.getnames())
    container.remove()

    config = pod.container_config(*SLEEP, name="again", labels={"new": "yes"}, annotations={"a": "b"})
    config.image.image = str(archive)
    again = pod.create(config=config)
    status = again.status()
    assert (status.state, dict(status.labels)) == (cri.CONTAINER_CREATED, {"new": "yes"})
    assert status.metadata.name == "again" and dict(status.annotations) == {"a": "b"}
    assert status.image_id == container_image(client), "the image is the one that the container was made of"
    again.start()
    assert again.status().state == cri.CONTAINER_RUNNING
    assert again.sh("cat /tmp/word") == "kept"
    again.stop()
    assert (again.status().state, again.status().exit_code) == (cri.CONTAINER_EXITED, 137)


def container_image(client: Client) -> str:
    request = cri.ImageStatusRequest(image=client.image())
    return str(client.images.ImageStatus(request).image.id)


def test_a_restore_needs_the_mounts_that_the_container_had(client: Client) -> None:
    pod, archive = _pod(client), _archive(client, "mounts")
    data = client.server.log_directory("data")
    _checkpoint(pod.run(mounts=[mount(data, "/data")]), archive)
    config = pod.container_config(name="again")
    config.image.image = str(archive)
    with rejected(StatusCode.INVALID_ARGUMENT, "expects mounts that the request lacks: /data"):
        pod.create(config=config)
    config.mounts.append(mount(data, "/data"))
    again = pod.create(config=config)
    again.start()
    assert again.status().state == cri.CONTAINER_RUNNING


def test_a_restored_container_that_waits_can_be_stopped_with_its_pod(client: Client) -> None:
    pod, archive = _pod(client), _archive(client, "waits")
    _checkpoint(pod.run(), archive)
    config = pod.container_config(name="again")
    config.image.image = str(archive)
    again = pod.create(config=config)
    client.server.crash()
    client.server.start()
    assert again.status().state == cri.CONTAINER_CREATED, "it waits also for the next server"
    pod.stop()
    assert again.status().state == cri.CONTAINER_EXITED


def test_what_cannot_be_checkpointed_is_refused(client: Client) -> None:
    pod, archive = client.pod(), _archive(client, "refused")
    created = pod.create(*SLEEP)
    with rejected(StatusCode.FAILED_PRECONDITION, "only a running one"):
        _checkpoint(created, archive)
    created.start()
    for location in ("", "relative.tar", str(archive.parent)):
        with rejected(StatusCode.INVALID_ARGUMENT, "location"):
            _checkpoint(created, location)
    with rejected(StatusCode.INVALID_ARGUMENT, "timeout"):
        _checkpoint(created, archive, timeout=-1)
    with rejected(StatusCode.NOT_FOUND):
        client.runtime.CheckpointContainer(
            cri.CheckpointContainerRequest(container_id="0" * 64, location=str(archive))
        )
    assert not archive.exists()


def test_what_is_no_checkpoint_is_not_restored(client: Client) -> None:
    pod, archive = client.pod(), _archive(client, "none")
    config = pod.container_config(name="again")
    config.image.image = str(archive)
    with rejected(StatusCode.NOT_FOUND, "there is no checkpoint"):
        pod.create(config=config)
    archive.write_text("no archive" * 100)
    archive.chmod(0o644)
    with rejected(StatusCode.INVALID_ARGUMENT, "no tar archive"):
        pod.create(config=config)
