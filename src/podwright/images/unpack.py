"""The program that unpacks one layer, confined to the layer's directory. Standard library only.

It is started as a file of its own with a job (JSON) on standard input, and answers with JSON on standard
output. Before it reads the first byte of the layer it changes its root to the layer's directory; besides,
it resolves every parent directory itself, never through a link that the kernel would follow. So no name,
link or device in a layer, however hostile, reaches anything of the host.

The directory becomes a layer for overlayfs: a whiteout is a character device 0/0, an opaque directory has
the attribute trusted.overlay.opaque (Documentation/filesystems/overlayfs.rst). What the OCI image
specification says about applying a layer on top of others holds: a parent directory that the layer does not
bring is the one of the layers below (its owner, mode and attributes are kept, a link is followed).
"""

# Paths are plain strings here: thousands of them, used once.
# ruff: noqa: PTH101, PTH102, PTH106, PTH108, PTH115, PTH208, PTH211

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Protocol, cast

CHUNK = 1 << 20
OPAQUE = "trusted.overlay.opaque"
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_LINKS = 40
"""As many links as the kernel follows in one path."""
LAST_TIME = 2**63 - 1
XATTR = "SCHILY.xattr."
OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
"""Marks of overlayfs itself; from a layer they could redirect look-ups, so they are dropped."""
PLAIN, DEVICES = (
    (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE),
    {
        tarfile.CHRTYPE: stat.S_IFCHR,
        tarfile.BLKTYPE: stat.S_IFBLK,
    },
)


class BadLayer(Exception):
    """The layer is not what it should be."""


def main() -> int:
    try:
        answer = _unpack(json.load(sys.stdin))
    except (BadLayer, tarfile.TarError, zlib.error, OSError, ValueError, OverflowError, EOFError) as error:
        answer = {"error": f"{error}" or type(error).__name__}
    sys.stdout.write(json.dumps(answer))
    return 1 if "error" in answer else 0


