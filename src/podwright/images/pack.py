"""The program that makes a layer of a root directory. Standard library only.

Started as a file of its own: `pack.py DIRECTORY LAYER`. It writes an uncompressed tar and prints its digest
(the diff id). The same tree gives the same bytes: names are sorted, owners are numbers, and nothing of the
host (device numbers, inode order, access times) gets in.
"""

# ruff: noqa: PTH115, PTH208

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

CHUNK = 1 << 20


class Digester:
    """A file that hashes what is written to it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hash = hashlib.sha256()

    def write(self, block: bytes, /) -> int:
        self._hash.update(block)
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        return len(block)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def main() -> int:
    directory, layer = sys.argv[1:]
    try:
        os.chdir(directory)
        target = Digester(os.open(layer, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with tarfile.open(
            fileobj=cast("BinaryIO", target),
            mode="w|",
            bufsize=CHUNK,
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            _add(tar)
    except (OSError, tarfile.TarError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(target.digest)
    return 0


def _add(tar: tarfile.TarFile) -> None:
    links: dict[tuple[int, int], str] = {}
    for path in _names():
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            continue  # a socket means nothing without its process
        name = path.removeprefix("./")
        inode = (status.st_dev, status.st_ino)
        entry, pax = tarfile.TarInfo(name), dict[str, str]()
        entry.mode = stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid = status.st_uid, status.st_gid
        entry.mtime = int(status.st_mtime)
        if status.st_mtime_ns % 10**9:
            pax["mtime"] = f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09}"
        for attribute in sorted(os.listxattr(path, follow_symlinks=False)):
            # What overlayfs and SELinux write belongs to the host's file system, not to the image.
            if not attribute.startswith(("trusted.", "security.selinux")):
                value = os.getxattr(path, attribute, follow_symlinks=False)
                pax[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
        entry.pax_headers = pax
        if inode in links:
            entry.type, entry.linkname = tarfile.LNKTYPE, links[inode]
        elif stat.S_ISREG(status.st_mode):
            entry.size = status.st_size
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
                tar.addfile(entry, source)
        elif stat.S_ISDIR(status.st_mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISFIFO(status.st_mode):
            entry.type = tarfile.FIFOTYPE
        else:
            entry.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if entry.type != tarfile.REGTYPE:
            tar.addfile(entry)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            links.setdefault(inode, name)
        tar.members.clear()  # type: ignore[attr-defined]


def _names() -> Iterator[str]:
    """Every path from here down, in an order that depends on the names alone."""
    todo = ["."]
    while todo:
        path = todo.pop()
        yield path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            todo.extend(f"{path}/{name}" for name in sorted(os.listdir(path), reverse=True))


if __name__ == "__main__":
    sys.exit(main())
