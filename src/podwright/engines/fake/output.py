"""The output of fake containers: CRI log files, and whoever is attached.

A node has tens of thousands of logs and a process may open a thousand files: only the logs written last are
open. One that was closed meanwhile is found again even if somebody has renamed it: the writer goes on in
the old file until the log is reopened, as a supervisor with an open file does.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from podwright.clock import Clock, Timer
from podwright.engines.base import Container
from podwright.engines.fake.programs.streams import Pipe, Stream
from podwright.engines.log_limits import LogLimits
from podwright.errors import FailedPrecondition
from podwright.logs import rotation
from podwright.logs.limits import ROTATE, Keeper, Limits
from podwright.logs.lines import format_time

OPEN_LOGS = 256
LOG_MODE = 0o640
"""The kubelet's log readers are in the group."""
PART = 8192
"""Bytes of a line in one record at most; conmon's buffer."""

_log = logging.getLogger(__name__)

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC


class OpenLogs:
    """The open files of a world's logs, the one used last at the end."""

    def __init__(self, limit: int = OPEN_LOGS) -> None:
        self.limits = LogLimits(Limits(), False)
        """Of the logs of containers that are created from now on."""
        self._limit = limit
        self._open: OrderedDict[Log, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, log: Log) -> int | None:
        fd = self._open.get(log)
        if fd is not None:
            self._open.move_to_end(log)
        return fd

    def add(self, log: Log, fd: int) -> None:
        while len(self._open) >= self._limit:
            os.close(self._open.popitem(last=False)[1])
        self._open[log] = fd

    def close(self, log: Log) -> None:
        fd = self._open.pop(log, None)
        if fd is not None:
            os.close(fd)

    def close_all(self) -> None:
        for each in list(self._open):
            self.close(each)


class Log:
    """One container's log file; `limits` keeps it within bounds."""

    __slots__ = ("_file", "_files", "_limits", "_path")

    def __init__(self, files: OpenLogs, path: str, limits: Limited | None = None) -> None:
        self._files = files
        self._path = path
        self._limits = limits
        self._file: tuple[int, int] | None = None
        """Device and inode of the file that is being written."""

    def append(self, records: bytes) -> None:
        if self._limits is None:
            self.write(records)
        else:
            self._limits.take(self, records)

    def write(self, records: bytes) -> None:
        """Past all limits."""
        fd = self._files.get(self)
        try:
            if fd is None:
                fd = self._open(self._current())
            os.write(fd, records)
        except OSError as error:
            # A full disk or a directory removed under it ends nobody's program.
            _log.debug("log %s: %s", self._path, error)

    def make(self) -> None:
        """Make the file. FailedPrecondition when there cannot be one."""
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            os.close(self._opened(self._path))
        except OSError as error:
            raise FailedPrecondition(f"cannot open the log {self._path}: {error.strerror}") from error

    def reopen(self) -> None:
        """Go on in the file that is at the path now; make it if there is none. FailedPrecondition."""
        self._files.close(self)
        self.make()
        if self._limits is not None:
            self._limits.reopened(self, self._path)

    def rotate(self, now: int, keep: int, compress: bool) -> None:
        """Rename it away, `now` being nanoseconds since the epoch, and go on in a new file."""
        self._files.close(self)
        if self._file is not None and _identity(self._path) == self._file:
            rotation.rotate(self._path, now)
        self._file = None
        rotation.prune(self._path, keep)
        if compress:
            for each in rotation.to_compress(self._path):
                rotation.compress(each)

    def close(self) -> None:
        if self._limits is not None:
            self._limits.end(self)
        self._files.close(self)

    def _open(self, path: str) -> int:
        fd = self._opened(path)
        self._files.add(self, fd)
        return fd

    def _opened(self, path: str) -> int:
        fd = os.open(path, _FLAGS, LOG_MODE)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise FailedPrecondition(f"the log {path} is there, and no regular file")
        self._file = found.st_dev, found.st_ino
        return fd

    def _current(self) -> str:
        """Where the file is that was being written."""
        if self._file is None or _identity(self._path) == self._file:
            return self._path
        for each in Path(self._path).parent.iterdir():
            if _identity(str(each)) == self._file:
                return str(each)
        return self._path  # it was removed


