"""Removing whole directories, whatever a container has put into them.

A program may nest directories deeper than Python's stack, than the number of files a process may open and
than the longest path: shutil.rmtree fails at each of them, and what cannot be removed keeps its pod for ever.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

LEVELS = 10
"""Directories entered one below the other: with names of 255 bytes the path stays well below PATH_MAX."""


def remove(top: Path) -> None:
    """Remove directory `top` and all below it; fine when it is absent. Blocks. Raises OSError.

    Nobody else may be writing there. Mounts are not taken away: unmount before.
    """
    deep: list[str] = []
    try:
        _clear(str(top), 0, str(top), deep)
        while deep:
            path = deep.pop()
            _clear(path, 1, str(top), deep)
            os.rmdir(path)  # noqa: PTH106
        top.rmdir()
    except FileNotFoundError:
        if os.path.lexists(top):
            raise


def _clear(path: str, level: int, top: str, deep: list[str]) -> None:
    """Empty `path`. A directory that is too far down is moved up into `top` and added to `deep`."""
    with os.scandir(path) as entries:
        found = list(entries)
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)  # noqa: PTH108
        elif level < LEVELS:
            _clear(entry.path, level + 1, top, deep)
            os.rmdir(entry.path)  # noqa: PTH106
        else:
            moved = f"{top}/{secrets.token_hex(16)}"
            os.rename(entry.path, moved)  # noqa: PTH104
            deep.append(moved)
