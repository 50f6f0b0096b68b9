"""When a directory of manifests is to be looked at again: its changes by inotify, and now and then without
any, for what stands behind links changes unseen.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from podwright.errors import ResourceExhausted
from podwright.linux import inotify

RESCAN = 20.0
"""Seconds between two looks without a change (the kubelet's fileCheckFrequency)."""
ABSENT = 2.0
"""… while the directory is not there, or cannot be watched."""
TOGETHER = 0.1
"""Seconds without a change after which those before are taken as one: editors make several."""
TOGETHER_LIMIT = 1.0
WHOLE = inotify.CLOSE_WRITE | inotify.MOVED_TO
"""Nobody writes the file any more that this is told of."""


class DirectoryWatch:
    """Watches one directory, whether it is there or not. To be made in a running event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watch = inotify.Watch()
        self._watched: tuple[int, int] | None = None
        """Device and inode of the directory that is watched."""

    def close(self) -> None:
        self._watch.close()

    def begin(self) -> None:
        """Watch what is there now; before the directory is looked at, so that no change is missed."""
        try:
            found = self._directory.stat()
            there = (found.st_dev, found.st_ino)
            if there != self._watched:
                self._watch.remove(self._directory)
                self._watched = None
                mask = inotify.CHANGES | inotify.CREATE | inotify.ATTRIB | inotify.ONLYDIR
                self._watch.add(self._directory, mask)
                self._watched = there
        except (OSError, ResourceExhausted):
            self._watched = None

    async def changed(self, limit: float | None = None) -> frozenset[str]:
        """Wait for the next changes, at most until the directory is to be looked at without any, or `limit`
        seconds; returns the names of the files that somebody has just finished writing."""
        patience = RESCAN if self._watched is not None else ABSENT
        if limit is not None:
            patience = min(patience, limit)
        whole: set[str] = set()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                self._note([await anext(self._watch)], whole)
            async with asyncio.timeout(TOGETHER_LIMIT):
                while True:
                    async with asyncio.timeout(TOGETHER):
                        self._note([await anext(self._watch)], whole)
        self._note(self._watch.pending(), whole)
        return frozenset(whole)

    def _note(self, events: list[inotify.Event], whole: set[str]) -> None:
        for event in events:
            if event.gone and not event.name:
                self._watched = None
            elif event.mask & WHOLE:
                whole.add(event.name)
            elif event.mask & inotify.CREATE:
                whole.discard(event.name)
