"""The group of a volume: fsGroup owns all of it, may do what the owner may, and what is made in a directory
has the group as well."""

from __future__ import annotations

import os
import stat
from pathlib import Path

READ, WRITE, ENTER = 0o440, 0o660, 0o110
"""Bits that every file has then: of a read-only volume, of others; and those of a directory beside."""


def apply(volume: Path, group: int | None, *, readonly: bool = False, only_on_mismatch: bool = False) -> None:
    """Give `volume` and all below it to `group`; None: nothing is done. Links are not followed, and file
    systems mounted below are not entered.

    `only_on_mismatch` (fsGroupChangePolicy: OnRootMismatch): nothing is done where the top directory is as it
    should be, which is why it is changed last. Who is not root cannot give anything to a group: nothing is
    done. Raises OSError. Blocks.
    """
    if group is None or os.geteuid() != 0 or (only_on_mismatch and _fits(volume, group, readonly)):
        return
    device = volume.lstat().st_dev
    # By descriptors: a container may turn a directory into a link while this is going on.
    for _, directories, files, fd in os.fwalk(volume, topdown=False, follow_symlinks=False):
        for name in [*files, *directories]:
            _change(name, fd, group, readonly, device)
    _change(str(volume), None, group, readonly, device)


def _fits(volume: Path, group: int, readonly: bool) -> bool:
    found = volume.stat()
    wanted = (READ if readonly else WRITE) | ENTER | stat.S_ISGID
    return stat.S_ISDIR(found.st_mode) and found.st_gid == group and found.st_mode & wanted == wanted


def _change(name: str, below: int | None, group: int, readonly: bool, device: int) -> None:
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=below)
    except FileNotFoundError:
        return  # somebody works in the volume already
    try:
        found = os.fstat(fd)
        if found.st_dev != device:
            return
        os.chown(name, -1, group, dir_fd=below, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return
        mode = stat.S_IMODE(found.st_mode) | (READ if readonly else WRITE)
        if stat.S_ISDIR(found.st_mode):
            mode |= ENTER | stat.S_ISGID
        os.chmod(f"/proc/self/fd/{fd}", mode)  # noqa: PTH101 - of what was opened, not of a name
    finally:
        os.close(fd)
