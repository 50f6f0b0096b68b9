"""Programs of execs that their clients have left, and that nobody ends but us: those of a podwright that was
killed, hung up when the next one finds them, and those whose shim was not to be spoken to in time. The
directory of its FIFOs is what is left of each, and its name is its id."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from io import FileIO
from pathlib import Path

from podwright.engines.containerd import exec_calls
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.exec_calls import HANGUP_GRACE, KILL_GRACE, KIND
from podwright.engines.containerd.exec_io import outward
from podwright.errors import CommandFailed, PodwrightError
from podwright.linux import trees

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before one that could not be ended is tried again, doubled each time."""

log = logging.getLogger(__name__)


def left(directory: Path, mark: str) -> list[Path]:
    """What execs that are not those of `mark` have left in a container's directory."""
    return [each for each in directory.glob(f"{KIND}-*") if not each.name.startswith(f"{KIND}-{mark}-")]


async def hang_up(containerd: Containerd, id: str, found: list[Path]) -> None:
    """End the programs of `found` in container `id`: SIGHUP, and SIGKILL to those that stay."""
    log.info("container %s: %d programs of an earlier podwright are ended", id[:12], len(found))
    await asyncio.gather(*(end(containerd, id, each) for each in found))


async def end(containerd: Containerd, id: str, directory: Path) -> None:
    """The same of one, however long its shim does not answer: its directory goes when it has ended."""
    pause = FIRST_PAUSE
    while True:
        try:
            await _end(containerd, id, directory)
            break
        except PodwrightError as error:
            level = logging.WARNING if pause == FIRST_PAUSE else logging.DEBUG
            log.log(level, "container %s: %s may go on, tried again: %s", id[:12], directory.name, error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
    trees.remove(directory)


async def _end(containerd: Containerd, id: str, directory: Path) -> None:
    # Opened first: a shim at its start that finds no reader forgets what it has started.
    outputs = _opened(directory)
    try:
        if pid := await exec_calls.pid(containerd, id, directory.name):
            await _kill(containerd, id, directory.name, pid, outputs)
        # Refused while it runs; of a container that has ended nothing is known, and nothing is left.
        await exec_calls.forget(containerd, id, directory.name)
    finally:
        for file in outputs:
            file.close()


async def _kill(containerd: Containerd, id: str, exec_id: str, pid: int, outputs: list[FileIO]) -> None:
    ended = asyncio.ensure_future(exec_calls.exit_code(containerd, id, exec_id))
    # A full pipe would hold it up in the middle of what it does on SIGHUP.
    drains = [asyncio.ensure_future(outward(each, None, ended, 0.0)) for each in outputs]
    try:
        for number, grace in ((signal.SIGHUP, HANGUP_GRACE), (signal.SIGKILL, KILL_GRACE)):
            if not ended.done():
                await exec_calls.send(containerd, id, exec_id, pid, number)
                await asyncio.wait([ended], timeout=grace)
        if ended.done():
            with suppress(CommandFailed):
                ended.result()
    finally:
        for task in (ended, *drains):
            task.cancel()
        await asyncio.wait([ended, *drains])


def _opened(directory: Path) -> list[FileIO]:
    files = []
    for name in ("stdout", "stderr"):
        with suppress(FileNotFoundError):
            fd = os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            files.append(FileIO(fd, "r"))
    return files
