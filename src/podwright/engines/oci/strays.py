"""Sessions whose podwright was killed: their clients are gone, so their programs are hung up when the next
podwright finds them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

from podwright.engines.oci import conmon, executions, sessions
from podwright.engines.oci.executions import Place
from podwright.linux import proc, spawn

log = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Seconds by which a process may seem younger than the file that names it: its start is known in ticks."""


async def hang_up(place: Place) -> None:
    """End the programs of sessions in the container of `place` that are not this engine's: SIGHUP, and
    SIGKILL to those that stay. Their files go, too."""
    ours = f"{sessions.KIND}-{place.mark}-"
    files = [each for each in place.bundle.glob(f"{sessions.KIND}-*") if not each.name.startswith(ours)]
    found = {each: _program(each) for each in files if each.suffix == ".pid"}
    inner = [each.with_suffix(".inner") for each, pid in found.items() if pid]
    left = [pid for pid in found.values() if pid]
    if left:
        log.info("container %s: %d sessions of an earlier podwright are ended", place.id, len(left))
    try:
        for number, grace in (
            (signal.SIGHUP, sessions.HANGUP_GRACE),
            (signal.SIGKILL, sessions.KILL_GRACE),
        ):
            if not left:
                break
            if place.runtime.sandboxed:
                for each in inner:
                    await executions.signal_inside(place, each, number)
            else:
                for pid in left:
                    _signal(pid, number)
            ends = [asyncio.ensure_future(spawn.exited(pid)) for pid in left]
            await asyncio.wait(ends, timeout=grace)
            left = [pid for pid, end in zip(left, ends, strict=True) if not end.done()]
            for end in ends:
                end.cancel()
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _program(pidfile: Path) -> int:
    """The program that `pidfile` names, 0 if it has ended: who is younger than the file only has
    its number."""
    pid = conmon.read_pid(pidfile)
    try:
        since_boot = proc.start_time(pid) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
        file_age = time.time() - pidfile.stat().st_mtime
    except (ProcessLookupError, FileNotFoundError):
        return 0
    return pid if age + TOLERANCE >= file_age and proc.alive(pid) else 0


def _signal(pid: int, number: int) -> None:
    try:
        group = os.getpgid(pid)
        os.kill(pid, number)
        if group == pid:
            os.killpg(group, number)
    except ProcessLookupError:
        pass
