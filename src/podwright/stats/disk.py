"""What file trees take on the disk. They are walked in threads, seldom, and the more seldom the larger they
are: who asks gets what is known."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from podwright.linux.beneath import open_beneath

AGAIN = 60.0
"""Seconds after which a tree is walked again, if somebody asks."""
SHARE = 100
"""A walk is repeated after this many times its own duration at the earliest: one percent of a core."""
SELDOM = 1200.0
"""Seconds after which even the largest tree is walked again."""
THREADS = 2
"""Walks at once: two large trees may hold up the others, never the threads of anything else."""
FIRST_WAIT = 0.25
"""Seconds that who asks first waits for the first walks."""


class Use(NamedTuple):
    at: int
    """When it was measured, nanoseconds since the epoch."""
    bytes: int
    inodes: int


@dataclass(slots=True, eq=False)
class _Known:
    use: Use | None = None
    due: float = 0.0
    """By time.monotonic()."""
    walk: asyncio.Future[None] | None = None
    """The latest."""

    @property
    def walking(self) -> bool:
        return self.walk is not None and not self.walk.done()


class Disk:
    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._threads = ThreadPoolExecutor(THREADS, "disk-use")
        self._closed = False

    async def of(self, trees: Mapping[str, Sequence[str]]) -> dict[str, Use]:
        """What the trees of each key take together. A key is left out as long as its first walk takes."""
        now = time.monotonic()
        first = []
        for key, paths in trees.items():
            entry = self._known.setdefault(key, _Known())
            if not entry.walking and (entry.use is None or entry.due <= now):
                entry.walk = asyncio.get_running_loop().run_in_executor(
                    self._threads, self._measure, entry, paths
                )
            if entry.use is None and entry.walk is not None:
                first.append(entry.walk)
        if first:
            await asyncio.wait(first, timeout=FIRST_WAIT)
        uses = {key: known.use for key in trees if (known := self._known.get(key))}
        return {key: use for key, use in uses.items() if use is not None}

    def forget(self, key: str) -> None:
        """A walk that is under way goes on, for nobody."""
        self._known.pop(key, None)

    async def close(self) -> None:
        """Walks under way end at their next directory."""
        self._closed = True
        walks = [known.walk for known in self._known.values() if known.walk is not None]
        if walks:
            await asyncio.wait(walks)
        self._threads.shutdown(wait=False)

    def _is_closed(self) -> bool:
        return self._closed

    def _measure(self, known: _Known, trees: Sequence[str]) -> None:
        """In a thread."""
        began = time.monotonic()
        use = measured(trees, self._is_closed)
        ended = time.monotonic()
        known.due = ended + pause(ended - began)
        known.use = use or known.use


def pause(took: float) -> float:
    """Seconds until a tree is walked again whose walk took so many."""
    return min(SELDOM, max(AGAIN, SHARE * took))


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
