"""The files a fake container sees: those it writes live in memory, its mounts are the host's.

A path below a mount of the request whose host path exists is that file of the host, read and (unless the
mount is read-only) written through, so that volumes are shared and a termination message reaches whoever
reads it. Nothing outside the mount is reached from there, links included. Everything else begins as a small
Linux image in which every built-in program is in /bin, and costs nothing until it is written.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from podwright.engines.fake.programs.streams import Device, Stream
from podwright.wire import cri_pb2 as cri

LIMIT = 64 << 20
"""Bytes that the files of one container may hold in memory; more is "No space left on device"."""
FIRST_DIRECTORIES = frozenset(
    f"/{each}"
    for each in (
        *(
            "",
            "bin",
            "dev",
            "etc",
            "home",
            "lib",
            "mnt",
            "opt",
            "proc",
            "proc/1",
            "root",
            "run",
            "sbin",
            "sys",
        ),
        *("tmp", "usr", "usr/bin", "usr/lib", "usr/local", "usr/local/bin", "usr/sbin"),
        *("var", "var/lib", "var/log", "var/run", "var/tmp"),
    )
)
BINARIES = ("/bin", "/usr/bin")
_DEVICES: dict[str, Callable[[], Stream]] = {
    "/dev/null": Stream,
    "/dev/zero": lambda: Device(bytes),
    "/dev/full": lambda: Device(bytes, full=True),
    "/dev/random": lambda: Device(os.urandom),
    "/dev/urandom": lambda: Device(os.urandom),
}


class Kind(NamedTuple):
    letter: str
    """As in find -type: "f", "d", "c" (a device)."""
    size: int
    executable: bool = False


class Files:
    def __init__(
        self,
        mounts: Sequence[cri.Mount] = (),
        *,
        generated: Callable[[str], bytes | None] = lambda path: None,
        names: Sequence[str] = (),
        programs: Sequence[str] = (),
        directories: Sequence[str] = (),
        readonly: bool = False,
    ) -> None:
        """`generated` gives the files that are there without having been written, `names` are the paths of
        those that lists show, `programs` the names in /bin, `directories` those that the image has besides;
        `readonly`: nothing outside mounts and /dev can be written."""
        self._mounts = {posixpath.normpath(each.container_path): each for each in mounts if each.host_path}
        self._generated = generated
        self._names = names
        self._programs = programs
        self._directories = (*(posixpath.normpath(each) for each in directories), *self._mounts)
        self._readonly = readonly
        self._written: dict[str, bytearray | None] = {}

    @property
    def written(self) -> dict[str, bytearray | None]:
        """What the container has made and is kept in memory, by path; None is a directory."""
        return self._written

    def open(self, path: str, mode: str) -> Stream:
        """`mode`: "r", "w" (empties it), "a" (appends) or "r+". OSError."""
        if (device := _DEVICES.get(path)) is not None:
            return device()
        host = self._host(path)
        if host is not None:
            return _open_host(host, mode)
        kind = self.kind(path)
        if kind is not None and kind.letter == "d":
            raise _error(errno.EISDIR, path)
        if mode == "r":
            return _Opened(self, self._content(path), mode)
        self._require_writable(path)
        content = self._written.get(path)
        if content is None:
            self._require_parent(path)
            content = self._written[path] = bytearray(self._generated(path) or b"")
        if mode == "w":
            del content[:]
        return _Opened(self, content, mode)

    def kind(self, path: str) -> Kind | None:
        """What is at `path`; None: nothing."""
        if path in _DEVICES:
            return Kind("c", 0)
        if (host := self._host(path)) is not None:
            try:
                found = Path(host.path).stat()
            except OSError:
                return None
            is_directory = stat.S_ISDIR(found.st_mode)
            return Kind("d" if is_directory else "f", found.st_size, bool(found.st_mode & 0o111))
        if path in self._written:
            content = self._written[path]
            return Kind("d", 0, True) if content is None else Kind("f", len(content))
        if path in FIRST_DIRECTORIES or any(
            each == path or _is_below(each, path) for each in self._directories
        ):
            return Kind("d", 0, True)
        head, name = posixpath.split(path)
        if head in BINARIES and name in self._programs:
            return Kind("f", 0, True)
        generated = self._generated(path)
        return Kind("f", len(generated)) if generated is not None else None

    def names(self, path: str) -> list[str]:
        """What the directory `path` holds, in order. OSError."""
        kind = self.kind(path)
        if kind is None:
            raise _error(errno.ENOENT, path)
        if kind.letter != "d":
            raise _error(errno.ENOTDIR, path)
        found: set[str] = set()
        if (host := self._host(path)) is not None:
            found.update(each.name for each in Path(host.path).iterdir())
        elif path in BINARIES:
            found.update(self._programs)
        for each in (*self._written, *self._directories, *self._names, *FIRST_DIRECTORIES, *_DEVICES):
            if _is_below(each, path):
                found.add(each[len(path.rstrip("/")) + 1 :].partition("/")[0])
        return sorted(found)

    def make_directory(self, path: str) -> None:
        if self.kind(path) is not None:
            raise _error(errno.EEXIST, path)
        if (host := self._host(path)) is not None:
            host.require_writable()
            Path(host.path).mkdir()
            return
        self._require_writable(path)
        self._require_parent(path)
        self._written[path] = None

    def remove(self, path: str) -> None:
        """A file, or an empty directory."""
        kind = self.kind(path)
        if kind is None:
            raise _error(errno.ENOENT, path)
        if path in self._mounts:
            raise _error(errno.EBUSY, path)
        if kind.letter == "d" and self.names(path):
            raise _error(errno.ENOTEMPTY, path)
        if (host := self._host(path)) is not None:
            host.require_writable()
            (Path.rmdir if kind.letter == "d" else Path.unlink)(Path(host.path))
            return
        self._require_writable(path)
        if path not in self._written:
            # What every container has is mounted by a runtime, or belongs to the image.
            raise _error(errno.EBUSY, path)
        del self._written[path]

    def first_line(self, path: str) -> str:
        """Of the file at `path`, at most 128 bytes of it; "" when there is none that can be read."""
        try:
            host = self._host(path)
            if host is None:
                content = bytes((self._written.get(path) or b"")[:128])
            else:
                with open(host.path, "rb") as file:
                    content = file.read(128) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
        except OSError:
            return ""
        return content.split(b"\n")[0].decode(errors="surrogateescape")

    def text(self, path: str) -> str:
        """What is in a file that is kept in memory, "" when there is none."""
        return (self._written.get(path) or self._generated(path) or b"").decode(errors="surrogateescape")

    def used(self) -> int:
        return sum(len(each) for each in self._written.values() if each is not None)

    def _content(self, path: str) -> bytearray:
        content = self._written.get(path)
        if content is not None:
            return content
        generated = self._generated(path)
        if generated is None and self.kind(path) is None:
            raise _error(errno.ENOENT, path)
        return bytearray(generated or b"")

    def _require_parent(self, path: str) -> None:
        parent = self.kind(posixpath.dirname(path))
        if parent is None:
            raise _error(errno.ENOENT, path)
        if parent.letter != "d":
            raise _error(errno.ENOTDIR, path)

    def _require_writable(self, path: str) -> None:
        if (self._readonly and not _is_below(path, "/dev")) or _is_below(path, "/proc"):
            raise _error(errno.EROFS, path)

    def _host(self, path: str) -> _HostPath | None:
        """Where on the host `path` lies; None: in memory. OSError when a link leads out of the mount."""
        if not self._mounts:
            return None
        place = path
        while place not in self._mounts:
            if place == "/":
                return None
            place = posixpath.dirname(place)
        mount = self._mounts[place]
        root = os.path.realpath(mount.host_path)
        if not Path(root).exists():
            return None
        if path == place:
            return _HostPath(root, mount.readonly)
        found = os.path.realpath(f"{root}/{path[len(place.rstrip('/')) + 1 :]}")
        if not _is_below(found, root):
            raise _error(errno.EACCES, path)
        return _HostPath(found, mount.readonly)


class _HostPath(NamedTuple):
    path: str
    readonly: bool

    def require_writable(self) -> None:
        if self.readonly:
            raise _error(errno.EROFS, self.path)


class _Opened(Stream):
    """A file in memory, read and written from one place on."""

    __slots__ = ("_content", "_files", "_mode", "_place")

    def __init__(self, files: Files, content: bytearray, mode: str) -> None:
        super().__init__()
        self._files = files
        self._content = content
        self._mode = mode
        self._place = 0

    async def read(self, size: int, *, line: bool = False) -> bytes:
        if self._mode in ("w", "a"):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        end = self._place + size
        if line:
            end = self._content.find(b"\n", self._place, end) + 1 or end
        found = bytes(self._content[self._place : end])
        self._place += len(found)
        return found

    async def write(self, data: bytes) -> None:
        if self._mode == "r":
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._files.used() + len(data) > LIMIT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        place = len(self._content) if self._mode == "a" else self._place
        if place > len(self._content):
            self._content.extend(bytes(place - len(self._content)))
        self._content[place : place + len(data)] = data
        self._place = place + len(data)


class _HostFile(Stream):
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    async def read(self, size: int, *, line: bool = False) -> bytes:
        found = os.read(self._fd, size)
        if line and (end := found.find(b"\n") + 1):
            os.lseek(self._fd, end - len(found), os.SEEK_CUR)
            return found[:end]
        return found

    async def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def _closed(self) -> None:
        os.close(self._fd)


_FLAGS = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "r+": os.O_RDWR | os.O_CREAT,
}


def _open_host(host: _HostPath, mode: str) -> Stream:
    if mode != "r":
        host.require_writable()
    # A FIFO must not hold up everybody.
    fd = os.open(host.path, _FLAGS[mode] | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        os.close(fd)
        raise _error(errno.EISDIR if stat.S_ISDIR(kind) else errno.ENXIO, host.path)
    return _HostFile(fd)


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory if directory.endswith("/") else f"{directory}/") and path != directory


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
