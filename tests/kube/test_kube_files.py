"""The files of a pod: volumes with their owners, sub-paths that stay inside, hosts; and their removal."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podwright.errors import FailedPrecondition
from podwright.kube import manifest
from podwright.kube import old_hosts as hosts
from podwright.kube import old_translate as translate
from podwright.kube import old_volumes as volumes
from podwright.kube.manifest import Manifest
from podwright.kube.old_directory import PodDirectory
from podwright.kube.old_translate import Host
from podwright.linux import mounts
from podwright.wire import cri_pb2 as cri

pytestmark = pytest.mark.root

HOST = Host(memory=1 << 30)


def pod(volume: dict[str, Any], *volume_mounts: dict[str, Any], **spec: Any) -> Manifest:
    mounted = [{"name": "v", "mountPath": f"/m{n}", **one} for n, one in enumerate(volume_mounts)]
    container = {"name": "c", "image": "x:1", "volumeMounts": mounted}
    return manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"volumes": [{"name": "v", **volume}], "containers": [container], **spec},
        }
    )


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[PodDirectory]:
    directory = PodDirectory.of(tmp_path, "default", "p", "uid")
    yield directory
    volumes.remove(directory)
    assert not directory.path.exists()
    assert not mounts.mounts_below(tmp_path)


def mount_all(made: Manifest, directory: PodDirectory, **variables: str) -> list[cri.Mount]:
    volumes.make(made, directory, HOST)
    return volumes.container_mounts(made, made.containers[0], directory, HOST, variables, 0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_empty_dir_may_be_written_by_everybody(directory: PodDirectory) -> None:
    (mount, message) = mount_all(pod({"emptyDir": {}}, {}), directory)
    assert mode(Path(mount.host_path)) == 0o777
    assert not mounts.is_mounted(Path(mount.host_path))
    assert message.container_path == "/dev/termination-log" and mode(Path(message.host_path)) == 0o666


def test_fs_group_owns_an_empty_dir(directory: PodDirectory) -> None:
    (mount, _) = mount_all(pod({"emptyDir": {}}, {}, securityContext={"fsGroup": 2000}), directory)
    assert (Path(mount.host_path).stat().st_gid, mode(Path(mount.host_path))) == (2000, 0o2777)


def test_empty_dir_in_memory_has_its_limit(directory: PodDirectory) -> None:
    (mount, _) = mount_all(pod({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {}), directory)
    path = Path(mount.host_path)
    assert mounts.is_mounted(path) and mode(path) == 0o1777
    usage = os.statvfs(path)
    assert usage.f_blocks * usage.f_frsize == 1 << 20


@pytest.mark.parametrize(
    ("limit", "memory", "size"),
    [(None, None, 1 << 30), ("1Mi", None, 1 << 20), (None, "64Mi", 64 << 20), ("1Gi", "64Mi", 64 << 20)],
)
def test_memory_volumes_stay_within_what_the_pod_may_use(
    limit: str | None, memory: str | None, size: int
) -> None:
    made = pod({"emptyDir": {"medium": "Memory", "sizeLimit": limit}})
    if memory:
        made = manifest.from_dict(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p"},
                "spec": {
                    "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}],
                    "containers": [
                        {"name": "c", "image": "x:1", "resources": {"limits": {"memory": memory}}}
                    ],
                },
            }
        )
    assert volumes.memory_size(made, made.volume("v"), HOST) == size


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("", "nothing"),
        ("Directory", "directory"),
        ("DirectoryOrCreate", "directory"),
        ("DirectoryOrCreate", "nothing"),
        ("File", "file"),
        ("FileOrCreate", "file"),
        ("FileOrCreate", "nothing"),
        ("Socket", "socket"),
    ],
)
def test_host_paths_of_the_right_kind(directory: PodDirectory, tmp_path: Path, kind: str, there: str) -> None:
    path = tmp_path / "host"
    make(path, there)
    (mount, _) = mount_all(
        pod({"hostPath": {"path": str(path), "type": kind}}, {"readOnly": True}), directory
    )
    assert (mount.host_path, mount.readonly) == (str(path), True)
    if kind.endswith("OrCreate"):
        assert path.is_dir() if kind.startswith("Dir") else path.is_file()


@pytest.mark.parametrize(
    ("kind", "there", "what"),
    [
        ("Directory", "nothing", "a directory"),
        ("Directory", "file", "a directory"),
        ("DirectoryOrCreate", "file", "a directory"),
        ("File", "directory", "a file"),
        ("FileOrCreate", "directory", "a file"),
        ("Socket", "file", "a socket"),
        ("CharDevice", "file", "a character device"),
        ("BlockDevice", "file", "a block device"),
    ],
)
def test_host_paths_of_another_kind(
    directory: PodDirectory, tmp_path: Path, kind: str, there: str, what: str
) -> None:
    path = tmp_path / "host"
    make(path, there)
    with pytest.raises(FailedPrecondition, match=f"{path} is not {what}"):
        volumes.make(pod({"hostPath": {"path": str(path), "type": kind}}), directory, HOST)


def make(path: Path, what: str) -> None:
    if what == "directory":
        path.mkdir()
    elif what == "file":
        path.touch()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))


def test_a_sub_path_is_made_and_mounted_with_the_files_of_the_volume(directory: PodDirectory) -> None:
    made = pod({"emptyDir": {}}, {"subPath": "a/b"}, {"subPathExpr": "$(NAME)"})
    first, second, _ = mount_all(made, directory, NAME="x")
    base = directory.empty_dir("v")
    (base / "a/b/file").write_text("here")
    assert (Path(first.host_path) / "file").read_text() == "here"
    assert Path(second.host_path).stat().st_ino == (base / "x").stat().st_ino
    # The next attempt of the container finds it mounted already.
    again = volumes.container_mounts(made, made.containers[0], directory, HOST, {"NAME": "x"}, 1)
    assert again[0].host_path == first.host_path
    assert len(mounts.mounts_below(Path(first.host_path))) == 1


def test_a_sub_path_may_be_a_file(directory: PodDirectory) -> None:
    made = pod({"emptyDir": {}}, {"subPath": "conf"})
    volumes.make(made, directory, HOST)
    (directory.empty_dir("v") / "conf").write_text("text")
    (mount, _) = volumes.container_mounts(made, made.containers[0], directory, HOST, {}, 0)
    assert Path(mount.host_path).read_text() == "text"


def test_a_link_inside_the_volume_is_followed_one_that_leads_out_is_not(
    directory: PodDirectory, tmp_path: Path
) -> None:
    made = pod({"emptyDir": {}}, {"subPath": "link/below"})
    volumes.make(made, directory, HOST)
    base = directory.empty_dir("v")
    (base / "real").mkdir()
    (base / "link").symlink_to("real")
    (mount, _) = volumes.container_mounts(made, made.containers[0], directory, HOST, {}, 0)
    assert Path(mount.host_path).stat().st_ino == (base / "real/below").stat().st_ino
    (base / "link").unlink()
    (base / "link").symlink_to(tmp_path)
    with pytest.raises(FailedPrecondition, match="'link/below' leads out of its volume"):
        volumes.container_mounts(made, made.containers[0], directory, HOST, {}, 1)
    assert not (tmp_path / "below").exists()


def test_removal_never_goes_through_a_mount(directory: PodDirectory, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    made = pod({"hostPath": {"path": str(precious)}}, {"subPath": "."}, {"subPath": "deep"})
    mount_all(made, directory)
    volumes.remove(directory)
    assert (precious / "file").exists() and (precious / "deep").exists()


def test_a_missing_pod_directory_is_removed_already(tmp_path: Path) -> None:
    volumes.remove(PodDirectory.of(tmp_path, "default", "p", "uid"))


def test_hosts_has_the_full_name_and_the_aliases() -> None:
    made = pod(
        {"emptyDir": {}}, hostname="db-0", subdomain="pods",
        hostAliases=[{"ip": "10.1.2.3", "hostnames": ["foo.test", "bar.test"]}],
    )  # fmt: skip
    lines = hosts.content(made, ["10.0.0.7", "fd00::7"], "").splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.0.0.7\tdb-0.pods.default.svc.cluster.local\tdb-0" in lines
    assert "fd00::7\tdb-0.pods.default.svc.cluster.local\tdb-0" in lines
    assert lines[-1] == "10.1.2.3\tfoo.test\tbar.test"


def test_hosts_on_the_hosts_network_continues_the_hosts_file() -> None:
    aliases = [{"ip": "10.1.2.3", "hostnames": ["foo.test"]}]
    made = pod({"emptyDir": {}}, hostNetwork=True, hostAliases=aliases)
    assert hosts.content(made, [], "127.0.0.1 here\n").splitlines()[1:] == [
        "127.0.0.1 here", "", "# hostAliases", "10.1.2.3\tfoo.test",
    ]  # fmt: skip


def test_a_pod_without_names_of_its_own_needs_no_hosts_file() -> None:
    assert not hosts.needed(pod({"emptyDir": {}}))


def test_a_long_name_is_cut_to_a_host_name() -> None:
    made = manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a" * 62 + "." + "b" * 20},
            "spec": {"containers": [{"name": "c", "image": "x:1"}]},
        }
    )
    assert translate.hostname(made) == "a" * 62
