"""Moving a process into a cgroup without the kernel's long wait.

A write to cgroup.procs takes `cgroup_threadgroup_rwsem` for writing. While nobody has done so lately, its
readers (every fork and exit) are on a path without locks, and the first writer waits for an RCU grace period
until they have left it: 10 to 20 ms, measured, and most of what an OCI runtime's `create` takes. Later
writers do not wait, for about as long again (kernel/rcu/sync.c).

`Migrations` takes that wait early, beside other work: while a pod is being made, a thread moves this process
to the cgroup where it is already, which changes nothing but takes the lock. It has no effect on a hierarchy
that is mounted with `favordynmods`, where the kernel never goes back to the lock-free path.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwright.linux import cgroups

INTERVAL = 0.004
"""Seconds between writes: well within the time in which the next one need not wait."""
LONGEST = 1.0
"""Seconds after which a creation that takes so long (a network plugin hangs) gets no more writes: each
slows every fork of the host a little."""
LINGER = 0.015
"""Seconds after the last user: a pod's next call mostly follows within a millisecond or two."""

log = logging.getLogger(__name__)


class Migrations:
    def __init__(self) -> None:
        self._users = 0
        self._until = 0.0
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def expected(self) -> Iterator[None]:
        """A process is going to be moved into a cgroup in this block, or soon after it."""
        self._users += 1
        self._until = time.monotonic() + LONGEST
        self._begin()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._until = time.monotonic() + LINGER

    def soon(self) -> None:
        """A process is going to be moved within the next few milliseconds: one write is enough."""
        self._begin()

    def close(self) -> None:
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cgroup-lock", daemon=True)
            self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        while self._wanted.wait() and not self._closed:
            # Looked up each time: an administrator may have moved this process, and it shall stay there.
            own = _own_procs_file()
            if own is None or not self._take(own):
                return
            while time.monotonic() <= self._until and not self._closed and self._take(own):
                time.sleep(INTERVAL)
            self._wanted.clear()
            if time.monotonic() <= self._until or self._closed:  # set between the two lines above
                self._wanted.set()

    def _take(self, own: Path) -> bool:
        try:
            fd = os.open(own, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(os.getpid()).encode())
            finally:
                os.close(fd)
        except OSError as error:
            # A cgroup that takes no processes (it was removed, it delegates): then pods start slower.
            log.debug("cannot take the cgroup lock early through %s: %s", own, error)
            return False
        return True


def _own_procs_file() -> Path | None:
    """cgroup.procs of the cgroup that this process is in, in any one hierarchy."""
    layout = cgroups.layout()
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            mountpoint = layout.unified if not name else layout.controllers.get(name)
            if mountpoint is not None and (found := mountpoint / path.lstrip("/") / "cgroup.procs").exists():
                return found
    return None
