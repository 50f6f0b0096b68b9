"""Programs that outlived the process which had the store: they would write into it behind its back.

A killed process takes nothing with it. skopeo notices that nobody listens any more, and unpacking that its
parent has gone, but not before the next start clears away what they were writing to.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import ExitStack
from pathlib import Path

PATIENCE = 10.0
"""Seconds: a process that the kernel holds in the middle of something ends late."""


def end_in(directory: Path) -> int:
    """SIGKILL to each process whose root or whose HOME lies in `directory`, which nobody else can have given
    it; wait for its end. How many they were. Blocks."""
    with ExitStack() as opened:
        found = []
        for name in os.listdir("/proc"):  # noqa: PTH208
            if not name.isdecimal():
                continue
            try:
                # Before it is looked at: so what is looked at is what is killed, whatever becomes of pids.
                fd = os.pidfd_open(int(name))
            except OSError:
                continue
            opened.callback(os.close, fd)
            if _lives_in(directory, Path("/proc") / name):
                found.append(fd)
        for fd in found:
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for fd in found:
            select.select([fd], [], [], PATIENCE)
        return len(found)


def _lives_in(directory: Path, process: Path) -> bool:
    places = []
    try:
        places.append(os.readlink(process / "root"))  # noqa: PTH115
        for entry in (process / "environ").read_bytes().split(b"\0"):
            if entry.startswith(b"HOME="):
                places.append(os.fsdecode(entry[len(b"HOME=") :]))
    except OSError:
        pass  # it has ended, or is not ours to look at
    return any(Path(place).is_relative_to(directory) for place in places)
