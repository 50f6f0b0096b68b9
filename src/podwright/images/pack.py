"""The program that makes a layer of a root directory. Standard library only.

Started as a file of its own: `pack.py DIRECTORY LAYER`. With `changes` behind it DIRECTORY is the upper
directory of an overlay, and its whiteouts become those of a layer. It writes an uncompressed tar (pax, sparse
files in GNU's form 1.0) and prints its digest (the diff id). The same tree gives the same bytes: names are
sorted, owners are numbers, holes are where the content has long runs of zeros, wherever the disk has them,
and nothing of the host (device numbers, inode order, access times) gets in.

What cannot be in a layer: sockets and overlayfs's whiteouts mean nothing there and are left out; a name that
begins with .wh. would hide another one, and is an error. Attributes are those that unpacking keeps.
"""

# ruff: noqa: PTH115, PTH208

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

CHUNK = 1 << 20
BLOCK = 4096
HOLE = 16 * BLOCK
"""The least zeros that make a hole, from a multiple of BLOCK on."""
ZEROS = bytes(CHUNK)
XATTR = "SCHILY.xattr."
CAPABILITY = "security.capability"
DROPPED = ("trusted.overlay.", "user.overlay.", "security.")
"""What overlayfs, SELinux and their like write belongs to the host's file system, not to the image."""

Pieces = list[tuple[int, int]]


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


class Content:
    """A file's pieces one after the other, with the map of them in front if there are holes."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        pieces = _pieces(fd, size)
        self.is_sparse = pieces != [(0, size)]
        self._front = _map(pieces) if self.is_sparse else b""
        self.size = len(self._front) + sum(length for _, length in pieces)
        self._pieces = list(reversed(pieces))

    def read(self, size: int, /) -> bytes:
        parts = [self._front[:size]]
        self._front = self._front[size:]
        missing = size - len(parts[0])
        while missing and self._pieces:
            at, length = self._pieces.pop()
            part = os.pread(self.fd, min(length, missing), at)
            if length and not part:
                raise OSError(errno.EIO, "a file has become shorter while it was read")
            if len(part) < length:
                self._pieces.append((at + len(part), length - len(part)))
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def main() -> int:
    directory, layer, *mode = sys.argv[1:]
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
            _add(tar, changes=bool(mode))
    except (OSError, tarfile.TarError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(target.digest)
    return 0


def _add(tar: tarfile.TarFile, *, changes: bool) -> None:
    links: dict[tuple[int, int], str] = {}
    for path in _names():
        status = os.lstat(path)
        if changes:
            _add_removal(tar, path, status)
        if stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and not status.st_rdev):
            continue
        name = path.removeprefix("./")
        if name.rpartition("/")[2].startswith(".wh."):
            raise ValueError(f"{path!r}: a name that begins with .wh. hides another one in a layer")
        inode = (status.st_dev, status.st_ino)
        entry, source = _entry(path, name, status, links.get(inode))
        try:
            tar.addfile(entry, cast("BinaryIO", source))
        finally:
            if source is not None:
                os.close(source.fd)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            links.setdefault(inode, name)
        tar.members.clear()  # type: ignore[attr-defined]


def _add_removal(tar: tarfile.TarFile, path: str, status: os.stat_result) -> None:
    """What overlayfs says by a device 0/0, or by an attribute, a layer says by a file's name."""
    name = path.removeprefix("./")
    if stat.S_ISCHR(status.st_mode) and not status.st_rdev:
        above, slash, base = name.rpartition("/")
        tar.addfile(tarfile.TarInfo(f"{above}{slash}.wh.{base}"))
        return
    overlay = {each for each in os.listxattr(path, follow_symlinks=False) if each.startswith(DROPPED[:2])}
    for lost in ("redirect", "metacopy"):
        if f"trusted.overlay.{lost}" in overlay:
            raise ValueError(f"{path!r}: overlayfs keeps its content elsewhere ({lost})")
    if stat.S_ISDIR(status.st_mode) and "trusted.overlay.opaque" in overlay and path != ".":
        tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))


def _entry(
    path: str, name: str, status: os.stat_result, link: str | None
) -> tuple[tarfile.TarInfo, Content | None]:
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    time = max(status.st_mtime_ns, 0)
    entry.mtime = time // 10**9
    entry.pax_headers = _attributes(path)
    if time % 10**9:
        entry.pax_headers["mtime"] = f"{time // 10**9}.{time % 10**9:09}"
    if link is not None:
        entry.type, entry.linkname = tarfile.LNKTYPE, link
    elif stat.S_ISREG(status.st_mode):
        return entry, _content(path, entry)
    elif stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(status.st_mode):
        entry.type = tarfile.FIFOTYPE
    else:
        entry.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry, None


def _attributes(path: str) -> dict[str, str]:
    found = {}
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if name == CAPABILITY or not name.startswith(DROPPED):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[f"{XATTR}{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _content(path: str, entry: tarfile.TarInfo) -> Content:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        content = Content(fd, size)
    except BaseException:
        os.close(fd)
        raise
    entry.size = content.size
    if content.is_sparse:
        entry.pax_headers = dict(entry.pax_headers) | {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": entry.name,
            "GNU.sparse.realsize": f"{size}",
        }
        # Who does not know of sparse files sees the map and the pieces under another name.
        above, slash, name = entry.name.rpartition("/")
        entry.name = f"{above}{slash}GNUSparseFile.0/{name}"
    return content


def _pieces(fd: int, size: int) -> Pieces:
    """Where a file has something, with less than HOLE zeros between any two of them."""
    found: list[list[int]] = []
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole up to its end
        end = os.lseek(fd, at, os.SEEK_HOLE)
        at -= at % BLOCK
        while at < end:
            chunk = os.pread(fd, CHUNK, at)
            if not chunk:
                break
            if chunk != ZEROS[: len(chunk)]:
                for start in range(0, len(chunk), BLOCK):
                    block = chunk[start : start + BLOCK]
                    if block != ZEROS[: len(block)]:
                        _append(found, at + start, at + start + len(block))
            at += len(chunk)
        at = max(at, end)
    if found and found[0][0] < HOLE:
        found[0][0] = 0
    if found and size - found[-1][1] < HOLE:
        found[-1][1] = size
    if not found and size < HOLE:
        found.append([0, size])
    if not found or found[-1][1] < size:
        found.append([size, size])  # GNU tar knows by this where a hole at the end ends
    return [(start, end - start) for start, end in found]


def _append(found: list[list[int]], start: int, end: int) -> None:
    if found and start - found[-1][1] < HOLE:
        found[-1][1] = max(end, found[-1][1])
    else:
        found.append([start, end])


def _map(pieces: Pieces) -> bytes:
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + bytes(-len(text) % 512)


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
