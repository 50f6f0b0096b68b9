"""Layers unpacked by the program alone, one over the other, and what the kernel makes of them together."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from podwright.images import unpack
from podwright.linux import mounts

OVERLAY = ("trusted.overlay.", "user.overlay.")


class Refused(Exception):
    """The program's answer when it is not "ok"; `kind` is its first word."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


@dataclass(frozen=True)
class Seen:
    """What a name of a tree is."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes | int = b""
    """Of a file; what a link says; a device's number."""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Stack:
    """Layers in directories of `root`, bottom first."""

    root: Path
    path: str = os.defpath
    """Where the program looks for others."""
    layers: list[Path] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Bytes and inodes of each."""

    def start(
        self,
        blob: bytes,
        diff_id: str,
        *,
        most_bytes: int = 0,
        most_entries: int = 0,
        parent: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """The program at work on the next layer, for this process or for another `parent`."""
        number = len(self.layers)
        target, place, file = (self.root / f"{kind}{number}" for kind in ("layer", "place", "blob"))
        for directory in (target, place):
            directory.mkdir(parents=True, exist_ok=True)
        file.write_bytes(blob)
        fd = os.open(file, os.O_RDONLY)
        try:
            argv = [sys.executable, "-I", "-S", "-B", "-X", "utf8", unpack.__file__]
            argv += [str(parent or os.getpid()), str(fd), diff_id, str(most_bytes), str(most_entries)]
            argv += [str(place), str(target), *map(str, reversed(self.layers))]
            return subprocess.Popen(
                argv,
                env={"PATH": self.path},
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            os.close(fd)

    def add(
        self, content: bytes, *, packed: bytes | None = None, most_bytes: int = 0, most_entries: int = 0
    ) -> Path:
        """Unpack the archive `content` (as `packed`, if it is compressed). Raises Refused."""
        blob = content if packed is None else packed
        diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
        with self.start(blob, diff_id, most_bytes=most_bytes, most_entries=most_entries) as program:
            output, errors = program.communicate(timeout=150)
        assert errors == b"", errors.decode()
        kind, _, words = output.decode().partition(" ")
        target = self.root / f"layer{len(self.layers)}"
        if kind != "ok":
            subprocess.run(["rm", "-rf", target], check=True)
            raise Refused(kind, words)
        size, inodes = map(int, words.split())
        self.layers.append(target)
        self.sizes.append((size, inodes))
        return target

    @contextmanager
    def merged(self) -> Iterator[Path]:
        """All layers through overlayfs."""
        for name in ("upper", "work", "merged"):
            (self.root / name).mkdir(exist_ok=True)
        target, upper = self.root / "merged", self.root / "upper"
        origin = self.layers[-1].stat()
        os.chown(upper, origin.st_uid, origin.st_gid)
        shutil.copystat(self.layers[-1], upper)
        mounts.overlay(target, [*reversed(self.layers)], upper, self.root / "work")
        try:
            yield target
        finally:
            mounts.unmount(target)


def look(root: Path) -> dict[bytes, Seen]:
    """Every name below `root`, which is "." itself, and what it is. Marks of overlayfs are left out."""
    found = {b".": see(os.fsencode(root))}
    todo = [b""]
    while todo:
        inside = todo.pop()
        for name in os.listdir(os.path.join(os.fsencode(root), inside)):  # noqa: PTH118, PTH208
            path = os.path.join(inside, name)  # noqa: PTH118
            found[path] = see(os.path.join(os.fsencode(root), path))  # noqa: PTH118
            if found[path].kind == "directory":
                todo.append(path)
    return found


def see(path: bytes) -> Seen:
    status = os.lstat(path)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    content: bytes | int = b""
    if kind == "file":
        content = Path(os.fsdecode(path)).read_bytes()
    elif kind == "link":
        content = os.readlink(path)  # noqa: PTH115
    elif kind in ("character", "block"):
        content = status.st_rdev
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(OVERLAY)
    }
    owner = status.st_uid, status.st_gid
    return Seen(kind, stat.S_IMODE(status.st_mode), owner, status.st_mtime_ns, content, xattrs)


def same_files(root: Path, names: Sequence[bytes]) -> set[frozenset[bytes]]:
    """Which of the `names` below `root` are names of one file."""
    groups: dict[int, set[bytes]] = {}
    for name in names:
        groups.setdefault(os.lstat(os.path.join(os.fsencode(root), name)).st_ino, set()).add(name)  # noqa: PTH118
    return {frozenset(group) for group in groups.values()}


KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "pipe",
}
