"""What file trees take on the disk. They are walked in threads, seldom, and the more seldom the larger they
are: who asks gets what is known."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from podwright.linux.beneath import open_beneath

AGAIN = 60.0
"""Seconds after which a tree is walked again, if somebody asks."""
SHARE = 100
"""A walk is repeated after this many times its own duration at the earliest: one percent of a core."""
SELDOM = 1200.0
"""Seconds after which even the largest tree is walked again."""
FIRST_WAIT = 0.25
"""Seconds that who asks first waits for the first walks."""


class Use(NamedTuple):
    at: int
    """When it was measured, nanoseconds since the epoch."""
    bytes: int
    inodes: int


@dataclass(slots=True, eq=False)
class _Known:
    trees: Sequence[str]
    use: Use | None = None
    due: float = 0.0
    """By time.monotonic()."""


class Disk:
    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._walks: dict[str, asyncio.Task[None]] = {}
        """First walks and later ones are apart: a new small tree shall not wait for a large one."""
        self._closed = False

    async def of(self, trees: Mapping[str, Sequence[str]]) -> dict[str, Use]:
        """What the trees of each key take together. A key is left out whose first walk takes long."""
        now = time.monotonic()
        first, again = [], []
        for key, paths in trees.items():
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Known(paths)
            if known.use is None:
                first.append(known)
            elif known.due <= now:
                again.append(known)
        if again:
            self._walk("again", again)
        if first:
            await asyncio.wait([self._walk("first", first)], timeout=FIRST_WAIT)
        return {
            key: known.use
            for key in trees
            if (known := self._known.get(key)) is not None and known.use is not None
        }

    def forget(self, key: str) -> None:
        self._known.pop(key, None)

    async def close(self) -> None:
        """Walks under way end at their next directory."""
        self._closed = True
        if self._walks:
            await asyncio.wait(self._walks.values())

    def _is_closed(self) -> bool:
        return self._closed

    def _walk(self, kind: str, wanted: Sequence[_Known]) -> asyncio.Task[None]:
        """Those that are under way already are not joined: who asks again gets the rest walked."""
        task = self._walks.get(kind)
        if task is None or task.done():
            task = self._walks[kind] = asyncio.ensure_future(asyncio.to_thread(self._measure, wanted))
        return task

    def _measure(self, wanted: Sequence[_Known]) -> None:
        for known in wanted:
            began = time.monotonic()
            use = measured(known.trees, self._is_closed)
            if use is None:
                return
            ended = time.monotonic()
            known.due = ended + min(SELDOM, max(AGAIN, SHARE * (ended - began)))
            known.use = use


def measured(trees: Sequence[str], ended: Callable[[], bool] = lambda: False) -> Use | None:
    """Walk `trees`; files with several names count once. None when `ended`, asked at every directory, says
    so."""
    at = time.time_ns()
    linked: set[tuple[int, int]] = set()
    size = inodes = 0
    for tree in trees:
        for status in _statuses(tree):
            if status is None:
                if ended():
                    return None
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                name = (status.st_dev, status.st_ino)
                if name in linked:
                    continue
                linked.add(name)
            size += status.st_blocks * 512
            inodes += 1
    return Use(at, size, inodes)


def _statuses(tree: str) -> Iterator[os.stat_result | None]:
    """Of `tree` and all below it; None before each directory. What vanishes meanwhile is left out.

    A container may be putting links in the way: the walk never leaves the tree."""
    try:
        top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        yield os.fstat(top)
        pending = ["."]
        while pending:
            yield None
            here = pending.pop()
            for name, status in _entries(top, here):
                yield status
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{here}/{name}")
    finally:
        os.close(top)


def _entries(top: int, path: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        fd = open_beneath(top, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except OSError:
                    continue
    except OSError:
        return
    finally:
        os.close(fd)
