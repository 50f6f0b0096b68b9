"""Volumes on this machine: what the kubelet's recordings do not show of them, and their removal."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright.errors import FailedPrecondition
from podwright.kube import volumes
from podwright.kube.failures import ConfigError, MountError
from podwright.kube.files import hosts
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import Objects, Secret
from podwright.kube.models import ResourceRequirements
from podwright.kube.node import Node
from podwright.kube.volumes import empty_dir, fsgroup, removal, subpath
from podwright.linux import mounts
from podwright.wire import cri_pb2 as cri
from tests.kube.volume_pods import FACTS, UID, node, pod, with_data

pytestmark = pytest.mark.root


@pytest.fixture
def here(tmp_path: Path) -> Node:
    return node(tmp_path / "root")


@pytest.fixture
def directory(here: Node, tmp_path: Path) -> Iterator[PodDirectory]:
    directory = PodDirectory.of(here, "default", "p", UID)
    yield directory
    volumes.remove(directory)
    assert not directory.path.exists() and not directory.logs_root.exists()
    assert graves(here) == []
    assert not mounts.mounts_below(tmp_path)


def mount_all(
    made: Manifest,
    here: Node,
    directory: PodDirectory,
    bindings: dict[str, Path] | None = None,
    **variables: str,
) -> list[cri.Mount]:
    volumes.make(made, here, FACTS, directory, bindings=bindings or {})
    return volumes.container_mounts(
        made, made.containers[0], here, FACTS, directory, variables, bindings=bindings or {}
    )


def graves(here: Node) -> list[Path]:
    """What is left of removals."""
    return list((here.root / removal.GRAVES).glob("*"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def config(**more: Any) -> dict[str, Any]:
    return {"name": "v", "configMap": {"name": "cm", **more}}


# Empty directories


def test_what_a_container_did_to_its_volume_stays(here: Node, directory: PodDirectory) -> None:
    made = pod([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}])
    found = [Path(one.host_path) for one in mount_all(made, here, directory)[:2]]
    for path in found:
        path.chmod(0o700)
        (path / "kept").write_text("x")
    assert [mounts.is_mounted(one) for one in found] == [False, True]
    volumes.make(made, here, FACTS, directory)
    for path in found:
        assert mode(path) == 0o700 and (path / "kept").exists()
    assert len(mounts.mounts_below(found[1])) == 1


def test_memory_that_is_gone_comes_back(here: Node, directory: PodDirectory) -> None:
    """As after the host has started anew."""
    made = pod([{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])
    path = Path(mount_all(made, here, directory)[0].host_path)
    mounts.unmount(path)
    volumes.make(made, here, FACTS, directory)
    assert mounts.is_mounted(path)
    assert os.statvfs(path).f_blocks * os.statvfs(path).f_frsize == 1 << 20


LIMITED = {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}


@pytest.mark.parametrize(
    ("limit", "resources", "size"),
    [
        (None, None, 1 << 30),
        ("16Mi", None, 16 << 20),
        ("2Gi", None, 1 << 30),
        ("0", None, 1 << 30),
        (None, LIMITED, 64 << 20),
        ("65Mi", LIMITED, 64 << 20),
        ("63Mi", LIMITED, 63 << 20),
    ],
)
def test_memory_is_within_what_the_pod_may_use(
    here: Node, limit: str | None, resources: Any, size: int
) -> None:
    made = pod([])
    made.containers[0].resources = ResourceRequirements(**(resources or {}))
    assert empty_dir.memory_size(made, replace(here, allocatable_memory=1 << 30), limit) == size


@pytest.mark.parametrize(
    ("medium", "requests", "fault"),
    [
        ("HugePages-2Mi", {}, "no resource request for huge pages"),
        ("HugePages-1Gi", {"hugepages-2Mi": "4Mi"}, "no resource request for huge pages"),
        ("HugePages", {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}, "multiple huge page sizes"),
        ("Tape", {}, 'unknown storage medium "Tape"'),
    ],
)
def test_media_that_cannot_be(
    here: Node, directory: PodDirectory, medium: str, requests: dict[str, str], fault: str
) -> None:
    made = pod([{"name": "v", "emptyDir": {"medium": medium}}])
    made.containers[0].resources = ResourceRequirements(requests=requests)
    with pytest.raises(MountError, match=fault):
        volumes.make(made, here, FACTS, directory)


# Files of ConfigMaps, Secrets and fields


def test_files_follow_their_config_map_and_subpaths_do_not(here: Node, directory: PodDirectory) -> None:
    mounted = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/f", "subPath": "key"}]
    first = with_data(pod([config()], mounted), cm={"key": "1", "other": "1"})
    whole, part = mount_all(first, here, directory)[:2]
    volumes.refresh(with_data(first, cm={"key": "2"}), here, FACTS, directory)
    assert (Path(whole.host_path) / "key").read_text() == "2"
    assert not os.path.lexists(Path(whole.host_path) / "other")
    assert Path(part.host_path).read_text() == "1"
    # A container that is created now gets what is there now.
    again = volumes.container_mounts(first, first.containers[0], here, FACTS, directory, {})[1]
    assert again.host_path == part.host_path and Path(again.host_path).read_text() == "2"


def test_a_config_map_that_is_gone_leaves_the_files(here: Node, directory: PodDirectory) -> None:
    first = with_data(pod([config()]), cm={"key": "1"})
    path = Path(mount_all(first, here, directory)[0].host_path)
    with pytest.raises(MountError, match='configmap "cm" not found'):
        volumes.refresh(with_data(first), here, FACTS, directory)
    assert (path / "key").read_text() == "1"
    optional = with_data(pod([config(optional=True)]))
    volumes.refresh(optional, here, FACTS, directory)
    assert not (path / "key").exists()


def test_an_optional_key_that_is_missing_has_no_file(here: Node, directory: PodDirectory) -> None:
    items = [{"key": "key", "path": "x"}, {"key": "no", "path": "y"}]
    made = with_data(pod([config(items=items, optional=True)]), cm={"key": "1"})
    path = Path(mount_all(made, here, directory)[0].host_path)
    assert {one.name for one in path.iterdir() if not one.name.startswith("..")} == {"x"}


def test_refresh_leaves_other_volumes_alone(here: Node, directory: PodDirectory) -> None:
    made = with_data(pod([config(), {"name": "e", "emptyDir": {}}]), cm={"key": "1"})
    volumes.refresh(made, here, FACTS, directory)
    assert not directory.volume("empty-dir", "e").exists()
    assert (directory.volume("configmap", "v") / "key").exists()


@pytest.mark.parametrize(
    ("volume", "fault"),
    [
        (config(items=[{"key": "no", "path": "x"}]), ": configmap references non-existent config key: no"),
        (config(items=[{"key": "key", "path": "../x"}]), r"must not contain '\.\.'"),
        ({"name": "v", "secret": {"secretName": "s"}}, 'secret "s" not found'),
        (
            {"name": "v", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.no"}}]}},
            "spec.no",
        ),
        (
            {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            "failed to fetch token: there is no API server",
        ),
        (
            {"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}},
            "clusterTrustBundle cannot be had",
        ),
        (
            {
                "name": "v",
                "projected": {"sources": [{"secret": {"name": "a"}}, {"configMap": {"name": "b"}}]},
            },
            r'\[secret "a" not found, configmap "b" not found\]',
        ),
        ({"name": "v", "nfs": {"server": "s", "path": "/"}}, "nothing here provides such volumes"),
    ],
)
def test_a_volume_that_cannot_be_made_is_named_with_the_reason(
    here: Node, directory: PodDirectory, volume: dict[str, Any], fault: str
) -> None:
    made = with_data(pod([volume, {"name": "e", "emptyDir": {}}]), cm={"key": "1"})
    with pytest.raises(MountError, match=fault) as failed:
        volumes.make(made, here, FACTS, directory)
    assert failed.value.message.startswith('MountVolume.SetUp failed for volume "v" : ')
    # The others are there all the same.
    assert directory.volume("empty-dir", "e").is_dir()


def test_a_volume_that_nobody_mounts_is_not_made(here: Node, directory: PodDirectory) -> None:
    made = pod([{"name": "v", "configMap": {"name": "nowhere"}}], [])
    volumes.make(made, here, FACTS, directory)
    assert list(directory.volumes.iterdir()) == []


@pytest.mark.parametrize(
    ("context", "expected"),
    [({}, (0o440, 0, 0)), ({"runAsUser": 7}, (0o600, 7, 0)), ({"fsGroup": 9}, (0o640, 0, 9))],
)
def test_a_token_that_was_brought_along_is_its_owner_s(
    here: Node, directory: PodDirectory, context: dict[str, int], expected: tuple[int, int, int]
) -> None:
    source = {"sources": [{"serviceAccountToken": {"path": "token"}}], "defaultMode": 0o440}
    made = pod([{"name": "v", "projected": source}], securityContext=context)
    kind = "kubernetes.io/service-account-token"
    secrets = {
        ("default", "a"): Secret("default", "a", {"token": b"another's"}, kind, "other"),
        ("default", "b"): Secret("default", "b", {"token": b"T"}, kind, "default"),
    }
    made = replace(made, objects=Objects(secrets=secrets))
    path = Path(mount_all(made, here, directory)[0].host_path) / "token"
    assert path.read_bytes() == b"T"
    found = path.stat()
    assert (mode(path), found.st_uid, found.st_gid) == expected


# Host paths and bound directories


@pytest.mark.parametrize(
    ("kind", "what"), [("DirectoryOrCreate", stat.S_ISDIR), ("FileOrCreate", stat.S_ISREG)]
)
def test_host_paths_are_made_whatever_the_umask(
    here: Node, directory: PodDirectory, tmp_path: Path, kind: str, what: Any
) -> None:
    place = tmp_path / "deep" / "made" if kind.startswith("D") else tmp_path / "made"
    made = pod([{"name": "v", "hostPath": {"path": str(place), "type": kind}}])
    before = os.umask(0o077)
    try:
        volumes.make(made, here, FACTS, directory)
    finally:
        os.umask(before)
    assert what(place.stat().st_mode)
    assert mode(place) == (0o755 if kind.startswith("D") else 0o644)
    volumes.remove(directory)
    assert place.exists()


@pytest.mark.parametrize(
    ("kind", "there", "what"),
    [
        ("File", "directory", "file"),
        ("Socket", "file", "socket file"),
        ("CharDevice", "file", "character device"),
        ("BlockDevice", "nothing", "block device"),
        ("DirectoryOrCreate", "file", "directory"),
        ("FileOrCreate", "directory", "file"),
    ],
)
def test_host_paths_of_another_kind(
    here: Node, directory: PodDirectory, tmp_path: Path, kind: str, there: str, what: str
) -> None:
    place = tmp_path / "place"
    if there == "directory":
        place.mkdir()
    elif there == "file":
        place.touch()
    made = pod([{"name": "v", "hostPath": {"path": str(place), "type": kind}}])
    with pytest.raises(MountError, match=f"hostPath type check failed: {place} is not a {what}$"):
        volumes.make(made, here, FACTS, directory)


def test_a_claim_can_be_bound_to_a_directory(here: Node, directory: PodDirectory, tmp_path: Path) -> None:
    place = tmp_path / "data"
    (place / "below").mkdir(parents=True)
    (place / "below" / "file").write_text("x")
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    made = pod([claim], securityContext={"fsGroup": 2000})
    (mount, *_) = mount_all(made, here, directory, {"v": place})
    assert (mount.host_path, mount.readonly) == (str(place), False)
    assert (place / "below" / "file").stat().st_gid == 2000
    assert mode(place / "below") & 0o2070 == 0o2070
    with pytest.raises(MountError, match="persistentVolumeClaim: nothing here provides"):
        volumes.make(made, here, FACTS, directory)
    with pytest.raises(MountError, match="which is bound to it, does not exist"):
        volumes.make(made, here, FACTS, directory, bindings={"v": tmp_path / "none"})


def test_on_root_mismatch_only_the_top_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "f").write_text("x")
    (tmp_path / "d" / "link").symlink_to("/etc/passwd")
    before = Path("/etc/passwd").stat()
    fsgroup.apply(tmp_path / "d", 2000, only_on_mismatch=True)
    assert (mode(tmp_path / "d"), mode(tmp_path / "d" / "f")) == (0o2770, 0o664)
    (tmp_path / "d" / "f").chmod(0o600)
    fsgroup.apply(tmp_path / "d", 2000, only_on_mismatch=True)
    assert mode(tmp_path / "d" / "f") == 0o600
    fsgroup.apply(tmp_path / "d", 2000)
    assert mode(tmp_path / "d" / "f") == 0o660
    # The top is right but for one bit.
    for lacking in (stat.S_ISGID, 0o010):
        (tmp_path / "d").chmod(0o2770 & ~lacking)
        (tmp_path / "d" / "f").chmod(0o600)
        fsgroup.apply(tmp_path / "d", 2000, only_on_mismatch=True)
        assert (mode(tmp_path / "d"), mode(tmp_path / "d" / "f")) == (0o2770, 0o660)
    after = Path("/etc/passwd").stat()
    assert (after.st_gid, after.st_mode) == (before.st_gid, before.st_mode)


# Parts of volumes


def sub(path: str, **more: Any) -> dict[str, Any]:
    return {"name": "v", "mountPath": "/m", "subPath": path, **more}


def test_a_sub_path_is_made_as_its_volume_is(here: Node, directory: PodDirectory) -> None:
    made = pod([{"name": "v", "emptyDir": {}}], [sub("a/b")], securityContext={"fsGroup": 2000})
    before = os.umask(0o077)
    try:
        (mount, *_) = mount_all(made, here, directory)
    finally:
        os.umask(before)
    volume = directory.volume("empty-dir", "v")
    assert Path(mount.host_path).samefile(volume / "a/b")
    for path in (volume / "a", volume / "a/b"):
        assert (mode(path), path.stat().st_gid) == (0o2777, 2000)
    (volume / "a/b/file").write_text("x")
    again = volumes.container_mounts(made, made.containers[0], here, FACTS, directory, {})[0]
    assert (Path(again.host_path) / "file").read_text() == "x"
    assert len(mounts.mounts_below(directory.path)) == 1


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (sub("/etc"), "error SubPath `/etc` must not be an absolute path"),
        (sub("a/../.."), "unable to provision SubPath `a/../..`: must not contain '..'"),
        ({**sub(""), "subPathExpr": "$(A)/$(C)/$(B)"}, "missing value for B, C"),
        ({**sub(""), "subPathExpr": "$(UP)"}, "unable to provision SubPath `..`: must not contain '..'"),
    ],
)
def test_sub_paths_that_are_none(
    here: Node, directory: PodDirectory, mount: dict[str, Any], message: str
) -> None:
    made = pod([{"name": "v", "emptyDir": {}}], [mount])
    with pytest.raises(ConfigError) as failed:
        mount_all(made, here, directory, A="a", C="", UP="..")
    assert failed.value.message == message


def test_a_link_inside_the_volume_is_followed_and_one_that_leads_out_is_not(
    here: Node, directory: PodDirectory, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("the host's")
    made = pod([{"name": "v", "emptyDir": {}}], [sub("link")])
    volumes.make(made, here, FACTS, directory)
    volume = directory.volume("empty-dir", "v")
    (volume / "file").write_text("inside")
    (volume / "link").symlink_to("file")
    mount = volumes.container_mounts(made, made.containers[0], here, FACTS, directory, {})[0]
    assert Path(mount.host_path).read_text() == "inside"
    for target in (tmp_path / "secret", tmp_path / "none", Path("../../../../.."), Path("link")):
        (volume / "link").unlink()
        (volume / "link").symlink_to(target)
        with pytest.raises(ConfigError) as failed:
            volumes.container_mounts(made, made.containers[0], here, FACTS, directory, {})
        assert failed.value.message in (
            'failed to create subPath directory for volumeMount "v" of container "c"',
            'failed to prepare subPath for volumeMount "v" of container "c"',
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("moment", ["resolved", "made"])
@pytest.mark.parametrize(
    ("below", "part"), [("a/secret", "a"), ("a/secret", "a/secret"), ("a/fresh/one", "a")]
)
def test_a_link_that_is_put_in_the_way_meanwhile_leads_nowhere(
    here: Node,
    directory: PodDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    below: str,
    part: str,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("the host's")
    made = pod([{"name": "v", "emptyDir": {}}], [sub(below)])
    volumes.make(made, here, FACTS, directory)
    volume = directory.volume("empty-dir", "v")
    (volume / "a").mkdir()
    (volume / "a" / "secret").write_text("inside")

    def swap() -> None:
        (volume / part).rename(volume / "old")
        (volume / part).symlink_to(outside if part == "a" else outside / "secret")

    def then_swapped(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            swap()
            return result

        return call

    step = {"resolved": "_inside", "made": "_make"}[moment]
    monkeypatch.setattr(subpath, step, then_swapped(getattr(subpath, step)))
    with pytest.raises(ConfigError, match="subPath"):
        volumes.container_mounts(made, made.containers[0], here, FACTS, directory, {})
    assert (volume / part).is_symlink()
    assert {one.name for one in outside.iterdir()} == {"secret"}
    assert not mounts.mounts_below(directory.path)


# Mounts


def test_planning_makes_nothing_and_says_the_same(here: Node, directory: PodDirectory) -> None:
    made = with_data(pod([config()], [sub("key"), {"name": "v", "mountPath": "rel"}]), cm={"key": "1"})
    container = made.containers[0]
    planned = volumes.planned_mounts(made, container, here, FACTS, directory, {})
    assert not directory.path.exists()
    found = mount_all(made, here, directory)
    assert found[:-1] == planned[:-1]
    assert [one.container_path for one in found] == ["/m", "/rel", "/etc/hosts", "/dev/termination-log"]
    message = Path(found[-1].host_path)
    assert mode(message) == 0o666 and message.parent == directory.messages("c")
    assert volumes.container_mounts(made, container, here, FACTS, directory, {})[-1].host_path != str(message)


def test_a_hosts_file_of_its_own_and_a_pod_without_an_address(here: Node, directory: PodDirectory) -> None:
    own = pod([{"name": "v", "emptyDir": {}}], [{"name": "v", "mountPath": "/etc/hosts"}])
    assert [one.container_path for one in mount_all(own, here, directory)] == [
        "/etc/hosts",
        "/dev/termination-log",
    ]
    other = pod([])
    found = volumes.container_mounts(other, other.containers[0], here, replace(FACTS, ips=()), directory, {})
    assert [one.container_path for one in found] == ["/dev/termination-log"]
    assert not directory.hosts.exists()


@pytest.mark.parametrize(
    ("mount", "able", "message"),
    [
        ({"recursiveReadOnly": "Enabled", "readOnly": True}, False, "it is not supported by the runtime"),
        ({"recursiveReadOnly": "Enabled"}, True, "it is not read-only"),
        (
            {"recursiveReadOnly": "IfPossible", "readOnly": True, "mountPropagation": "HostToContainer"},
            True,
            'it is not compatible with propagation "HostToContainer"',
        ),
    ],
)
def test_read_only_all_the_way_down_is_refused(
    here: Node, directory: PodDirectory, mount: dict[str, Any], able: bool, message: str
) -> None:
    made = pod([{"name": "v", "emptyDir": {}}], [{"name": "v", "mountPath": "/v", **mount}])
    place = here if able else replace(here, handlers={})
    with pytest.raises(ConfigError) as failed:
        volumes.planned_mounts(made, made.containers[0], place, FACTS, directory, {})
    assert failed.value.message == (
        "failed to resolve recursive read-only mode: "
        f'volume "v" requested recursive read-only mode, but {message}'
    )


def test_an_image_has_to_be_there_first(here: Node, directory: PodDirectory) -> None:
    made = pod([{"name": "v", "image": {"reference": "data:1"}}])
    with pytest.raises(ConfigError, match="its image has not been pulled"):
        mount_all(made, here, directory)
    planned = volumes.planned_mounts(made, made.containers[0], here, FACTS, directory, {})[0]
    assert (planned.image.image, planned.host_path, planned.readonly) == ("data:1", "", True)


def test_the_hosts_file_is_written_in_place(here: Node, directory: PodDirectory) -> None:
    made = pod([], hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a", "b"]}, {"ip": "10.0.0.2"}])
    before = os.umask(0o077)
    try:
        hosts.write(made, here, FACTS, directory)
    finally:
        os.umask(before)
    assert mode(directory.hosts) == 0o644
    inode = directory.hosts.stat().st_ino
    directory.hosts.write_text("x" * 10000)
    hosts.write(made, here, replace(FACTS, ips=("10.1.2.4", "fd00::4")), directory)
    assert directory.hosts.stat().st_ino == inode
    text = directory.hosts.read_text()
    assert "10.1.2.4\tp\nfd00::4\tp\n\n# Entries added by HostAliases.\n10.0.0.1\ta\tb\n10.0.0.2\t\n" in text
    assert "x" * 10 not in text
    on_host = pod([], hostNetwork=True, hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a"]}])
    assert hosts.content(on_host, here, FACTS, b"1.2.3.4 host\n") == (
        b"# Kubernetes-managed hosts file (host network).\n1.2.3.4 host\n"
        b"\n# Entries added by HostAliases.\n10.0.0.1\ta\n"
    )


@pytest.mark.parametrize("volume", [
    {"name": "v", "emptyDir": {"medium": "Memory"}},
    {"name": "v", "secret": {"secretName": "s"}},
])  # fmt: skip
def test_who_is_not_root_gets_plain_directories(
    here: Node, directory: PodDirectory, monkeypatch: pytest.MonkeyPatch, volume: dict[str, Any]
) -> None:
    def refused(*arguments: Any, **named: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    made = pod([volume], securityContext={"fsGroup": 2000, "runAsUser": 7})
    made = replace(made, objects=Objects(secrets={("default", "s"): Secret("default", "s", {"k": b"v"})}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        for name in ("chown", "fchown"):
            patch.setattr(os, name, refused)
        patch.setattr("podwright.linux.syscalls.mount", refused)
        (mount, *_) = mount_all(made, here, directory)
    assert Path(mount.host_path).is_dir() and not mounts.is_mounted(Path(mount.host_path))


def test_a_bound_volume_does_not_keep_others_from_being_refreshed(
    here: Node, directory: PodDirectory, tmp_path: Path
) -> None:
    claim = {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}
    first = with_data(pod([claim, config()]), cm={"key": "1"})
    mount = mount_all(first, here, directory, {"c": tmp_path})[1]
    volumes.refresh(with_data(first, cm={"key": "2"}), here, FACTS, directory)
    assert (Path(mount.host_path) / "key").read_text() == "2"


# Removal


def test_removal_never_goes_through_a_mount(here: Node, directory: PodDirectory, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "precious").write_text("x")
    made = pod([{"name": "h", "hostPath": {"path": str(tmp_path / "host")}}], [
        {"name": "h", "mountPath": "/h", "subPath": "precious"},
    ])  # fmt: skip
    mount_all(made, here, directory)
    foreign = directory.path / "foreign"
    foreign.mkdir()
    mounts.bind(tmp_path / "host", foreign)
    volumes.remove(directory)
    assert (tmp_path / "host" / "precious").read_text() == "x"


def test_what_stays_mounted_keeps_the_files(
    here: Node, directory: PodDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pod([{"name": "m", "emptyDir": {"medium": "Memory"}}])
    mount_all(made, here, directory)
    with monkeypatch.context() as patch:
        patch.setattr(mounts, "unmount_below", lambda path: None)
        with pytest.raises(FailedPrecondition, match="is still mounted"):
            volumes.remove(directory)
    assert directory.volume("empty-dir", "m").is_dir()


def test_a_removal_that_was_cut_off_is_ended_by_the_next(
    here: Node, directory: PodDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_data(pod([config()]), cm={"key": "1"})
    mount_all(made, here, directory)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("podwright.kube.volumes.removal.trees.remove", killed)
        with pytest.raises(KeyboardInterrupt):
            volumes.remove(directory)
    # Nobody takes half a pod for one.
    assert not directory.path.exists()
    (grave,) = graves(here)
    assert (grave / "volumes").is_dir()
    other = PodDirectory.of(here, "default", "other", "other-uid")
    volumes.remove(other)
    assert graves(here) == []


def test_pods_may_be_removed_side_by_side(here: Node) -> None:
    directories = [PodDirectory.of(here, "default", f"p{number}", f"uid{number}") for number in range(8)]
    made = with_data(pod([config()]), cm={"key": "1"})
    for one in directories:
        volumes.make(made, here, FACTS, one)
    failures: list[BaseException] = []

    def remove(one: PodDirectory) -> None:
        try:
            volumes.remove(one)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=remove, args=(one,)) for one in directories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not any(one.path.exists() for one in directories)
    assert graves(here) == []


def test_a_discarded_pod_goes_with_its_logs_and_files_of_earlier_versions(here: Node, tmp_path: Path) -> None:
    directory = PodDirectory.of(here, "default", "p", UID)
    volumes.make(pod([{"name": "m", "emptyDir": {"medium": "Memory"}}]), here, FACTS, directory)
    old = here.root / "pods" / f"default_p_{UID}"
    (old / ".pod" / "volumes").mkdir(parents=True)
    metadata = cri.PodSandboxMetadata(namespace="default", name="p", uid=UID)
    volumes.discard(here.root, metadata)
    assert not directory.path.exists() and not directory.logs_root.exists() and not old.exists()
    for bad in ("..", ".", "a/../../..", ""):
        volumes.discard(here.root, cri.PodSandboxMetadata(namespace="default", name="p", uid=bad))
    assert tmp_path.is_dir()
