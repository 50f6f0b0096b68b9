"""Entries become the files of a layer, as overlayfs wants them.

A whiteout is a character device 0/0, an opaque directory has the attribute trusted.overlay.opaque
(Documentation/filesystems/overlayfs.rst). Where the OCI image specification (layer.md) leaves something open,
entries count as if each were applied in its turn to the merged tree: what a later one puts in the place of an
earlier one hides what was below as well. Whiteouts hide what is below, never what the same layer brings,
whichever comes first. A parent directory that the layer does not bring is the one below: its owner, mode and
attributes are kept, a link is followed, within the image.

Standard library only: part of the program that unpacks layers.
"""

from __future__ import annotations

import os
import stat

from podwright.images.unpacking import archive as form
from podwright.images.unpacking.attributes import (
    copy_attributes,
    set_attributes,
    set_attributes_at,
)
from podwright.images.unpacking.below import Found, is_whiteout
from podwright.images.unpacking.faults import BadLayer, TooLarge, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from podwright.images.unpacking.archive import Archive, Entry
    from podwright.images.unpacking.limits import Limits
    from podwright.images.unpacking.tree import Directory, Tree

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
WHITEOUT, AUFS = b".wh.", b".wh..wh."
OPAQUE_MARK = b".wh..wh..opq"
MAX_MAJOR, MAX_MINOR = 2**12 - 1, 2**20 - 1
COPIED = 1 << 20


