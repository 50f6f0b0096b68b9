"""The exits directory of the oci engine, into which conmon writes how processes ended, watched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from podwright.engines.node.places import ID
from podwright.linux import inotify


class ExitWatch:
    """The ids of processes that end, from the moment of construction on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watch = inotify.Watch()
        self._watch.add(directory, inotify.MOVED_TO)  # conmon writes a draft and renames it

    def close(self) -> None:
        self._watch.close()

    async def ids(self) -> AsyncIterator[str]:
        """Ids may repeat. Ends with `close`."""
        async for event in self._watch:
            if event.overflow:
                for file in sorted(self._directory.iterdir()):
                    if ID.fullmatch(file.name):
                        yield file.name
            elif ID.fullmatch(event.name):
                yield event.name
