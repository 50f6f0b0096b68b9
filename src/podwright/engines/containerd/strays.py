"""Programs of execs whose podwright was killed: their clients are gone, so they are hung up when the next
podwright finds them. The directory of its FIFOs is what is left of each, and its name is its id."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from io import FileIO
from pathlib import Path

from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.exec import (
    HANGUP_GRACE,
    KILL_GRACE,
    KIND,
    exit_code,
    forget,
    send,
)
from podwright.engines.containerd.exec_io import outward
from podwright.errors import CommandFailed, FailedPrecondition, NotFound, PodwrightError
from podwright.linux import trees
from podwright.wire.containerd import task_types_pb2, tasks_pb2

log = logging.getLogger(__name__)


def left(directory: Path, mark: str) -> list[Path]:
    """What execs that are not those of `mark` have left in a container's directory."""
    return [each for each in directory.glob(f"{KIND}-*") if not each.name.startswith(f"{KIND}-{mark}-")]


async def hang_up(containerd: Containerd, id: str, found: list[Path]) -> None:
    """End the programs of `found` in container `id`: SIGHUP, and SIGKILL to those that stay."""
    log.info("container %s: %d programs of an earlier podwright are ended", id[:12], len(found))
    await asyncio.gather(*(_end(containerd, id, each) for each in found))


async def _end(containerd: Containerd, id: str, directory: Path) -> None:
    exec_id = directory.name
    try:
        pid = await _pid(containerd, id, exec_id)
        if pid:
            await _kill(containerd, id, directory, pid)
        await forget(containerd, id, exec_id)
    except (CommandFailed, FailedPrecondition):
        pass  # the container has ended, and everything in it
    except PodwrightError as error:
        log.warning("container %s: %s may go on: %s", id[:12], exec_id, error)
        return
    trees.remove(directory)


async def _kill(containerd: Containerd, id: str, directory: Path, pid: int) -> None:
    ended = asyncio.ensure_future(exit_code(containerd, id, directory.name))
    outputs = _opened(directory)
    # A full pipe would hold it up in the middle of what it does on SIGHUP.
    drains = [asyncio.ensure_future(outward(each, None, ended, 0.0)) for each in outputs]
    try:
        for number, grace in ((signal.SIGHUP, HANGUP_GRACE), (signal.SIGKILL, KILL_GRACE)):
            if not ended.done():
                await send(containerd, id, directory.name, pid, number)
                await asyncio.wait([ended], timeout=grace)
        if ended.done():
            ended.result()
    finally:
        for task in (ended, *drains):
            task.cancel()
        await asyncio.wait([ended, *drains])
        for file in outputs:
            file.close()


async def _pid(containerd: Containerd, id: str, exec_id: str) -> int:
    """Of the program; 0 when it does not run."""
    request = tasks_pb2.GetRequest(container_id=id, exec_id=exec_id)
    try:
        found = (await containerd.ask(containerd.tasks.Get, request, "exec")).process
    except NotFound:
        return 0
    return int(found.pid) if found.status == task_types_pb2.RUNNING else 0


def _opened(directory: Path) -> list[FileIO]:
    files = []
    for name in ("stdout", "stderr"):
        with suppress(FileNotFoundError):
            fd = os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            files.append(FileIO(fd, "r"))
    return files
