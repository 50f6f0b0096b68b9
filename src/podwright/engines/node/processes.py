"""Ending processes that are named by a number and a cgroup: no stranger is hit, and none is left."""

from __future__ import annotations

import asyncio
import os
import signal

import msgspec

from podwright import structs
from podwright.engines.node.places import Places
from podwright.errors import FailedPrecondition
from podwright.linux import cgroups, proc, spawn

END_TIMEOUT = 10.0
"""Seconds that a killed process may take to vanish."""


class _Linux(msgspec.Struct, rename="camel"):
    cgroups_path: str = ""


class _Bundle(msgspec.Struct):
    linux: _Linux = msgspec.field(default_factory=_Linux)


class Cgroups:
    """Of each task the cgroup, as the spec in its bundle names it."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[str, str] = {}

    def of(self, id: str) -> str:
        """Where it is in each hierarchy; "" when there never was a bundle."""
        known = self._known.get(id)
        if known is None:
            try:
                text = (self._places.bundle(id) / "config.json").read_bytes()
                path = structs.decode(text, _Bundle).linux.cgroups_path
            except (FileNotFoundError, msgspec.DecodeError):
                return ""
            known = self._known[id] = cgroups.location(path) if path else ""
        return known

    def forget(self, id: str) -> None:
        self._known.pop(id, None)


def send_signal(pid: int, started: int, number: int) -> None:
    """Send a signal to the process `pid` that started at `started` (0: whoever it is); fine if gone."""
    if pid <= 0:
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The fd holds the process: its number cannot be given away between the check and the signal.
        if not started or proc.alive(pid, started):
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def kill_left(cgroup: str) -> None:
    """SIGKILL whoever is left in a cgroup; "" and one that is gone are fine. Raises OSError."""
    if cgroup and cgroups.pids(cgroup):
        cgroups.kill_all(cgroup)


async def clear_cgroup(cgroup: str) -> None:
    """End whatever is in a cgroup, and remove it; one that is gone is fine. OSError, FailedPrecondition for a
    process that does not end."""
    if not cgroups.directories(cgroup):
        return
    for pid in cgroups.kill_all(cgroup):
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await spawn.exited(pid)
        except TimeoutError:
            raise FailedPrecondition(
                f"cannot remove cgroup {cgroup}: process {pid} in it was killed and has not ended within"
                f" {END_TIMEOUT:g} s: what it waits for in the kernel (/proc/{pid}/stack) has to end first"
            ) from None
    cgroups.remove(cgroup)
