"""The directories of the layer that is being made.

Every name is resolved here, one component at a time, relative to the open directory it is in: the kernel
never follows a link for this program. Directories stay open as long as entries come for them; when one is
closed it gets back the time that new names have changed, so nothing must be remembered until the end, however
many directories a layer has. What the layer occupies is counted in passing.

Standard library only: part of the program that unpacks layers.
"""

from __future__ import annotations

import errno
import os
import stat

from podwright.images.unpacking.attributes import copy_attributes
from podwright.images.unpacking.below import OPAQUE, OPEN_DIRECTORY, Below, is_opaque, is_whiteout
from podwright.images.unpacking.clearing import remove_directory, remove_whiteouts, unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_OPEN = 100
MAX_LINKS = 40
"""As many links as the kernel follows in one path."""


class Directory:
    """An open directory of the layer."""

    __slots__ = ("blocks", "fd", "hides", "path", "time")

    def __init__(self, path: bytes, fd: int, hides: bool, blocks: int, time: int | None) -> None:
        self.path = path
        """Its real place, no link in it, from the layer's root, which is "": "/usr/lib"."""
        self.fd = fd
        self.hides = hides
        """Nothing below can be seen through it: it or a directory above it is opaque."""
        self.blocks = blocks
        """What it occupied when that was last counted."""
        self.time = time
        """The time of modification that it gets when it is closed, if it is not to be the last change's."""


