"""logs: what a container has written, from the log file itself."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from podwright.cli.find import find
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door

POLL = 1.0
"""Seconds between two looks whether the container has ended: a CRI without events has no other way."""

_MAY_WRITE = (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


async def logs(
    door: Door, word: str, *, follow: bool, tail: int | None, since: str, timestamps: bool
) -> None:
    """Print the log; each stream to its own. With `follow`, until the container has ended."""
    from podwright.logs import reader

    begin = moment(since) if since else None
    async with door.cri() as runtime:
        container = await find(runtime, word, ("container",))
        status = await _status(runtime, container.id)
    if not status.log_path:
        raise FailedPrecondition(f"container {container.title} was created without a log")
    ended = asyncio.Event()
    watch = asyncio.ensure_future(_watch(door, container.id, ended)) if follow else None
    try:
        lines = reader.follow(status.log_path, follow=follow, stop=ended, since=begin, tail=tail)
        async for line in lines:
            out = sys.stdout.buffer if line.stream == "stdout" else sys.stderr.buffer
            stamp = f"{reader.format_time(line.time)} ".encode() if timestamps else b""
            out.write(stamp + line.text + (b"" if line.partial else b"\n"))
            if follow:
                out.flush()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if watch is not None:
            watch.cancel()


def moment(text: str) -> int:
    """Nanoseconds since the epoch of "10m" ago (s, m, h, d) or of an RFC 3339 time."""
    from podwright.logs.lines import parse_time

    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time.time_ns() - int(float(found[1]) * _UNITS[found[2]] * 1e9)
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidArgument(
            "--since", f"{text!r} is neither a duration (10m) nor a time (2026-01-31T12:00:00Z)"
        ) from error


async def _watch(door: Door, id: str, ended: asyncio.Event) -> None:
    """Set `ended` when the container has ended or is gone. A server that goes away ends it, too.

    The log may be followed for days: meanwhile the state belongs to others.
    """
    try:
        while True:
            async with door.cri() as runtime:
                request = cri.ContainerStatusRequest(container_id=id, verbose=True)
                answer = await runtime.container_status(request)
                if answer.status.state not in _MAY_WRITE:
                    return
                if door.answering():
                    await _look(runtime, id)
                    return
            await _death(answer.info)
    except (NotFound, Unavailable):
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
