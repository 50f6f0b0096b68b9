"""Reading a container's log: the last lines, those since a moment, and those still to come.

A log is one row of lines, however often it was rotated: before, between two looks, or while it is read. Who
follows reads each file to its end and goes on with the one that comes after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from podwright.errors import InvalidArgument, NotFound, ResourceExhausted
from podwright.linux import inotify
from podwright.logs import chain
from podwright.logs.chain import Chain, Part
from podwright.logs.lines import Joiner, Line, format_time, parse, parse_time

__all__ = ["Joiner", "Line", "collect", "follow", "format_time", "parse", "parse_time"]

POLL = 0.25
"""Seconds between two looks where inotify has no watch left to give."""

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
    """The lines of the log at `path` and of its rotated files, in the order they were completed.

    `since`: only lines from this moment (nanoseconds since the epoch) on. `tail`: of what is there at the
    beginning, only the last so many lines. `follow`: go on with what is written until `stop` is set
    (normally: the container has ended); what was written before that still comes, and a log that does not
    exist yet is waited for. `join`: parts of long lines are put together; a line whose end never came is
    the last and marked partial. Records that are none are skipped. Of files that are removed before they were
    read nothing is known.
    Raises NotFound when there is no such log; InvalidArgument for a negative tail.
    """
    if tail is not None and tail < 0:
        raise InvalidArgument("tail", f"{tail} lines cannot be shown")
    joiner = Joiner()
    last: deque[Line] | None = deque(maxlen=tail) if tail is not None else None
    async with _Reading(Path(path), watched=follow, stop=stop, since=since, tail=tail) as log:
        while True:
            for record in await log.records():
                line = chain.record_line(record)
                if line is not None and join:
                    line = joiner.feed(line)
                if line is None:
                    continue
                if last is not None:
                    last.append(line)
                elif since is None or line.time >= since:
                    yield line
            if last is not None and log.caught_up and follow:
                for line in last:
                    if since is None or line.time >= since:
                        yield line
                last = None
            if not log.more and not await log.wait():
                break
    if last is None:
        last = deque()
    last.extend(joiner.rest())
    for line in last:
        if since is None or line.time >= since:
            yield line


class _Reading:
    """The file that is being read, and the directory watched for a newer one."""

    def __init__(
        self,
        file: Path,
        *,
        watched: bool,
        stop: asyncio.Event | None,
        since: int | None,
        tail: int | None,
    ) -> None:
        self.more = False
        """The last read did not reach the end."""
        self.caught_up = False
        """Everything has been read that was there at the beginning."""
        self._file = file
        self._chain = Chain(file)
        self._part: Part
        self._newest: Part
        """The last file at the beginning, and how much it had."""
        self._end = 0
        self._since, self._tail = since, tail
        self._stop = stop
        self._rest = b""
        self._ending = False
        self._watch: inotify.Watch | None = None
        self._watched = watched
        self._next: asyncio.Task[inotify.Event] | None = None
        self._stopping: asyncio.Task[bool] | None = None
        self._opened: list[Part] = []

    async def __aenter__(self) -> _Reading:
        try:
            if self._watched:
                self._begin_watch()
            while not await asyncio.to_thread(self._begin):
                if not await self._changed():
                    raise NotFound(f"there is no log {self._file}")
        except BaseException:
            self._let_go()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._let_go()

    async def records(self) -> list[bytes]:
        """The complete records of the next chunk."""
        size = chain.CHUNK
        beyond = True if self.caught_up else self._beyond()
        if beyond is None:
            size = max(0, min(size, self._end - self._part.stream.tell()))
        chunk = self._part.stream.read(size)
        self.more = len(chunk) == size
        if beyond or (beyond is None and (not self.more or self._part.stream.tell() >= self._end)):
            # Not a byte further: what follows was not there at the beginning.
            self.caught_up = True
        if self.caught_up and not self._watched:
            self.more = False
        if self.more:
            await asyncio.sleep(0)  # a long log must not keep everybody else waiting
        self._rest += chunk
        *records, self._rest = self._rest.split(b"\n")
        return records

    async def wait(self) -> bool:
        """Wait until there may be more to read; False: that was all."""
        while True:
            if self._unread():
                return True
            if not self._watched and self.caught_up:
                return False
            following = self._chain.successor(self._part)
            if following is not None:
                if self._unread():
                    following.stream.close()  # lines came between the last read and the rotation
                else:
                    self._go_on(following)
                return True
            self.caught_up = True
            if self._ending or not self._watched:
                return False
            if not await self._changed():
                # What was written before the stop still counts: look once more.
                self._ending = True

    def _begin(self) -> bool:
        start = self._chain.start(since=self._since, tail=self._tail)
        if start is None:
            return False
        self._part, self._newest, self._end = start
        self._opened = [self._part, self._newest]
        return True

    def _beyond(self) -> bool | None:
        """Whether a file is read that comes after the last one of the beginning; None: it is that one."""
        part, newest = self._part, self._newest
        if part.identity == newest.identity:
            return None
        key, last = part.key, newest.key
        # It may have been compressed since, which is another file with the same records.
        return None if key == last else bool(last.time) and key > last

    def _unread(self) -> bool:
        before = self._part.stream.tell()
        unread = self._part.unread
        if self._part.stream.tell() < before:
            self._rest = b""  # truncated in place
        return unread

    def _go_on(self, part: Part) -> None:
        if self._part is not self._newest:
            self._part.stream.close()
            self._opened.remove(self._part)
        self._part = part
        self._opened.append(part)
        self._rest = b""

    def _begin_watch(self) -> None:
        try:
            self._watch = inotify.Watch()
            self._watch.add(self._file.parent, _CHANGES)
            # A directory of which a file is open does not tell of its own end.
            self._watch.add(self._file.parent.parent, inotify.DELETE | inotify.MOVED_FROM)
        except FileNotFoundError as error:
            raise NotFound(f"there is no log {self._file}") from error
        except (OSError, ResourceExhausted):
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    async def _changed(self) -> bool:
        """Wait for the directory to change; False when stopped first, or it has gone."""
        if not self._watched or (self._stop is not None and self._stop.is_set()):
            return False
        waiting: set[asyncio.Task[inotify.Event] | asyncio.Task[bool]] = set()
        if self._watch is not None:
            self._next = self._next or asyncio.ensure_future(anext(self._watch))
            waiting.add(self._next)
        if self._stop is not None:
            self._stopping = self._stopping or asyncio.ensure_future(self._stop.wait())
            waiting.add(self._stopping)
        if not waiting:
            await asyncio.sleep(POLL)
            return True
        timeout = POLL if self._watch is None else None
        done, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._watch is None:
            return not done and self._file.parent.exists()
        if self._next in done:
            self._next = None
            self._watch.pending()  # however many changes: one look
            return self._file.parent.exists()
        return False

    def _let_go(self) -> None:
        for task in (self._next, self._stopping):
            if task is not None:
                task.cancel()
        if self._watch is not None:
            self._watch.close()
        for part in self._opened:
            part.stream.close()


async def collect(lines: AsyncIterator[Line]) -> list[Line]:
    """All of them: for logs that are short or limited by `tail`."""
    return [line async for line in lines]
