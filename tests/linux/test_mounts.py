"""Mounts are made and undone, and the kernel's table is read right."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.errors import ResourceExhausted
from podwright.linux import mounts, syscalls

TABLE = (
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "30 27 8:1 /sub /mnt/with\\040space ro,nosuid shared:7 master:3 - ext4 /dev/sd\\134a rw,discard\n"
    "31 30 0:40 / /mnt/slave rw master:9 propagate_from:2 - tmpfs tmpfs rw,size=1k\n"
)


def test_the_table_is_parsed_with_escapes_and_peer_groups() -> None:
    proc, bind, slave = mounts.parse_table(TABLE)
    assert (proc.target, proc.fstype, proc.shared, proc.master, proc.readonly) == (
        "/proc",
        "proc",
        None,
        None,
        False,
    )
    assert (bind.target, bind.root, bind.source, bind.shared, bind.master, bind.readonly) == (
        "/mnt/with space",
        "/sub",
        "/dev/sd\\a",
        7,
        3,
        True,
    )
    assert (slave.shared, slave.master, slave.super_options) == (None, 9, frozenset({"rw", "size=1k"}))


def test_mounts_below_takes_the_path_itself_but_no_namesake() -> None:
    table = mounts.parse_table(TABLE)
    assert [row.target for row in mounts.mounts_below(Path("/mnt"), table)] == [
        "/mnt/with space",
        "/mnt/slave",
    ]
    assert [row.target for row in mounts.mounts_below(Path("/mnt/slave"), table)] == ["/mnt/slave"]
    assert mounts.mounts_below(Path("/mn"), table) == []
    assert len(mounts.mounts_below(Path("/"), table)) == 3


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    mounts.unmount_below(tmp_path)


@pytest.mark.root
def test_a_bind_shows_the_source_and_can_be_undone_twice(place: Path) -> None:
    source, target = place / "source", place / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("x")
    mounts.bind(source, target)
    assert (target / "file").read_text() == "x"
    assert mounts.is_mounted(target)
    mounts.unmount(target)
    mounts.unmount(target)
    assert not mounts.is_mounted(target)
    mounts.unmount(place / "absent")


@pytest.mark.root
@pytest.mark.parametrize("recursive", [False, True])
def test_a_readonly_bind_is_readonly_below_only_when_recursive(place: Path, recursive: bool) -> None:
    source, target = place / "source", place / "target"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    mounts.tmpfs(source / "sub", size=4096)
    mounts.bind(source, target, recursive=True, readonly=recursive)
    if not recursive:
        mounts.unmount(target / "sub")
        mounts.unmount(target)
        mounts.bind(source, target, readonly=True)
    with pytest.raises(OSError) as refused:
        (target / "file").touch()
    assert refused.value.errno == errno.EROFS
    if recursive:
        with pytest.raises(OSError, match="Read-only"):
            (target / "sub" / "file").touch()
    (source / "file").touch()


@pytest.mark.root
def test_a_tmpfs_has_its_size_and_mode(place: Path) -> None:
    mounts.tmpfs(place, size=64 << 20, mode=0o1777)
    room = os.statvfs(place)
    assert room.f_blocks * room.f_frsize == 64 << 20
    assert place.stat().st_mode & 0o7777 == 0o1777
    options = next(row for row in mounts.read_table() if row.target == str(place)).options
    assert {"nosuid", "nodev", "noexec"} <= options


@pytest.mark.root
def test_stacked_mounts_all_go(place: Path) -> None:
    for _ in range(3):
        mounts.tmpfs(place, size=4096)
    mounts.unmount(place)
    assert not mounts.is_mounted(place)


@pytest.mark.root
def test_a_mount_in_use_is_detached(place: Path) -> None:
    mounts.tmpfs(place, size=4096)
    with (place / "open").open("w"):
        mounts.unmount(place)
        assert not mounts.is_mounted(place)


@pytest.mark.root
@pytest.mark.parametrize(("layers", "odd"), [(2, ""), (60, ""), (2, "a,b:c\\d")])
def test_overlay_shows_the_topmost_layer(place: Path, layers: int, odd: str) -> None:
    top = place / f"{odd}{'long' * 20}"
    top.mkdir()
    mounts.tmpfs(top, size=16 << 20)  # an overlay's upper must not itself be one
    lower = [top / f"layer{number}" for number in range(layers)]
    for number, each in enumerate(lower):
        each.mkdir()
        (each / "which").write_text(str(number))
    upper, work, target = top / "upper", top / "work", place / "merged"
    for each in (upper, work, target):
        each.mkdir()
    before = Path.cwd()
    mounts.overlay(target, lower, upper, work)
    assert (target / "which").read_text() == "0"
    (target / "new").touch()
    assert (upper / "new").exists()
    assert Path.cwd() == before
    mounts.unmount(target)


def test_too_many_layers_are_refused_in_words(tmp_path: Path) -> None:
    lower = [tmp_path / f"{'x' * 90}{number}" for number in range(100)]
    with pytest.raises(ResourceExhausted, match="100 lower directories"):
        mounts.overlay(tmp_path, lower, tmp_path / "u", tmp_path / "w")


@pytest.mark.root
def test_peer_groups_are_those_of_the_mount_a_path_lies_on(place: Path) -> None:
    mounts.tmpfs(place, size=4096)
    mounts.make_private(place)
    inner = place / "inner"
    inner.mkdir()
    assert mounts.shared_group(inner) is None
    mounts.make_shared(place)
    assert isinstance(mounts.shared_group(inner), int)
    assert mounts.master_group(inner) is None
    found = mounts.containing(inner)
    assert found is not None and found.target == str(place)


@pytest.mark.root
def test_errors_name_the_call_and_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mount tmpfs of tmpfs") as error:
        mounts.tmpfs(tmp_path / "absent", size=4096)
    assert error.value.filename == str(tmp_path / "absent")
    with pytest.raises(OSError, match="unshare"):
        syscalls.unshare(0x1)
