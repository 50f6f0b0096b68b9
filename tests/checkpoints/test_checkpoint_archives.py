"""Archives: written whole or not at all, read from whoever made them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from podwright.checkpoints import layout, reading, writing
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError, ResourceExhausted
from podwright.wire import cri_pb2 as cri

CONFIG = {
    "id": "1" * 64,
    "name": "main",
    "rootfsImage": "docker.io/library/busybox:1",
    "rootfsImageRef": "sha256:" + "2" * 64,
    "rootfsImageName": "docker.io/library/busybox:1",
    "runtime": "runc",
    "createdTime": "2024-01-02T03:04:05.123456789Z",
    "checkpointedTime": "2024-01-02T03:04:06Z",
    "restoredTime": "0001-01-01T00:00:00Z",
    "restored": False,
}
SPEC = {"ociVersion": "1.0.2", "mounts": [{"destination": "/data", "type": "bind", "source": "/srv"}]}
GOOD = {
    "checkpoint/inventory.img": b"inventory",
    "checkpoint/pages-1.img": b"pages",
    "config.dump": json.dumps(CONFIG).encode(),
    "spec.dump": json.dumps(SPEC).encode(),
    "rootfs-diff.tar": b"a layer",
    "container.log": b"a line\n",
    "bind.mounts": b"[]",
}


def _tar(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo, prefix: str = "") -> Path:
    with tarfile.open(path, "w") as tar:
        directory = tarfile.TarInfo(f"{prefix}checkpoint")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(directory)
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in special:
            tar.addfile(entry)
    return path


def _tree(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def _gzipped(path: Path, files: dict[str, bytes]) -> Path:
    plain = _tar(path.with_name("plain"), files).read_bytes()
    # Two members, one behind the other, as parallel compressors write them.
    path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]))
    return path


@pytest.mark.parametrize(
    "make",
    [_tar, lambda path, files: _tar(path, files, prefix="./"), _gzipped, _tree],
    ids=["tar", "with dots", "gzip", "directory"],
)
async def test_what_a_restore_needs_is_taken(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    source = make(tmp_path / "source", GOOD)
    found = await reading.look("a.tar", source)
    assert (found.config.name, found.config.runtime) == ("main", "runc")
    assert found.base_images == (CONFIG["rootfsImageRef"], CONFIG["rootfsImageName"])
    assert [each.destination for each in found.spec.mounts] == ["/data"]
    (target := tmp_path / "target").mkdir()
    await reading.extract("a.tar", source, target)
    there = {str(each.relative_to(target)) for each in target.rglob("*") if each.is_file()}
    assert there == {
        *("checkpoint/inventory.img", "checkpoint/pages-1.img", "rootfs-diff.tar", "container.log")
    }
    assert (target / "checkpoint/pages-1.img").read_bytes() == b"pages"
    assert {each.stat().st_mode & 0o777 for each in target.rglob("*.img")} == {0o600}


def _link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def _device(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.devmajor, entry.devminor = tarfile.CHRTYPE, 1, 3
    return entry


@pytest.mark.parametrize(
    ("special", "words"),
    [
        (_link("checkpoint/core-1.img", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        (_link("checkpoint/core-1.img", tarfile.LNKTYPE, "config.dump"), "no plain file"),
        (_link("rootfs-diff.tar", tarfile.SYMTYPE, "/dev/sda"), "no plain file"),
        (_device("checkpoint/core-1.img"), "no plain file"),
        (tarfile.TarInfo("checkpoint/../../escape"), "no directories"),
        (tarfile.TarInfo("checkpoint/a/b.img"), "no directories"),
        (tarfile.TarInfo("checkpoint/inventory.img"), "twice"),
    ],
    ids=["symlink", "hard link", "diff", "device", "dots", "directory", "twice"],
)
async def test_entries_that_lead_elsewhere_are_refused(
    tmp_path: Path, special: tarfile.TarInfo, words: str
) -> None:
    files = dict(GOOD)
    if special.name == "rootfs-diff.tar":
        del files[special.name]
    source = _tar(tmp_path / "source", files, special)
    (target := tmp_path / "target").mkdir()
    with pytest.raises(InvalidArgument, match=words):
        await reading.extract("a.tar", source, target)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.parametrize("name", ["checkpoint/core-1.img", "config.dump", "checkpoint"])
async def test_links_in_an_images_layer_are_refused(tmp_path: Path, name: str) -> None:
    files = {each: content for each, content in GOOD.items() if not each.startswith(name)}
    source = _tree(tmp_path / "source", files)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/inventory.img").write_bytes(b"not yours")
    (source / name).symlink_to(tmp_path / "secret")
    (target := tmp_path / "target").mkdir()
    with pytest.raises(PodwrightError) as caught:
        await reading.look("a", source)
        await reading.extract("a", source, target)
    assert "config.image.image" in str(caught.value)
    assert not any(each.read_bytes() == b"not yours" for each in target.rglob("*.img"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no config.dump"),
        ({"config.dump": b"{}"}, "no spec.dump"),
        ({"config.dump": b"[]", "spec.dump": b"{}"}, "config.dump cannot be read"),
        ({"config.dump": b"{}", "spec.dump": b'{"mounts": 1}'}, "spec.dump cannot be read"),
    ],
)
async def test_what_is_no_checkpoint_says_what_it_lacks(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await reading.look("a.tar", _tar(tmp_path / "source", files))


async def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = _tar(tmp_path / "whole", GOOD).read_bytes()
    for number, size in enumerate((700, 2000, len(whole) // 2)):
        source = tmp_path / f"half-{number}"
        source.write_bytes(whole[:size])
        (target := tmp_path / f"target-{number}").mkdir()
        with pytest.raises(InvalidArgument, match=r"ends|no whole checkpoint"):
            await reading.extract("a.tar", source, target)
    with pytest.raises(NotFound):
        await reading.look("a.tar", tmp_path / "absent")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidArgument, match="neither a file"):
        await reading.look("a.tar", tmp_path / "fifo")
    (tmp_path / "zstd").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(InvalidArgument, match="zstd"):
        await reading.look("a.tar", tmp_path / "zstd")


async def test_a_bomb_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    _tar(tmp_path / "plain", {"filler": bytes(1 << 20), **GOOD})
    source.write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    limits = reading._limits(source)
    limits.bytes = 1 << 19
    monkeypatch.setattr(reading, "_limits", lambda path: limits)
    with pytest.raises(ResourceExhausted, match="unpacks to more than"):
        await reading.look("a.tar", source)
    limits.bytes, limits.entries = 1 << 30, 3
    with pytest.raises(ResourceExhausted, match="entries"):
        await reading.look("a.tar", source)


async def test_the_digest_of_a_diff_is_that_without_its_compression(tmp_path: Path) -> None:
    content = os.urandom(3000) * 1000
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content, 1))
    wanted = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert await reading.diff_id("a", tmp_path / "plain") == wanted
    assert await reading.diff_id("a", tmp_path / "packed") == wanted


async def test_an_archive_takes_its_place_in_one_step(tmp_path: Path) -> None:
    (images := tmp_path / "images").mkdir()
    (images / "inventory.img").write_bytes(b"new")
    (config := tmp_path / "config").write_bytes(b"{}")
    (place := tmp_path / "place").mkdir()
    location = place / "a.tar"
    location.write_bytes(b"old")
    before = location.stat().st_ino
    size = await writing.write(location, {"config.dump": config, "checkpoint/": images})
    assert [each.name for each in place.iterdir()] == ["a.tar"]
    assert location.stat().st_ino != before and location.stat().st_size == size
    with tarfile.open(location) as tar:
        assert tar.getnames() == ["config.dump", "checkpoint", "checkpoint/inventory.img"]


@pytest.mark.parametrize("nameless", [True, False])
async def test_what_fails_or_is_given_up_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # EISDIR, as where it is unknown
    location = tmp_path / "a.tar"
    location.write_bytes(b"old")
    with pytest.raises(FailedPrecondition, match="cannot be written"):
        await writing.write(location, {"config.dump": tmp_path / "absent"})
    (big := tmp_path / "big").write_bytes(b"")
    os.truncate(big, 1 << 34)
    work = asyncio.ensure_future(writing.write(location, {"config.dump": big}))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tar", "big"]
    assert location.read_bytes() == b"old"
    assert await writing.write(location, {"config.dump": tmp_path / "a.tar"}) > 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tar", "big"]


def test_a_status_is_written_as_go_writes_it() -> None:
    status = cri.ContainerStatus(
        id="c",
        metadata=cri.ContainerMetadata(name="main", attempt=2),
        state=cri.CONTAINER_RUNNING,
        created_at=1_700_000_000_123_456_789,
        labels={"a": "1"},
        mounts=[cri.Mount(container_path="/data", host_path="/srv")],
        resources=cri.ContainerResources(linux=cri.LinuxContainerResources(memory_limit_in_bytes=1 << 40)),
    )
    told = json.loads(layout.status_dump(status))
    assert told["created_at"] == 1_700_000_000_123_456_789
    assert told["state"] == 1
    assert told["metadata"] == {"name": "main", "attempt": 2}
    assert told["resources"]["linux"]["memory_limit_in_bytes"] == 1 << 40
    assert told["mounts"] == [{"container_path": "/data", "host_path": "/srv"}]
    config = json.loads(layout.config_dump(status, "runc", 1_700_000_001_000_000_000))
    assert config["checkpointedTime"] == "2023-11-14T22:13:21Z"
    assert config["createdTime"].startswith("2023-11-14T22:13:20.123456789Z")


@pytest.mark.parametrize("key", layout.ANNOTATIONS)
def test_images_are_known_by_their_annotations(key: str) -> None:
    assert layout.marks(None, {key: "main"})
    assert not layout.marks({"org.opencontainers.image.title": "x"}, None)
