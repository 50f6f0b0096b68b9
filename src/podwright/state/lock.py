"""One process at a time owns a state root: a file lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwright.errors import FailedPrecondition

_SHOWN = 100
"""Characters of a command in a message."""


class Taken(FailedPrecondition):
    """Another process has the state; it may let go of it soon."""

    def __init__(self, root: Path, pid: int) -> None:
        self.pid = pid
        """0 when it is just taking it."""
        self.command = _command(pid)
        """Its arguments from `podwright` on; all of them when it is another program, none when it is gone."""
        super().__init__(
            f"{root} is in use by another podwright ({self.holder()}): stop it, or choose another --root"
        )

    def holder(self) -> str:
        """For people."""
        words = shlex.join(self.command)
        shown = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"
        return (f"pid {self.pid}" if self.pid else "pid unknown") + (f", `{shown}`" if shown else "")


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
            noted = os.pread(fd, 32, 0).strip()
            raise Taken(root, int(noted) if noted.isdigit() else 0) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _command(pid: int) -> tuple[str, ...]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes() if pid else b""
    except OSError:
        return ()
    words = text.decode(errors="replace").rstrip("\0").split("\0") if text else []
    at = next((place for place, word in enumerate(words) if Path(word).name == "podwright"), 0)
    return ("podwright", *words[at + 1 :]) if at else tuple(words)
