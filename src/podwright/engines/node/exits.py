"""How processes ended: a file for each, named by its id, that appears whole. Its first word is the exit code,
the time of its last change when that was; a second word "oom" tells that memory was short."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = 255
"""The code of a process whose supervisor died before it."""
_OOM = b"oom"


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    finished_at: int
    """Nanoseconds since the epoch."""
    oom_killed: bool = False
    """Noted by who wrote the file; False says nothing."""


def read(file: Path) -> Ended | None:
    """What was written; None while there is no such file."""
    try:
        with file.open("rb") as stream:
            words = stream.read(16).split()
            finished = os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        code = int(words[0])
    except (ValueError, IndexError):
        code = UNKNOWN
    return Ended(code if 0 <= code <= 255 else UNKNOWN, finished, _OOM in words[1:])


def write(
    directory: Path, id: str, code: int = UNKNOWN, *, finished_at: int = 0, oom_killed: bool = False
) -> None:
    """Note the end of `id`, safe from a crash. `finished_at`: 0 is now."""
    draft = directory / f"{id}.lost"
    with draft.open("wb") as stream:
        stream.write(b"%d %b" % (code, _OOM) if oom_killed else b"%d" % code)
        stream.flush()
        if finished_at:
            os.utime(stream.fileno(), ns=(finished_at, finished_at))
        os.fsync(stream.fileno())
    draft.rename(directory / id)
