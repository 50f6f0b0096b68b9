"""A layer made of a tree unpacks to that tree, and the same tree gives the same bytes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from podwright.images import pack
from tests.images.unpacked import Stack, look, same_files

pytestmark = pytest.mark.root

MIB = 1 << 20
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


def packed(root: Path, target: Path) -> bytes:
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", pack.__file__, str(root), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    content = target.read_bytes()
    target.unlink()
    return content


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "d/deeper").mkdir(parents=True)
    (root / "d").chmod(0o3711)
    (root / "d/f").write_bytes(b"content")
    os.chown(root / "d/f", 2**31, 70000)
    (root / "d/f").chmod(0o6755)
    (root / "again").hardlink_to(root / "d/f")
    (root / "link").symlink_to("/nowhere")
    (root / "way").symlink_to(os.fsdecode(b"caf\xe9/" + b"n" * 200))
    (root / "other-way").hardlink_to(root / "way")
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"latin-1")
    (root / ("n" * 255)).mkdir()
    (root / ("n" * 255) / ("m" * 255)).write_bytes(b"x" * 700)
    os.mkfifo(root / "pipe", 0o620)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "disk", 0o60660, os.makedev(8, 300))
    os.setxattr(root / "d/deeper", "user.note", b"\xff\x00=\n9 a=b\n")
    os.setxattr(root / "d/deeper", "trusted.note", b"kept")
    os.setxattr(root / "d/f", "security.capability", CAPABILITY)
    (root / "d/f").chmod(0o6755)
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        for at in (0, 5 * MIB + 1, (1 << 40) - 3):
            file.seek(at)
            file.write(b"abc")
    with (root / "hole").open("wb") as file:
        file.truncate(MIB + 1)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(0, 10**18 + number), follow_symlinks=False)
    os.utime(root, (0, 1000))
    return root


def test_a_tree_survives(tree: Path, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    root = stack.add(packed(tree, tmp_path / "layer"))
    assert (root / "sparse").stat().st_size == 1 << 40
    for sparse in (tree / "sparse", root / "sparse"):
        with sparse.open("rb") as file:
            parts = [os.pread(file.fileno(), 5, at) for at in (0, 5 * MIB, (1 << 40) - 5, 1 << 39)]
        assert parts == [b"abc\0\0", b"\0abc\0", b"\0\0abc", bytes(5)]
        assert sparse.stat().st_blocks * 512 <= 64 << 10
    assert (root / "sparse").stat().st_mtime_ns == (tree / "sparse").stat().st_mtime_ns
    for sparse in (tree / "sparse", root / "sparse"):  # too large to be looked at whole
        sparse.unlink()
        os.utime(sparse.parent, (0, 1000))
    expected = look(tree)
    assert look(root) == expected
    assert same_files(root, [*expected]) == same_files(tree, [*expected])
    assert os.getxattr(root / "d/f", "security.capability") == CAPABILITY


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    (tree / "sparse").unlink()
    first = packed(tree, tmp_path / "layer")
    # Other inodes, another order of making, blocks where there were holes.
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", "--sparse=never", tree, copy], check=True)
    names = sorted(copy.iterdir(), reverse=True)
    for path in names:
        path.rename(tmp_path / "aside")
        (tmp_path / "aside").rename(path)
    os.utime(tree, (0, 1000))
    os.utime(copy, (5, 1000))
    assert (copy / "hole").stat().st_blocks > (tree / "hole").stat().st_blocks
    assert packed(copy, tmp_path / "layer") == packed(tree, tmp_path / "layer")
    assert len(first) < MIB


def test_holes_are_where_the_content_has_them(tmp_path: Path) -> None:
    source = random.Random(0)
    full, sparse = tmp_path / "full", tmp_path / "sparse"
    full.mkdir()
    for number in range(60):
        size = source.randrange(2 * MIB)
        content = bytearray(size)
        for _ in range(source.randrange(4)):
            at, length = source.randrange(size), source.choice((1, 5000, 70000, 300000))
            content[at : at + length] = source.randbytes(min(length, size - at))
        (full / f"{number}").write_bytes(content)
    subprocess.run(["cp", "-a", "--sparse=always", full, sparse], check=True)
    layer = packed(full, tmp_path / "layer")
    assert packed(sparse, tmp_path / "layer") == layer
    assert look(Stack(tmp_path / "stack").add(layer)) == look(full)


def test_gnu_tar_and_tarfile_read_it(tree: Path, tmp_path: Path) -> None:
    (tree / "sparse").unlink()
    layer = tmp_path / "layer.tar"
    layer.write_bytes(packed(tree, tmp_path / "layer"))
    target = tmp_path / "target"
    target.mkdir()
    command = [
        "tar",
        "-xpf",
        str(layer),
        "-C",
        str(target),
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    ]
    subprocess.run(command, check=True)
    os.utime(target, (0, tree.stat().st_mtime))
    expected, found = look(tree), look(target)
    expected.pop(b"."), found.pop(b".")
    assert found == expected
    with tarfile.open(layer) as tar:
        assert tar.getmember("hole").size == MIB + 1


def test_what_means_nothing_in_a_layer_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.mknod(root / "whiteout", 0o20000, os.makedev(0, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(root)
        listener.bind("socket")
    os.setxattr(root, "trusted.overlay.opaque", b"y")
    made = Stack(tmp_path / "stack").add(packed(root, tmp_path / "layer"))
    assert look(made).keys() == {b"."}
    assert os.listxattr(made) == []


def test_a_name_that_would_hide_another_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/.wh.x").touch()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        packed(tmp_path / "root", tmp_path / "layer")
    assert b"'./.wh.x': a name that begins with .wh. hides another one" in failed.value.stderr