class Limited:
    """What a log may take up, by the clock of its world; the writer of real logs does the same."""

    __slots__ = ("_clock", "_keeper", "_timer")

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._keeper = Keeper(limits)
        self._timer: Timer | None = None

    def take(self, log: Log, records: bytes) -> None:
        self._write(log, self._keeper.take(records, self._clock.monotonic()))
        self._wait(log)

    def reopened(self, log: Log, path: str) -> None:
        self._write(log, self._keeper.reopened(Path(path).stat().st_size))

    def end(self, log: Log) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._write(log, self._keeper.end())

    def _write(self, log: Log, pieces: list[bytes]) -> None:
        limits = self._keeper.limits
        for piece in pieces:
            try:
                if piece == ROTATE:
                    log.rotate(self._clock.now(), limits.max_files - 1, limits.compress)
                else:
                    log.write(piece)
            except OSError as error:
                _log.debug("rotating a log: %s", error)

    def _wait(self, log: Log) -> None:
        """Tell what a rate has dropped, also when nothing comes any more."""
        due = self._keeper.due()
        if due is not None and (self._timer is None or self._timer.cancelled()):
            self._timer = self._clock.call_later(max(0.001, due - self._clock.monotonic()), self._tell, log)

    def _tell(self, log: Log) -> None:
        self._timer = None
        self._write(log, self._keeper.tick(self._clock.monotonic()))
        self._wait(log)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Scripted(Protocol):
    def stop(self) -> None: ...


class Tap:
    """Somebody who hears what a container writes: what is not read yet, by stream."""

    __slots__ = ("pipes",)

    def __init__(self, *streams: str) -> None:
        self.pipes = {each: Pipe() for each in streams}

    @property
    def full(self) -> bool:
        return any(each.full for each in self.pipes.values())

    async def settled(self) -> None:
        for each in self.pipes.values():
            await each.settled()


class Output:
    """What a container writes: its log keeps it, and each tap hears it."""

    __slots__ = ("_held_up", "_now", "log", "scripted", "taps", "terminal")

    def __init__(self, now: Callable[[], int], log: Log | None, *, terminal: bool) -> None:
        self._now = now
        self.log = log
        self.terminal = terminal
        self.taps: list[Tap] = []
        self.scripted: Sequence[Scripted] = ()
        """What writes here by itself, until the container ends."""
        self._held_up: list[Callable[[], None]] = []

    def write(self, stream: str, data: bytes) -> None:
        """`stream`: "stdout" or "stderr"; a terminal knows only the first, and ends lines with CR LF. Who can
        wait looks then whether a tap is behind."""
        if self.terminal:
            stream, data = "stdout", data.replace(b"\n", b"\r\n")
        self.show(stream, data)

    def show(self, stream: str, data: bytes) -> None:
        """`write` of what a terminal would not change any more."""
        if not data:
            return
        for tap in self.taps:
            if (pipe := tap.pipes.get(stream)) is not None:
                pipe.push(data)
        if self.log is not None:
            self.log.append(records(self._now(), stream, data))

    @property
    def full(self) -> bool:
        """Whether a tap is behind."""
        return bool(self.taps) and any(each.full for each in self.taps)

    async def settled(self) -> None:
        """Until no tap is behind."""
        for each in list(self.taps):
            await each.settled()

    def hold_up(self, callback: Callable[[], None]) -> None:
        """Call it when no tap is behind any more; never when the container ends before."""
        self._held_up.append(callback)

    def relieve(self) -> None:
        """A tap has been read, or is gone."""
        if self._held_up and not self.full:
            waiting, self._held_up = self._held_up, []
            for each in waiting:
                each()

    def close(self) -> None:
        for each in self.scripted:
            each.stop()
        self._held_up.clear()
        if self.log is not None:
            self.log.close()
        for tap in self.taps:
            for pipe in tap.pipes.values():
                pipe.writer.close()
        self.taps.clear()


class Descriptor(Stream):
    """What a process has open that writes there."""

    __slots__ = ("_name", "_output")

    def __init__(self, output: Output, name: str) -> None:
        super().__init__()
        self._output = output
        self._name = name

    async def write(self, data: bytes) -> None:
        self._output.write(self._name, data)
        if self._output.full:
            await self._output.settled()


def log_of(container: Container, files: OpenLogs, clock: Clock) -> Log | None:
    """The log of a container; None when it has none. InvalidArgument for an annotation that means nothing."""
    if not container.log_path:
        return None
    limits = files.limits.of_container(container)
    return Log(files, container.log_path, Limited(clock, limits) if limits is not None else None)


def records(time: int, stream: str, data: bytes) -> bytes:
    """The log records of what was written at once: F for the end of a line, P for a part of one."""
    stamp = f"{format_time(time)} {stream} ".encode()
    *ended, rest = data.split(b"\n")
    made = bytearray()
    for line in ended:
        while len(line) > PART:
            made += b"%bP %b\n" % (stamp, line[:PART])
            line = line[PART:]
        made += b"%bF %b\n" % (stamp, line)
    for start in range(0, len(rest), PART):
        made += b"%bP %b\n" % (stamp, rest[start : start + PART])
    return bytes(made)