class Layer:
    """Applies the entries of an archive to a tree."""

    def __init__(self, tree: Tree, archive: Archive, limits: Limits) -> None:
        self._tree = tree
        self._archive = archive
        self._limits = limits
        self._most_blocks = limits.bytes // 512
        self._block_size = limits.block_size
        self._last_name = b""
        self._last = tree.root
        """The directory that the last entry was in, by the name that it was given: most follow each other."""

    def apply(self, entry: Entry) -> None:
        name = entry.name
        if AUFS in name and self._is_mark_of_aufs(name):
            return
        if name.endswith(b"/"):
            name = name.rstrip(b"/")
        head, _, base = name.rpartition(b"/")
        if base in (b"", b".", b".."):
            parts = _clean(name)
            if not parts:
                self._root(entry)
                return
            parent, base = self._tree.directory(parts[:-1]), parts[-1]
        elif head == self._last_name and self._last.fd >= 0:
            parent = self._last
        else:
            parent = self._parent(head)
        kind = entry.kind
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base)
        elif kind == form.FILE:
            self._file(parent, base, entry)
        elif kind == form.DIRECTORY:
            self._directory(parent, base, entry)
        elif kind == form.LINK:
            self._hard_link(parent, base, entry)
        else:
            self._other(parent, base, entry)
        if self._tree.blocks > self._most_blocks:
            raise TooLarge(self._limits.bytes_words)

    def finish(self) -> tuple[int, int]:
        """What can only be done when every entry is there; the bytes on disk and inodes of the layer."""
        tree = self._tree
        if tree.root.hides:
            # overlayfs does not look at the mark on a layer's own root: each name in it is hidden instead.
            tree.root.hides = False
            for name in tree.below.names():
                self._hide(tree.root, name)
        tree.close()
        return tree.blocks * 512, tree.inodes

    # Entries

    def _parent(self, head: bytes) -> Directory:
        parent = self._tree.known(b"/" + head if head else b"")
        if parent is None:
            parts = _clean(head)
            parent = self._tree.directory(parts)
            # A way through a link can change with any later entry.
            if parent.path != b"".join([b"/" + part for part in parts]):
                return parent
        self._last_name, self._last = head, parent
        return parent

    def _root(self, entry: Entry) -> None:
        if entry.kind != form.DIRECTORY:
            raise BadLayer("it would replace the root directory")
        set_attributes(self._tree.root.fd, entry)
        self._tree.root.time = entry.mtime

    def _file(self, parent: Directory, name: bytes, entry: Entry) -> None:
        try:
            fd = os.open(name, NEW_FILE, 0o600, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, name)
            fd = os.open(name, NEW_FILE, 0o600, dir_fd=parent.fd)
        self._tree.inodes += 1
        try:
            if entry.pieces is None:
                size = entry.size
                if size:
                    self._archive.copy(fd, size)
                    self._tree.blocks += -(-size // self._block_size) * self._block_size // 512
            else:
                for offset, length in entry.pieces:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._archive.copy(fd, length)
                os.ftruncate(fd, entry.size)
            set_attributes(fd, entry)
            if entry.pieces is not None:
                self._tree.blocks += os.fstat(fd).st_blocks
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, parent: Directory, name: bytes, entry: Entry) -> None:
        made = self._tree.make(parent, name, 0o700)
        set_attributes(made.fd, entry)
        made.time = entry.mtime

    def _other(self, parent: Directory, name: bytes, entry: Entry) -> None:
        if entry.kind == form.CHARACTER and not entry.major and not entry.minor:
            self._tree.remove(parent, name)
            self._hide(parent, name)  # as overlayfs would take it
            return
        try:
            _make_other(parent.fd, name, entry)
        except FileExistsError:
            self._tree.remove(parent, name)
            _make_other(parent.fd, name, entry)
        self._tree.inodes += 1
        set_attributes_at(parent.fd, name, entry)
        if entry.xattrs or len(entry.link) > 50:  # else it has no block of its own
            self._tree.blocks += os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_blocks

    def _hard_link(self, parent: Directory, name: bytes, entry: Entry) -> None:
        target = _clean(entry.link)
        if not target:
            raise BadLayer("it is a hard link to the root directory")
        tree, source_name = self._tree, target[-1]
        source = tree.directory(target[:-1])
        parent = tree.directory(parent.path.split(b"/")[1:])  # the look for the source may have closed it
        try:
            there = os.stat(source_name, dir_fd=source.fd, follow_symlinks=False)
        except FileNotFoundError:
            self._copy_up(source, source_name)
        else:
            if stat.S_ISDIR(there.st_mode) or is_whiteout(there):
                raise BadLayer(f"it is a hard link to {shown(entry.link)}, which is no file")
        if (source.path, source_name) != (parent.path, name):
            self._link(source, source_name, parent, name, entry.link)
        # The peers let the last header of a file's names count, too.
        set_attributes_at(parent.fd, name, entry)

    def _link(
        self, source: Directory, source_name: bytes, parent: Directory, name: bytes, link: bytes
    ) -> None:
        options = {"src_dir_fd": source.fd, "dst_dir_fd": parent.fd, "follow_symlinks": False}
        try:
            os.link(source_name, name, **options)  # type: ignore[arg-type]
        except FileExistsError:
            there = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            wanted = os.stat(source_name, dir_fd=source.fd, follow_symlinks=False)
            if there.st_ino == wanted.st_ino:
                return
            self._tree.remove(parent, name)
            if source.fd < 0:
                raise BadLayer(
                    f"it takes the place of the directory of {shown(link)}, which it links to"
                ) from None
            os.link(source_name, name, **options)  # type: ignore[arg-type]

    def _copy_up(self, parent: Directory, name: bytes) -> None:
        """A hard link to a file of a lower layer needs that file in this one: a layer is one file system."""
        found = None if parent.hides else self._tree.below.find(parent.path, name)
        place = shown(parent.path + b"/" + name)
        if found is None:
            raise BadLayer(f"it is a hard link to {place}, which does not exist")
        mode, time = found.status.st_mode, found.status.st_mtime_ns
        if stat.S_ISDIR(mode):
            raise BadLayer(f"it is a hard link to the directory {place}")
        if stat.S_ISREG(mode):
            self._copy_file(found, parent.fd, name)
        else:
            if stat.S_ISLNK(mode):
                os.symlink(found.link(), name, dir_fd=parent.fd)
            else:
                os.mknod(name, stat.S_IFMT(mode) | 0o600, found.status.st_rdev, dir_fd=parent.fd)
            owner = found.status.st_uid, found.status.st_gid
            os.chown(name, *owner, dir_fd=parent.fd, follow_symlinks=False)
        os.utime(name, ns=(time, time), dir_fd=parent.fd, follow_symlinks=False)
        self._tree.inodes += 1
        self._tree.blocks += os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_blocks

    def _copy_file(self, found: Found, directory: int, name: bytes) -> None:
        source = found.open()
        try:
            fd = os.open(name, NEW_FILE, 0o600, dir_fd=directory)
            try:
                _copy_data(source, fd, found.status.st_size)
                copy_attributes(source, fd)
            finally:
                os.close(fd)
        finally:
            os.close(source)

    # Whiteouts

    def _whiteout(self, parent: Directory, name: bytes) -> None:
        if name == OPAQUE_MARK:
            self._tree.make_opaque(parent)
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise BadLayer("this whiteout names no file")
        self._hide(parent, hidden)

    def _hide(self, parent: Directory, name: bytes) -> None:
        """Let `name` in `parent` not be seen below."""
        tree = self._tree
        if not tree.below or parent.hides:
            return
        try:
            there = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            # In a directory that no lower layer has, overlayfs would show the device itself.
            if tree.below.find(parent.path, name) is not None:
                tree.make_whiteout(parent, name)
            return
        if stat.S_ISDIR(there.st_mode):
            tree.make_opaque(tree.make(parent, name, 0o755))

    def _is_mark_of_aufs(self, name: bytes) -> bool:
        """Whether `name` is, or is in, what aufs keeps for itself: it means nothing here."""
        *above, base = _clean(name) or [b""]
        return any(part.startswith(AUFS) for part in above) or (base.startswith(AUFS) and base != OPAQUE_MARK)


def _make_other(directory: int, name: bytes, entry: Entry) -> None:
    if entry.kind == form.SYMLINK:
        os.symlink(entry.link, name, dir_fd=directory)
    elif entry.kind == form.FIFO:
        os.mkfifo(name, 0o600, dir_fd=directory)
    else:
        if entry.major > MAX_MAJOR or entry.minor > MAX_MINOR:
            raise BadLayer(f"there is no device {entry.major}/{entry.minor}")
        kind = stat.S_IFCHR if entry.kind == form.CHARACTER else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=directory)


def _clean(name: bytes) -> list[bytes]:
    """The components of an entry's name; the root's parent is the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy a file and its holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(source, at, os.SEEK_SET)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            copied = os.sendfile(target, source, None, min(end - at, COPIED))
            if not copied:
                break
            at += copied
    os.ftruncate(target, size)
