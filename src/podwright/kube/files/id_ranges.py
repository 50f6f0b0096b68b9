"""The users of pods that have a user namespace of their own: a range of the host's ids for each.

A pod's directory keeps its range, as a kubelet does it; the range is free again when the directory goes.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

from podwright.errors import ResourceExhausted

LENGTH = 1 << 16
"""Ids that each pod has, from 0 on."""
_LAST = (1 << 32) // LENGTH - 2
"""The host's own users are in the range before the first; the one after the last has the id that is none."""


class Place(Protocol):
    """What of a pod's directory matters here (`PodDirectory`)."""

    @property
    def own(self) -> Path: ...
    @property
    def user_ids(self) -> Path: ...


def claim(root: Path, directory: Place) -> int:
    """The first of the host's ids that the pod of `directory` has; drawn once. ResourceExhausted when all
    ranges are taken. Blocks."""
    directory.own.mkdir(mode=0o750, parents=True, exist_ok=True)
    lock = os.open(root / "pods", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = foreseen(root, directory)
        draft = directory.user_ids.with_suffix(".new")
        draft.write_text(f"{first}\n")
        draft.rename(directory.user_ids)
        return first
    finally:
        os.close(lock)


def foreseen(root: Path, directory: Place) -> int:
    """What `claim` would give; nothing is written."""
    own = _read(directory.user_ids)
    if own is not None:
        return own
    # Pods of earlier versions keep theirs one level further down.
    taken = {_read(path) for place in ("user-ids", ".pod/user-ids") for path in root.glob(f"pods/*/{place}")}
    for place in range(1, _LAST + 1):
        if place * LENGTH not in taken:
            return place * LENGTH
    raise ResourceExhausted(f"all {_LAST} ranges of ids are taken by pods below {root / 'pods'}")


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