class Tree:
    def __init__(self, root: int, below: Below) -> None:
        self.below = below
        self.blocks = 0
        """Of 512 bytes, that everything in the layer occupies."""
        self.inodes = 1
        self._has_whiteouts = False
        self.root = Directory(b"", root, False, 0, None)
        self._open: dict[bytes, Directory] = {}
        """The last used is the last."""
        top = below.top
        if top is not None:
            copy_attributes(top, root)
            self.root.time = os.fstat(top).st_mtime_ns

    def known(self, path: bytes) -> Directory | None:
        """The directory whose real place this is, if it is open."""
        if not path:
            return self.root
        known = self._open.pop(path, None)
        if known is not None:
            self._open[path] = known
        return known

    def directory(self, parts: Sequence[bytes]) -> Directory:
        """The directory `parts` of this layer over those below, links followed within the layer; made here,
        like the one below if there is one, when it is not there."""
        path = b"".join([b"/" + part for part in parts])
        known = self.known(path)
        if known is not None:
            return known
        at, rest = self._nearest(path)
        todo, links = list(reversed(rest)), 0
        try:
            while todo:
                name = todo.pop()
                if name in (b"", b"."):
                    continue
                before = at
                if name == b"..":
                    at = self._walk(at.path.rpartition(b"/")[0])
                else:
                    deeper = self._link_or_directory(at, name)
                    if isinstance(deeper, Directory):
                        at = deeper
                    else:
                        links += 1
                        if links > MAX_LINKS:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                        todo.extend(reversed(deeper.split(b"/")))
                        if deeper.startswith(b"/"):
                            at = self.root
                if at is not before:
                    self._release(before)
        except BaseException:
            self._release(at)
            raise
        known = self.known(at.path)
        if known is not None:
            if known is not at:
                self._release(at)
            return known
        return self._keep(at)

    def make(self, parent: Directory, name: bytes, mode: int) -> Directory:
        """Make the directory `name` in `parent` unless it is there; something else gives way to it."""
        opaque = False
        try:
            os.mkdir(name, mode, dir_fd=parent.fd)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                return self.known(parent.path + b"/" + name) or self._keep(self._enter(parent, name))
            # What it takes the place of has hidden what is below, and so must it.
            opaque = bool(self.below)
            self.remove(parent, name)
            os.mkdir(name, mode, dir_fd=parent.fd)
        made = self._keep(self._made(parent, name))
        if opaque:
            self.make_opaque(made)
        return made

    def make_opaque(self, directory: Directory) -> None:
        """Let nothing below be seen in `directory`."""
        if not self.below:
            return
        if directory is not self.root:
            os.setxattr(directory.fd, OPAQUE, b"y")
        if directory.hides:
            return
        directory.hides = True
        inside = directory.path + b"/"
        for path, known in self._open.items():
            if path.startswith(inside):
                known.hides = True
        if self._has_whiteouts:
            remove_whiteouts(directory.fd, self._gone)

    def make_whiteout(self, parent: Directory, name: bytes) -> None:
        """Let what is below at `name` in `parent` not be seen."""
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent.fd)
        self.inodes += 1
        self._has_whiteouts = True

    def remove(self, parent: Directory, name: bytes) -> None:
        """Take away what the layer has at `name` in `parent`, with all that is in it; nothing is fine."""
        try:
            there = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(there.st_mode):
            unlink(parent.fd, name, self._gone)
            return
        gone = parent.path + b"/" + name
        inside = gone + b"/"
        for path in [path for path in self._open if path == gone or path.startswith(inside)]:
            self._close(self._open.pop(path))
        remove_directory(parent.fd, name, self._gone)

    def close(self) -> None:
        """Close every directory."""
        for directory in (*self._open.values(), self.root):
            self._close(directory)
        self._open.clear()

    # Directories

    def _keep(self, directory: Directory) -> Directory:
        self._open[directory.path] = directory
        if len(self._open) > MAX_OPEN:
            self._close(self._open.pop(next(iter(self._open))))
        return directory

    def _nearest(self, path: bytes) -> tuple[Directory, list[bytes]]:
        """The open directory nearest to the end of `path`, and what is left to go from there."""
        above = path.rpartition(b"/")[0]
        if above not in self._open:
            begins = [known for known in self._open if path.startswith(known + b"/")]
            above = max(begins, key=len, default=b"")
        return self.known(above) or self.root, path[len(above) :].split(b"/")[1:]

    def _walk(self, path: bytes) -> Directory:
        """A directory that is there, by its real place."""
        known = self.known(path)
        if known is not None:
            return known
        at, rest = self._nearest(path)
        for name in rest:
            before, at = at, self._enter(at, name)
            self._release(before)
        return at

    def _link_or_directory(self, at: Directory, name: bytes) -> Directory | bytes:
        """`name` in `at` as a directory, made if it is not there; if it is a link, what that says."""
        known = self._open.get(at.path + b"/" + name)
        if known is not None:
            return known
        try:
            return self._enter(at, name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
        try:
            there = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
        except FileNotFoundError:
            return self._like_below(at, name)
        if stat.S_ISLNK(there.st_mode):
            return os.readlink(name, dir_fd=at.fd)
        if not is_whiteout(there):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        self.remove(at, name)
        made = self._like_nothing(at, name)
        self.make_opaque(made)
        return made

    def _like_below(self, at: Directory, name: bytes) -> Directory | bytes:
        found = None if at.hides else self.below.find(at.path, name)
        if found is None:
            return self._like_nothing(at, name)
        if stat.S_ISLNK(found.status.st_mode):
            return found.link()
        if not stat.S_ISDIR(found.status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        os.mkdir(name, 0o700, dir_fd=at.fd)
        made = self._made(at, name)
        source = found.open()
        try:
            copy_attributes(source, made.fd)
        finally:
            os.close(source)
        made.time = found.status.st_mtime_ns
        return made

    def _like_nothing(self, at: Directory, name: bytes) -> Directory:
        """A directory that neither this layer nor one below says anything about."""
        os.mkdir(name, 0o755, dir_fd=at.fd)
        made = self._made(at, name)
        # A setgid bit of the directory above has given it a group and that bit.
        os.fchown(made.fd, 0, 0)
        os.fchmod(made.fd, 0o755)
        return made

    def _enter(self, at: Directory, name: bytes) -> Directory:
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=at.fd)
        status = os.fstat(fd)
        hides = at.hides or (bool(self.below) and is_opaque(fd))
        return Directory(at.path + b"/" + name, fd, hides, status.st_blocks, status.st_mtime_ns)

    def _made(self, parent: Directory, name: bytes) -> Directory:
        self.inodes += 1
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd)
        return Directory(parent.path + b"/" + name, fd, parent.hides, 0, None)

    def _release(self, directory: Directory) -> None:
        """Close a directory that was only passed through."""
        if directory is not self.root and self._open.get(directory.path) is not directory:
            self._close(directory)

    def _close(self, directory: Directory) -> None:
        if directory.time is not None:
            os.utime(directory.fd, ns=(directory.time, directory.time))
        blocks = os.fstat(directory.fd).st_blocks
        self.blocks += blocks - directory.blocks
        directory.blocks = blocks
        os.close(directory.fd)
        directory.fd = -1

    def _gone(self, status: os.stat_result) -> None:
        if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
            self.inodes -= 1
            self.blocks -= status.st_blocks
