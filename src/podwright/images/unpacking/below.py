"""What the layers below have, one over the other, as overlayfs would show it. They are only read.

Standard library only: part of the program that unpacks layers.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPAQUE = "trusted.overlay.opaque"
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found:
    """A name in a directory of a lower layer; good until the next look below."""

    __slots__ = ("directory", "name", "status")

    def __init__(self, directory: int, name: bytes, status: os.stat_result) -> None:
        self.directory = directory
        self.name = name
        self.status = status

    def link(self) -> bytes:
        return os.readlink(self.name, dir_fd=self.directory)

    def open(self) -> int:
        """The file or directory itself, to read."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags, dir_fd=self.directory)


class Below:
    def __init__(self, roots: Sequence[int]) -> None:
        """`roots`: the layers' directories, topmost first."""
        self._roots = tuple(roots)
        self._path = b""
        self._directories: Sequence[int] = self._roots
        """The directories that make up the one that was looked at last: names come in groups."""

    def __bool__(self) -> bool:
        return bool(self._roots)

    @property
    def top(self) -> int | None:
        """The root directory of the layer that is directly below."""
        return self._roots[0] if self._roots else None

    def find(self, path: bytes, name: bytes) -> Found | None:
        """`name` in the directory `path`, written as the tree's are; links are not followed."""
        for directory in self._merged(path):
            status = _look(directory, name)
            if status is not None:
                return None if is_whiteout(status) else Found(directory, name, status)
        return None

    def names(self) -> set[bytes]:
        """What the root directories have; also what only hides something further below."""
        return {os.fsencode(name) for root in self._roots for name in os.listdir(root)}  # noqa: PTH208

    def _merged(self, path: bytes) -> Sequence[int]:
        """The directories that `path` is made of, topmost first; none where that is no directory."""
        if path == self._path:
            return self._directories
        if not path.startswith(self._path + b"/"):
            _close(self._directories, self._roots)
            self._path, self._directories = b"", self._roots
        rest = path[len(self._path) :].split(b"/")[1:]
        self._path = path
        for name in rest:
            before, self._directories = self._directories, _descend(self._directories, name)
            _close(before, self._roots)
        return self._directories


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return False


def _descend(directories: Sequence[int], name: bytes) -> list[int]:
    deeper: list[int] = []
    for directory in directories:
        status = _look(directory, name)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            break  # it hides what is further below
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
        deeper.append(fd)
        if is_opaque(fd):
            break
    return deeper


def _look(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _close(directories: Sequence[int], roots: tuple[int, ...]) -> None:
    if directories is not roots:
        for fd in directories:
            os.close(fd)
