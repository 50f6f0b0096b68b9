"""One process at a time owns a state root: a file lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwright.errors import FailedPrecondition


class Taken(FailedPrecondition):
    """Another process has the state; it may let go of it soon."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of `root`; Taken, which names the holder's pid, when another has it."""
    root.mkdir(parents=True, exist_ok=True, mode=0o711)
    path = root / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Taken(
                f"{root} is in use by another podwright (pid {holder}): stop it, or choose another --root"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
