"""logs: what a container has written, from the log file itself."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import TYPE_CHECKING

from podwright.cli.find import find
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
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
        watch = asyncio.ensure_future(_watch(runtime, container.id, ended)) if follow else None
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


async def _watch(runtime: Cri, id: str, ended: asyncio.Event) -> None:
    """Set `ended` when the container has ended or is gone. A server that goes away ends it, too."""
    try:
        while (await _status(runtime, id)).state in _MAY_WRITE:  # noqa: ASYNC110 - no event to await
            await asyncio.sleep(POLL)
    except NotFound:
        pass
    finally:
        ended.set()


async def _status(runtime: Cri, id: str) -> cri.ContainerStatus:
    return (await runtime.container_status(cri.ContainerStatusRequest(container_id=id))).status
