"""How processes under conmon ended: the files in the exits directory, read when they appear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from podwright.engines.node.places import ID
from podwright.linux import inotify

UNKNOWN = 255
"""The code of a process whose supervisor died before it."""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    finished_at: int
    """Nanoseconds since the epoch: when conmon wrote the file."""


def read(file: Path) -> Ended | None:
    """What conmon wrote; None while there is no such file."""
    try:
        with file.open("rb") as stream:
            text = stream.read(16)
            finished = file.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        code = int(text)
    except ValueError:
        code = UNKNOWN
    return Ended(code if 0 <= code <= 255 else UNKNOWN, finished)


def write(directory: Path, id: str, code: int = UNKNOWN) -> None:
    """Stand in for a conmon that died, or never was."""
    draft = directory / f"{id}.lost"
    draft.write_text(str(code))
    draft.rename(directory / id)


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