def _unpack(job: dict[str, Any]) -> dict[str, object]:
    """`job`: the `parent`'s pid, the `fd` of the layer's file, the `target` directory, the directories of
    the `lowers` (topmost first) and the `diff_id` that the layer must have."""
    os.umask(0)
    lowers = [os.open(path, OPEN_DIRECTORY) for path in job["lowers"]]
    stream = Stream(job["fd"], job["parent"])
    os.chdir(job["target"])
    os.chroot(".")
    os.chdir("/")
    layer = Layer(lowers)
    with tarfile.open(
        fileobj=cast("BinaryIO", stream), mode="r|", bufsize=CHUNK, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        while (entry := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # a list of all entries, which nobody needs
            try:
                layer.apply(entry, tar)
            except (OSError, OverflowError, ValueError) as error:
                raise BadLayer(f"entry {entry.name!r}: {error}") from error
    while stream.read(CHUNK):
        pass  # the digest covers what follows the archive's end as well
    if stream.diff_id != job["diff_id"]:
        raise BadLayer(f"the layer's digest is {stream.diff_id}, its image says {job['diff_id']}")
    layer.finish()
    size, inodes = _measure("/")
    return {"bytes": size, "inodes": inodes}


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Stream:
    """A layer's bytes without their compression, and their digest."""

    def __init__(self, fd: int, parent: int) -> None:
        self._fd = fd
        self._parent = parent
        self._hash = hashlib.sha256()
        self._first = b""
        while len(self._first) < 4 and (more := os.read(fd, CHUNK)):
            self._first += more
        if self._first[:4] == b"\x28\xb5\x2f\xfd":
            raise BadLayer("the layer is compressed with zstd")
        self._gzip = zlib.decompressobj(31) if self._first[:2] == b"\x1f\x8b" else None

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. A gzip stream that is cut short is an error."""
        if os.getppid() != self._parent:
            raise BadLayer("the one who asked for it has gone")  # its successor clears this directory
        block = self._raw(size) if self._gzip is None else self._inflate(size)
        self._hash.update(block)
        return block

    def _raw(self, size: int) -> bytes:
        if self._first:
            block, self._first = self._first[:size], self._first[size:]
            return block
        return os.read(self._fd, size)

    def _inflate(self, size: int) -> bytes:
        while True:
            assert self._gzip is not None
            if self._gzip.eof:
                # gzip(1): members follow each other; anything else behind the last one is padding
                rest = self._gzip.unused_data
                while len(rest) < 2 and (more := self._raw(CHUNK)):
                    rest += more
                if rest[:2] != b"\x1f\x8b":
                    return b""
                self._gzip, pending = zlib.decompressobj(31), rest
            else:
                pending = self._gzip.unconsumed_tail or self._raw(CHUNK)
                if not pending:
                    block = self._gzip.flush()
                    if not self._gzip.eof:
                        raise EOFError("the layer's gzip stream is cut short")
                    return block
            block = self._gzip.decompress(pending, size)
            if block:
                return block


class Layer:
    """Applies the entries of one layer to the root directory of this process."""

    def __init__(self, lowers: Sequence[int]) -> None:
        self._lowers = tuple(lowers)
        self._parents: dict[str, str] = {"": ""}
        """Directories known to be there, as an entry names them and as a path ("" is the root)."""
        self._alone: set[str] = set()
        """Directories that no lower layer has."""
        self._opaque: set[str] = set()
        self._times: dict[str, int] = {}
        """Directories get their times last: each new child changes them."""

    def apply(self, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        parts = _clean(entry.name)
        if not parts:
            if not entry.isdir():
                raise BadLayer(f"entry {entry.name!r} would replace the root directory")
            self._attributes("/", entry)
            return
        parent, name = self._directory(parts[:-1]), parts[-1]
        path = f"{parent}/{name}"
        if name.startswith(".wh."):
            self._whiteout(parent, name)
        elif entry.isdir():
            self._make_directory(path)
            self._attributes(path, entry)
        elif entry.islnk():
            self._hard_link(path, _clean(entry.linkname))
        else:
            self._clear(path)
            self._make_other(path, entry, tar)
            self._attributes(path, entry)

    def finish(self) -> None:
        """What can only be done when every entry is there."""
        if "" in self._opaque:
            self._hide_lower_root()
        for path, time in self._times.items():
            os.utime(path, ns=(time, time), follow_symlinks=False)

    # Parents

    def _directory(self, parts: Sequence[str]) -> str:
        """The real directory that `parts` name in this layer over the lower ones, made here if needed."""
        key = "/".join(parts)
        known = self._parents.get(key)
        if known is not None:
            return known
        todo, at, links = list(reversed(parts)), list[str](), 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del at[-1:]
                continue
            target = self._enter(at, name)
            if target is None:
                at.append(name)
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), key)
            if target.startswith("/"):
                at.clear()
            todo.extend(reversed(target.split("/")))
        real = _join(at)
        if real == f"/{key}":  # a way through a link can change with any later entry
            self._parents[key] = real
        return real

    def _enter(self, at: Sequence[str], name: str) -> str | None:
        """Make sure that directory `name` is in `at` of this layer; the target instead if it is a link."""
        path = _join([*at, name])
        there = _lstat(path)
        if there is not None:
            if stat.S_ISLNK(there.st_mode):
                return os.readlink(path)
            if _is_whiteout(there):
                self._make_directory(path)
            elif not stat.S_ISDIR(there.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return None
        with self._below([*at, name]) as found:
            if found is None:
                os.mkdir(path, 0o755)
                self._alone.add(path)
            elif stat.S_ISLNK(found.status.st_mode):
                return os.readlink(found.name, dir_fd=found.directory)
            elif stat.S_ISDIR(found.status.st_mode):
                os.mkdir(path, 0o700)
                found.copy_attributes(path)
                self._times[path] = found.status.st_mtime_ns
            else:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return None

    @contextmanager
    def _below(self, parts: Sequence[str]) -> Iterator[Found | None]:
        """What the lower layers, one over the other, have at `parts`; links are not followed."""
        if not self._lowers or _join(parts[:-1]) in self._alone or self._is_hidden(parts):
            yield None
            return
        with ExitStack() as opened:
            directories: Sequence[int] = self._lowers
            found: Found | None = None
            for name in parts:
                found, deeper = None, list[int]()
                for directory in directories:
                    try:
                        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if _is_whiteout(status):
                        break
                    if not stat.S_ISDIR(status.st_mode):
                        found = found or Found(directory, name, status)
                        break
                    found = found or Found(directory, name, status)
                    fd = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
                    opened.callback(os.close, fd)
                    deeper.append(fd)
                    if OPAQUE in os.listxattr(fd):
                        break
                if found is None:
                    break
                directories = deeper
            yield found

    def _is_hidden(self, parts: Sequence[str]) -> bool:
        """Whether this layer hides what the lower ones have at `parts`."""
        return bool(self._opaque) and any(
            _join(parts[:count]) in self._opaque for count in range(len(parts) + 1)
        )

    # Entries

    def _make_directory(self, path: str) -> None:
        there = _lstat(path)
        if there is not None and stat.S_ISDIR(there.st_mode):
            return
        if there is not None:
            self._clear(path)
        os.mkdir(path, 0o755)
        if there is not None and _is_whiteout(there):
            self._make_opaque(path)

    def _make_other(self, path: str, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        if entry.type in PLAIN:
            self._write(path, entry, tar)
        elif entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.isfifo():
            os.mkfifo(path, 0o600)
        elif entry.type in DEVICES:
            device = os.makedev(entry.devmajor, entry.devminor)
            os.mknod(path, DEVICES[entry.type] | 0o600, device)
        else:
            raise BadLayer(f"entry {entry.name!r} has the unknown type {entry.type!r}")

    def _write(self, path: str, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        source = tar.fileobj
        assert source is not None
        source.seek(entry.offset_data)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # A sparse file's pieces follow each other in the archive without the holes.
            for offset, size in getattr(entry, "sparse", None) or [(0, entry.size)]:
                os.lseek(fd, offset, os.SEEK_SET)
                _copy(source, fd, size)
            os.ftruncate(fd, entry.size)
        finally:
            os.close(fd)

    def _hard_link(self, path: str, target: list[str]) -> None:
        if not target:
            raise BadLayer(f"{path!r} is a hard link to the root directory")
        parent = self._directory(target[:-1])
        source = f"{parent}/{target[-1]}"
        if source == path:
            return
        there = _lstat(source)
        if there is None:
            self._copy_up(source)
        elif stat.S_ISDIR(there.st_mode) or _is_whiteout(there):
            raise BadLayer(f"{path!r} is a hard link to {source!r}, which is no file")
        self._clear(path)
        os.link(source, path, follow_symlinks=False)

    def _copy_up(self, path: str) -> None:
        """A hard link to a file of a lower layer needs that file in this one: a layer is one file system."""
        with self._below(path.split("/")[1:]) as found:
            if found is None:
                raise BadLayer(f"a hard link names {path!r}, which does not exist")
            mode = found.status.st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(found.name, dir_fd=found.directory), path)
            elif stat.S_ISREG(mode):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                with open(os.open(found.name, flags, dir_fd=found.directory), "rb", buffering=0) as source:
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                    try:
                        _copy(source, fd, found.status.st_size)
                    finally:
                        os.close(fd)
            elif stat.S_ISDIR(mode):
                raise BadLayer(f"a hard link names the directory {path!r}")
            else:
                os.mknod(path, stat.S_IFMT(mode) | 0o600, found.status.st_rdev)
            found.copy_attributes(path)
            time = found.status.st_mtime_ns
            os.utime(path, ns=(time, time), follow_symlinks=False)

    def _attributes(self, path: str, entry: tarfile.TarInfo) -> None:
        # In this order: a change of owner clears setuid bits and file capabilities.
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.issym():
            os.chmod(path, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            if key.startswith(XATTR):
                _set_xattr(path, key[len(XATTR) :], value.encode("utf-8", "surrogateescape"))
        time = _nanoseconds(entry)
        if entry.isdir():
            self._times[path] = time
        else:
            os.utime(path, ns=(time, time), follow_symlinks=False)

    # Whiteouts

    def _whiteout(self, parent: str, name: str) -> None:
        if name == ".wh..wh..opq":
            self._make_opaque(parent)
            return
        if name.startswith(".wh..wh."):
            return  # other marks of aufs, which mean nothing here
        hidden = name[len(".wh.") :]
        if hidden in ("", ".", ".."):
            raise BadLayer(f"the whiteout {name!r} names no file")
        path = f"{parent}/{hidden}"
        there = _lstat(path)
        if there is None:
            # In a directory that no lower layer has, overlayfs would show the device itself.
            with self._below(path.split("/")[1:]) as found:
                if found is not None:
                    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        elif stat.S_ISDIR(there.st_mode):
            self._make_opaque(path)  # a whiteout hides what is below, not what this layer brings

    def _make_opaque(self, path: str) -> None:
        self._opaque.add(path)
        if path:
            os.setxattr(path, OPAQUE, b"y")

    def _hide_lower_root(self) -> None:
        """overlayfs does not look at the mark on a layer's own root: hide each name in it instead."""
        self._opaque.discard("")
        for name in {name for fd in self._lowers for name in os.listdir(fd)}:
            self._whiteout("", f".wh.{name}")

    def _clear(self, path: str) -> None:
        """Take away what this layer has at `path`."""
        there = _lstat(path)
        if there is None:
            return
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(path)
            return
        for directory, names in reversed(list(_walk(path))):
            for name, is_directory in names:
                if not is_directory:
                    os.unlink(f"{directory}/{name}")
            os.rmdir(directory)
        inside = f"{path}/"
        for gone in [known for known in self._times if known == path or known.startswith(inside)]:
            del self._times[gone]
        self._opaque = {kept for kept in self._opaque if kept != path and not kept.startswith(inside)}
        self._parents = {"": ""}


class Found:
    """A name in a lower layer's directory."""

    def __init__(self, directory: int, name: str, status: os.stat_result) -> None:
        self.directory = directory
        self.name = name
        self.status = status

    def copy_attributes(self, path: str) -> None:
        os.chown(path, self.status.st_uid, self.status.st_gid, follow_symlinks=False)
        kind = self.status.st_mode
        if stat.S_ISLNK(kind):
            return
        os.chmod(path, stat.S_IMODE(kind))
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            return
        fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            for name in os.listxattr(fd):
                _set_xattr(path, name, os.getxattr(fd, name))
        finally:
            os.close(fd)


def _clean(name: str) -> list[str]:
    """The components of an entry's name; the root's parent is the root."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _join(parts: Sequence[str]) -> str:
    return "".join(f"/{part}" for part in parts)


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _copy(source: _Source, fd: int, size: int) -> None:
    while size > 0:
        block = source.read(min(size, CHUNK))
        if not block:
            raise EOFError("the layer ends in the middle of a file")
        size -= len(block)
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(fd, rest) :]


def _set_xattr(path: str, name: str, value: bytes) -> None:
    if name.startswith(OVERLAY_XATTRS):
        return
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        # A file system or file type without such attributes loses them; file capabilities must not be lost.
        if error.errno not in (errno.ENOTSUP, errno.EPERM) or name == "security.capability":
            raise


def _nanoseconds(entry: tarfile.TarInfo) -> int:
    """The modification time exactly; tarfile's own number is a float."""
    text = entry.pax_headers.get("mtime", "")
    whole, _, fraction = text.partition(".")
    if text and whole.isdecimal() and (not fraction or fraction.isdecimal()):
        time = int(whole) * 10**9 + int(fraction[:9].ljust(9, "0"))
    else:
        time = int(entry.mtime) * 10**9
    return min(max(time, 0), LAST_TIME)


def _walk(top: str) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Every directory from `top` down, parents first, with its names and whether each is a directory.

    Without recursion: a layer may nest deeper than Python's stack.
    """
    todo = [top]
    while todo:
        directory = todo.pop()
        with os.scandir(directory or "/") as found:
            names = [(item.name, item.is_dir(follow_symlinks=False)) for item in found]
        todo.extend(f"{directory}/{name}" for name, is_directory in names if is_directory)
        yield directory, names


def _measure(top: str) -> tuple[int, int]:
    """Bytes on disk and inodes of everything from `top` down, each file counted once."""
    size, seen = os.lstat(top).st_blocks * 512, set[int]()
    for directory, names in _walk(top.rstrip("/")):
        for name, _ in names:
            status = os.lstat(f"{directory}/{name}")
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                size += status.st_blocks * 512
    return size, len(seen) + 1


if __name__ == "__main__":
    sys.exit(main())
