"""Directory and file changes as an asynchronous stream (inotify(7)).

One `Watch` is one kernel queue. It says what happened, not what it means; a queue that overflowed says
so, and its reader must look at everything again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import ResourceExhausted
from podwright.linux import syscalls

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
OVERFLOW = 0x4000
IGNORED = 0x8000
ONLYDIR = 0x1000000
ISDIR = 0x40000000

CHANGES = CLOSE_WRITE | MOVED_FROM | MOVED_TO | DELETE | DELETE_SELF | MOVE_SELF
"""A file's content is there, complete, or it went. CREATE comes before the content, ATTRIB without any."""

_HEADER = struct.Struct("iIII")
_READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    """The entry of a watched directory; "" when the watched path itself is meant."""
    mask: int
    path: Path
    """The watched path, as it was given to `add`."""

    @property
    def overflow(self) -> bool:
        """Events were lost: look at everything again. `name` and `path` mean nothing."""
        return bool(self.mask & OVERFLOW)

    @property
    def gone(self) -> bool:
        """The watched path was deleted, moved away or unmounted: no further event will come for it."""
        return bool(self.mask & (DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED))


class Watch:
    """An inotify queue, read by the running event loop. Iterate from one task; `close` ends the iteration."""

    def __init__(self) -> None:
        self._fd = syscalls.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._paths: dict[int, Path] = {}
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def add(self, path: Path, mask: int) -> None:
        """Watch `path` too; a second call for it replaces its mask.

        Raises FileNotFoundError and other OSErrors, ResourceExhausted when the user's watches are used up.
        """
        try:
            self._paths[syscalls.inotify_add_watch(self._fd, path, mask)] = path
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ResourceExhausted(
                    f"cannot watch {path}: raise the sysctl fs.inotify.max_user_watches"
                ) from error
            raise

    def remove(self, path: Path) -> None:
        """Watch `path` no more; fine when it is not watched."""
        for number, watched in list(self._paths.items()):
            if watched == path:
                del self._paths[number]
                try:
                    syscalls.inotify_rm_watch(self._fd, number)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # the kernel dropped it with the file
                        raise

    def close(self) -> None:
        """Stop watching; events not yet taken are dropped."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._events.clear()
        self._wake()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._fd < 0:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._events.popleft()

    def pending(self) -> list[Event]:
        """Take the events that are there now, without waiting: for readers that treat them as one change."""
        if self._fd >= 0:
            self._read()
        events = list(self._events)
        self._events.clear()
        return events

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            number, mask, _cookie, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            path = self._paths.get(number)
            if mask & IGNORED:
                self._paths.pop(number, None)
            if path is not None:
                self._events.append(Event(name, mask, path))
            elif mask & OVERFLOW:
                self._events.append(Event("", mask, Path()))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
