"""Reading a container's log file: the last lines, those since a moment, and those still to come.

A log is followed across rotation: somebody renames the file, then the writer opens a new one at its path.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from podwright.errors import InvalidArgument, NotFound
from podwright.linux import inotify
from podwright.logs.lines import Joiner, Line, format_time, parse, parse_time

__all__ = ["Joiner", "Line", "follow", "format_time", "parse", "parse_time"]

CHUNK = 1 << 16
LOOK_BACK = 1 << 18
"""Bytes before the wanted last lines that are searched for the beginning of an interleaved long line."""

_CHANGES = (
    inotify.MODIFY
    | inotify.CREATE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.DELETE
    | inotify.DELETE_SELF
)


async def follow(
    path: str | Path,
    *,
    follow: bool = False,
    stop: asyncio.Event | None = None,
    since: int | None = None,
    tail: int | None = None,
    join: bool = True,
) -> AsyncGenerator[Line, None]:
    """The lines of the log at `path`, in the order they were completed.

    `since`: only lines from this moment (nanoseconds since the epoch) on. `tail`: of what is there at the
    beginning, only the last so many lines. `follow`: go on with what is written until `stop` is set
    (normally: the container has ended); what was written before that still comes, and a log that does not
    exist yet is waited for. `join`: parts of long lines are put together; a line whose end never came is
    the last and marked partial. Records that are none are skipped.
    Raises NotFound when there is no such log; InvalidArgument for a negative tail.
    """
    file = Path(path)
    if tail is not None and tail < 0:
        raise InvalidArgument("tail", f"{tail} lines cannot be shown")
    joiner = Joiner()
    last: deque[Line] | None = deque(maxlen=tail) if tail is not None else None
    async with _Opened(file, watched=follow, stop=stop) as log:
        if tail is not None:
            await asyncio.to_thread(_seek_tail, log.stream, tail)
        while True:
            for record in await log.records():
                line = _line(record)
                if line is not None and join:
                    line = joiner.feed(line)
                if line is None:
                    continue
                if last is not None:
                    last.append(line)
                elif since is None or line.time >= since:
                    yield line
            if log.more:
                continue
            if last is not None:
                if not follow:
                    last.extend(joiner.rest())
                for line in last:
                    if since is None or line.time >= since:
                        yield line
                last = None
            if not await log.wait():
                break
    for line in joiner.rest():
        if since is None or line.time >= since:
            yield line


class _Opened:
    """The log file that is current, and the directory watched for a newer one."""

    stream: BinaryIO

    def __init__(self, file: Path, *, watched: bool, stop: asyncio.Event | None) -> None:
        self.more = False
        """The last read did not reach the end."""
        self._file = file
        self._stop = stop
        self._rest = b""
        self._ending = False
        self._watch: inotify.Watch | None = None
        self._watched = watched
        self._next: asyncio.Task[inotify.Event] | None = None
        self._stopping: asyncio.Task[bool] | None = None

    async def __aenter__(self) -> _Opened:
        try:
            if self._watched:
                self._watch = inotify.Watch()
                try:
                    self._watch.add(self._file.parent, _CHANGES)
                except FileNotFoundError as error:
                    raise NotFound(f"there is no log {self._file}") from error
            while True:
                try:
                    self.stream = self._file.open("rb", buffering=0)
                    return self
                except FileNotFoundError as error:
                    if not await self._changed():
                        raise NotFound(f"there is no log {self._file}") from error
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_go()
        self.stream.close()

    async def records(self) -> list[bytes]:
        """The complete records of the next chunk."""
        chunk = self.stream.read(CHUNK)
        if len(chunk) < CHUNK:
            self.more = False
        else:
            self.more = True
            await asyncio.sleep(0)  # a long log must not keep everybody else waiting
        self._rest += chunk
        *records, self._rest = self._rest.split(b"\n")
        return records

    async def wait(self) -> bool:
        """Wait until there may be more to read; False: that was all."""
        while True:
            if self._unread() or self._replace():
                return True
            if self._ending or not self._watched:
                return False
            if not await self._changed():
                # What was written before the stop still counts: look once more.
                self._ending = True

    def _unread(self) -> bool:
        size, position = os.fstat(self.stream.fileno()).st_size, self.stream.tell()
        if size < position:
            self.stream.seek(0)  # truncated in place
            self._rest = b""
        return size != position

    def _replace(self) -> bool:
        """Go over to a new file at the path. The old one was read to its end, and its writer left it."""
        if not self._watched:
            return False
        try:
            fresh = self._file.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        old = os.fstat(self.stream.fileno())
        if os.path.samestat(old, os.fstat(fresh.fileno())):
            fresh.close()
            return False
        if old.st_size != self.stream.tell():
            fresh.close()  # lines came between the last read and the rotation
            return True
        self.stream.close()
        self.stream = fresh
        self._rest = b""
        return True

    async def _changed(self) -> bool:
        """Wait for the directory to change; False when stopped first."""
        if self._watch is None or (self._stop is not None and self._stop.is_set()):
            return False
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._watch))
        waiting: set[asyncio.Task[inotify.Event] | asyncio.Task[bool]] = {self._next}
        if self._stop is not None:
            self._stopping = self._stopping or asyncio.ensure_future(self._stop.wait())
            waiting.add(self._stopping)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._next in done:
            self._next = None
            self._watch.pending()  # however many changes: one look
            return True
        return False

    def _let_go(self) -> None:
        for task in (self._next, self._stopping):
            if task is not None:
                task.cancel()
        if self._watch is not None:
            self._watch.close()


def _line(record: bytes) -> Line | None:
    try:
        return parse(record)
    except InvalidArgument:
        return None  # a torn record: the host crashed while it was written


def _seek_tail(stream: BinaryIO, count: int) -> None:
    """Position `stream` so that the last `count` lines begin at or after the position, all parts of them."""
    end = stream.seek(0, os.SEEK_END)
    start, complete, closed = end, 0, set[str]()
    for offset, record in _backwards(stream, end):
        line = _line(record)
        if line is None:
            continue
        if complete > count and start - offset > LOOK_BACK:
            break
        if line.partial:
            if line.stream not in closed:
                start = offset
            continue
        complete += 1
        if complete <= count:
            start = offset
        else:
            # Whatever of this stream stands further up belongs to lines that are not wanted.
            closed.add(line.stream)
            if len(closed) == 2:
                break
    stream.seek(start)


def _backwards(stream: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each complete record, the last first."""
    position, rest, complete = end, b"", False
    while position > 0:
        size = min(CHUNK, position)
        position -= size
        stream.seek(position)
        block = stream.read(size) + rest
        rest, *records = block.split(b"\n")
        offset = position + len(block)
        for record in reversed(records):
            offset -= len(record)
            if complete:  # what stands after the last newline is still being written
                yield offset, record
            complete = True
            offset -= 1
    if complete and rest:
        yield 0, rest


async def collect(lines: AsyncIterator[Line]) -> list[Line]:
    """All of them: for logs that are short or limited by `tail`."""
    return [line async for line in lines]
