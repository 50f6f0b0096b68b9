"""What the processes of a container hold open, and how much they may."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import NamedTuple


class Open(NamedTuple):
    descriptors: int
    sockets: int


def opened(pids: Iterable[int]) -> Open:
    """Of all `pids` together; those that end meanwhile count for nothing. Blocks: one call a descriptor."""
    descriptors = sockets = 0
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    descriptors += 1
                    sockets += _is_socket(entry.path)
        except OSError:
            continue  # it has ended
    return Open(descriptors, sockets)


def max_open_files(pid: int) -> int | None:
    """The soft limit of process `pid`; 2**64 - 1, which is -1, when there is none, None when it is gone."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return None
    return soft % (1 << 64)


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")  # noqa: PTH115 (once for each descriptor)
    except OSError:
        return False  # closed meanwhile
