"""logs: what a container has written, from the log file itself."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.cli.find import Found, find
from podwright.errors import FailedPrecondition, NotFound, Unavailable
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door

POLL = 1.0
"""Seconds between two looks whether the container has ended: a CRI without events has no other way."""

_MAY_WRITE = (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a log, and how."""

    follow: bool = False
    tail: int | None = None
    since: str = ""
    timestamps: bool = False
    previous: bool = False


async def logs(door: Door, word: str, wanted: Wanted) -> None:
    """Print the log; each stream to its own. With `follow`, until the container has ended; Unavailable when
    the server goes away meanwhile and does not come back."""
    from podwright.logs import reader
    from podwright.logs.lines import moment

    since = moment(wanted.since, "--since") if wanted.since else None
    async with door.cri() as runtime:
        container = await find(runtime, word, ("container",))
        status = await _status(runtime, container.id)
        path = await _previous(runtime, container, status) if wanted.previous else status.log_path
    if not path:
        raise FailedPrecondition(f"container {container.title} was created without a log")
    follow = wanted.follow and not wanted.previous
    ended = asyncio.Event()
    watch = asyncio.ensure_future(_watch(door, container.id, ended)) if follow else None
    try:
        lines = reader.follow(path, follow=follow, stop=ended, since=since, tail=wanted.tail)
        async for line in lines:
            out = sys.stdout.buffer if line.stream == "stdout" else sys.stderr.buffer
            stamp = f"{reader.format_time(line.time)} ".encode() if wanted.timestamps else b""
            out.write(stamp + line.text + (b"" if line.partial else b"\n"))
            if follow:
                out.flush()
        if watch is not None:
            await watch
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if watch is not None:
            watch.cancel()


async def _previous(runtime: Cri, container: Found, status: cri.ContainerStatus) -> str:
    """The log of the attempt before. Its container may be gone, as long as the kubelet's layout tells."""
    attempt = status.metadata.attempt
    request = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=container.sandbox))
    earlier = [
        each
        for each in (await runtime.list_containers(request)).containers
        if each.metadata.name == container.name and each.metadata.attempt < attempt
    ]
    if earlier:
        return (await _status(runtime, max(earlier, key=lambda each: each.metadata.attempt).id)).log_path
    current = Path(status.log_path)
    if current.name == f"{attempt}.log" and current.parent.is_dir():
        numbers = [int(each.stem) for each in current.parent.glob("*.log") if each.stem.isdigit()]
        if before := [each for each in numbers if each < attempt]:
            return str(current.with_name(f"{max(before)}.log"))
    raise NotFound(f"container {container.title} has no attempt before attempt {attempt}")


async def _watch(door: Door, id: str, ended: asyncio.Event) -> None:
    """Set `ended` when the container has ended or is gone, and when nobody can tell any more: Unavailable.

    The log may be followed for days: meanwhile the state belongs to others.
    """
    from podwright.cli.share import lasting

    try:
        while True:
            async with door.cri() as runtime:
                request = cri.ContainerStatusRequest(container_id=id, verbose=True)
                answer = await runtime.container_status(request)
                if answer.status.state not in _MAY_WRITE:
                    return
                if server := door.server():
                    async with lasting(door, server) as same:
                        await _look(same, id)
                    return
                if door.neighbour():
                    try:
                        await _look(runtime, id)
                        return
                    except Unavailable:
                        continue  # that run has left: the state is another's now, or nobody's
            await _death(answer.info)
    except NotFound:
        pass
    finally:
        ended.set()


async def _look(runtime: Cri, id: str) -> None:
    """Look again and again until the container has ended."""
    while (await _status(runtime, id)).state in _MAY_WRITE:  # noqa: ASYNC110 - no event to await
        await asyncio.sleep(POLL)


async def _death(info: Mapping[str, str]) -> None:
    """Wait for the end of the process that the verbose `info` names; a moment when it names none."""
    import msgspec

    pid = msgspec.json.decode(info.get("info", "{}")).get("pid", 0)
    try:
        fd = os.pidfd_open(pid)
    except (OSError, OverflowError):
        await asyncio.sleep(POLL)
        return
    loop, dead = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, dead.set)
    try:
        await dead.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _status(runtime: Cri, id: str) -> cri.ContainerStatus:
    return (await runtime.container_status(cri.ContainerStatusRequest(container_id=id))).status
