"""Owners, modes, extended attributes and times of files that were just made.

Kept are attributes of users, trusted ones, POSIX ACLs and file capabilities. Marks of overlayfs itself could
redirect look-ups, and labels of security modules speak of another host: they are dropped.

Standard library only: part of the program that unpacks layers.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwright.images.unpacking.archive import Entry

CAPABILITY = b"security.capability"
DROPPED = (b"trusted.overlay.", b"user.overlay.", b"security.")


def set_attributes(fd: int, entry: Entry) -> None:
    """All but the time of modification, for an open file or directory."""
    # In this order: a change of owner clears setuid bits and file capabilities.
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode & 0o7777)
    if entry.xattrs:
        set_xattrs(fd, entry.xattrs)


def set_attributes_at(directory: int, name: bytes, entry: Entry) -> None:
    """All of them, for what cannot or must not be opened (links, devices, pipes)."""
    os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, entry.mode & 0o7777, dir_fd=directory)
    if entry.xattrs:
        os.fchdir(directory)
        set_xattrs(name, entry.xattrs)
    os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)


def set_xattrs(file: int | bytes, xattrs: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in xattrs:
        if name != CAPABILITY and name.startswith(DROPPED):
            continue
        try:
            os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
        except OSError as error:
            # A file system or kind of file without such attributes loses them; capabilities must not be lost.
            if error.errno not in (errno.ENOTSUP, errno.EPERM) or name == CAPABILITY:
                raise OSError(error.errno, f"attribute {name!r}: {error.strerror}") from error


def copy_attributes(source: int, target: int) -> None:
    """Give the open file or directory `target` what `source` has, but for the time of modification."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    set_xattrs(target, [(os.fsencode(name), os.getxattr(source, name)) for name in os.listxattr(source)])
