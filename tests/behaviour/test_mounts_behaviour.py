"""Volumes: sources, propagation, read-only ones, and the files that the sandbox brings."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, mount, rejected

PRIVATE = cri.PROPAGATION_PRIVATE
HOST_TO_CONTAINER = cri.PROPAGATION_HOST_TO_CONTAINER
BIDIRECTIONAL = cri.PROPAGATION_BIDIRECTIONAL


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory on a shared mount of its own; the root mount of this machine may be private."""
    folder = tmp_path / "shared"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "pwt", folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    (folder / "sub").mkdir()
    yield folder
    subprocess.run(["umount", "-R", "-l", folder], check=True)


def test_a_volume_is_the_hosts_directory(client: Client, outside: Path) -> None:
    container = client.pod().run(mounts=[mount(outside, "/data")])
    container.sh("echo inside > /data/file")
    assert (outside / "file").read_text() == "inside\n"


def test_a_volume_may_be_a_file(client: Client, outside: Path) -> None:
    (outside / "file").write_text("content")
    container = client.pod().run(mounts=[mount(outside / "file", "/etc/deep/file")])
    assert container.sh("cat /etc/deep/file") == "content"


def test_a_read_only_volume(client: Client, outside: Path) -> None:
    container = client.pod().run(mounts=[mount(outside, "/data", readonly=True)])
    assert container.exec("touch", "/data/file").code != 0


def test_a_missing_source_is_made_as_a_directory(client: Client, outside: Path) -> None:
    source = outside / "not" / "there"
    client.pod().run(mounts=[mount(source, "/data")])
    assert source.is_dir() and source.stat().st_mode & 0o777 == 0o755


def test_a_source_that_is_a_link_is_followed(client: Client, outside: Path) -> None:
    (outside / "real").mkdir()
    (outside / "real/file").write_text("followed")
    (outside / "link").symlink_to(outside / "real")
    container = client.pod().run(mounts=[mount(outside / "link", "/data")])
    assert container.sh("cat /data/file") == "followed"


def test_nested_volumes_are_mounted_outer_first(client: Client, outside: Path) -> None:
    outer, inner = outside / "outer", outside / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "file").write_text("inner")
    container = client.pod().run(mounts=[mount(inner, "/data/in/side"), mount(outer, "/data")])
    assert container.sh("cat /data/in/side/file") == "inner"


@pytest.mark.kernel
def test_private_volumes_see_no_later_mounts(client: Client, shared: Path) -> None:
    container = client.pod().run(mounts=[mount(shared, "/data", propagation=PRIVATE)])
    subprocess.run(["mount", "-t", "tmpfs", "pwt", shared / "sub"], check=True)
    (shared / "sub/late").touch()
    assert container.exec("ls", "/data/sub/late").code != 0


@pytest.mark.kernel
def test_host_to_container_volumes_see_later_mounts(client: Client, shared: Path) -> None:
    container = client.pod(privileged=True).run(
        privileged=True, mounts=[mount(shared, "/data", propagation=HOST_TO_CONTAINER)]
    )
    subprocess.run(["mount", "-t", "tmpfs", "pwt", shared / "sub"], check=True)
    (shared / "sub/late").touch()
    assert container.exec("ls", "/data/sub/late").code == 0
    container.sh("mkdir /data/own; mount -t tmpfs pwt /data/own; touch /data/own/file")
    assert not (shared / "own/file").exists()


@pytest.mark.kernel
def test_bidirectional_volumes_pass_mounts_both_ways(client: Client, shared: Path) -> None:
    container = client.pod(privileged=True).run(
        privileged=True, mounts=[mount(shared, "/data", propagation=BIDIRECTIONAL)]
    )
    subprocess.run(["mount", "-t", "tmpfs", "pwt", shared / "sub"], check=True)
    (shared / "sub/late").touch()
    assert container.exec("ls", "/data/sub/late").code == 0
    container.sh("mkdir /data/own; mount -t tmpfs pwt /data/own; touch /data/own/file")
    assert (shared / "own/file").exists()


@pytest.mark.kernel
@pytest.mark.parametrize("propagation", [HOST_TO_CONTAINER, BIDIRECTIONAL])
def test_propagation_from_a_private_mount_is_refused(client: Client, shared: Path, propagation: int) -> None:
    subprocess.run(["mount", "--make-private", shared], check=True)
    with rejected(StatusCode.FAILED_PRECONDITION, str(shared)):
        client.pod(privileged=True).create(
            "/bin/true", privileged=True, mounts=[mount(shared, "/data", propagation=propagation)]
        )


@pytest.mark.kernel
def test_system_files_of_the_request_replace_the_sandboxes(client: Client, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.1 mine\n")
    container = client.pod().run(mounts=[mount(hosts, "/etc/hosts"), mount(tmp_path, "/dev/shm/")])
    assert container.exec("cat", "/etc/hosts").out == "10.0.0.1 mine\n"
    assert container.sh("ls /dev/shm") == "hosts"
    rows = container.sh("cat /proc/self/mounts").splitlines()
    assert sum(" /etc/hosts " in row for row in rows) == 1
    assert sum(" /dev/shm " in row for row in rows) == 1


@pytest.mark.kernel
def test_system_files_can_be_written_unless_root_is_read_only(client: Client) -> None:
    pod = client.pod()
    one, two = pod.run(), pod.run(security={"readonly_rootfs": True})
    one.sh("echo 10.9.9.9 added >> /etc/hosts")
    assert "added" in two.sh("cat /etc/hosts")
    for file in ("hosts", "hostname", "resolv.conf"):
        assert two.exec("/bin/sh", "-c", f"echo x >> /etc/{file}").code != 0


@pytest.mark.kernel
def test_image_volumes_keep_their_content(client: Client, tmp_path: Path) -> None:
    container = client.pod().run(image="volume")
    assert any(" /home/app " in row for row in container.sh("cat /proc/self/mounts").splitlines())
    container.sh("touch /home/app/file")
    (tmp_path / "mine").touch()
    covered = client.pod().run(image="volume", mounts=[mount(tmp_path, "/home/app")])
    assert covered.sh("ls /home/app") == "mine"


def test_statuses_tell_which_image_a_volume_is(client: Client) -> None:
    asked = client.image("entry")
    asked.image_ref = "sha256:of-nothing"
    mounted = cri.Mount(container_path="/image", image=asked, readonly=True)
    [shown] = client.pod().run(mounts=[mounted]).status().mounts
    assert (shown.image.image, shown.image.image_ref) == (asked.image, client.registry.ids["entry"])


def test_recursive_read_only_is_honest(client: Client, outside: Path) -> None:
    pod = client.pod()
    wrong = mount(outside, "/data", recursive_read_only=True)
    with rejected(StatusCode.INVALID_ARGUMENT, "recursive_read_only"):
        pod.create("/bin/true", mounts=[wrong])
    wrong = mount(outside, "/data", recursive_read_only=True, readonly=True, propagation=HOST_TO_CONTAINER)
    with rejected(StatusCode.INVALID_ARGUMENT, "recursive_read_only"):
        pod.create("/bin/true", mounts=[wrong])


def test_a_relative_container_path_is_refused(client: Client, outside: Path) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "container_path"):
        client.pod().create("/bin/true", mounts=[mount(outside, "")])
