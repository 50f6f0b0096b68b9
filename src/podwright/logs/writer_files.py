"""The writer's side of a log's files: appended to, rotated, taken up again after a writer that was killed.

Standard library only, as the writer's process is kept small.
"""

from __future__ import annotations

import os
import stat
import time

from podwright.logs import rotation
from podwright.logs.limits import ROTATE, Keeper, Limits, marks_full

LOG_MODE = 0o640
"""The kubelet's log readers are in the group."""
TAIL = 1 << 18
"""Bytes at the end of a file in which the last records are looked for."""
REMEMBERED = 8
"""Of the last records, so that one of them is the container's and not ours."""
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC


class LogFile:
    """The log of one container, within its limits."""

    def __init__(self, path: str, limits: Limits) -> None:
        """Raises OSError when the file cannot be opened."""
        self.path = path
        self.lost = 0
        """Lines that could not be written since the last that could."""
        self.rotated = False
        """It was rotated since somebody looked."""
        self._why = ""
        self._fd = _opened(path)
        tail = _end(self._fd)
        self.last = _records(tail) or _of_latest(path)
        """The last records, the latest first: what a killed writer has written already."""
        size = os.fstat(self._fd).st_size
        self.keeper = Keeper(limits, size=size, marked=any(marks_full(each) for each in _records(tail)))

    @property
    def place(self) -> tuple[int, int, int]:
        """Device, inode and size of the file that is written now."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino, status.st_size

    def take(self, records: bytes) -> None:
        """Write what the limits leave of `records`. What the file system refuses is dropped and counted: a
        full disk must not hold up a container."""
        self._write(self.keeper.take(records, time.monotonic()))

    def tick(self) -> None:
        self._write(self.keeper.tick(time.monotonic()))

    def reopen(self) -> None:
        """Go on in the file that is at the path now; made if there is none. Raises OSError, and goes on in
        the old one."""
        fd = _opened(self.path)
        os.close(self._fd)
        self._fd = fd
        self._write(self.keeper.reopened(os.fstat(fd).st_size))

    def set_limits(self, limits: Limits) -> None:
        self._write(self.keeper.end())
        self.keeper = Keeper(limits, size=os.fstat(self._fd).st_size)

    def to_compress(self) -> list[str]:
        """Its files that are to be compressed."""
        return rotation.to_compress(self.path, self._fd)

    def close(self) -> None:
        self._write(self.keeper.end())
        os.close(self._fd)

    def _write(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if piece is ROTATE or not piece:
                self._rotate()
            else:
                self._append(piece)

    def _append(self, records: bytes) -> None:
        told = b""
        if self.lost:
            words = f"podwright: {self.lost} lines lost: {self._why}"
            told = b"%b stderr F %b\n" % (records.partition(b" ")[0], words.encode())
        data = told + records if told else records
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError as error:
            whole = data.rfind(b"\n", 0, written) + 1
            self._why = error.strerror or "unknown"
            if whole < len(told) or not told:
                self.lost += records.count(b"\n", max(0, whole - len(told)))
            else:
                self.lost = data.count(b"\n", whole)
            if whole < written:
                # Half a record would be taken for a whole one.
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - (written - whole))
        else:
            self.lost = 0

    def _rotate(self) -> None:
        """Into a new file. One that somebody else has just renamed away keeps that name."""
        try:
            if rotation.is_open_as(self.path, self._fd):
                rotation.rotate(self.path, time.time_ns())
            fd = _opened(self.path)
        except OSError:
            return  # the old one goes on: better too large than lost
        os.close(self._fd)
        self._fd = fd
        self.rotated = True
        rotation.prune(self.path, self.keeper.limits.max_files - 1)


class Nowhere:
    """For a container without a log, whose streams are read all the same: it must not wait for us."""

    path = ""
    rotated = False

    def __init__(self, limits: Limits) -> None:
        self.keeper = Keeper(limits, size=0, marked=False)
        """Never given anything."""

    def take(self, records: bytes) -> None:
        """Drop them."""

    def tick(self) -> None:
        """Nothing is ever due."""

    def reopen(self) -> None:
        """There is no file."""

    def set_limits(self, limits: Limits) -> None:
        """Nothing is ever too much."""

    def to_compress(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing is held here."""


def _opened(path: str) -> int:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, _FLAGS, LOG_MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is there, and no regular file")
    return fd


def _end(fd: int) -> bytes:
    """The last records of the file. One that a killed writer left half written goes: it comes again."""
    size = os.fstat(fd).st_size
    start = max(0, size - TAIL)
    tail = os.pread(fd, TAIL, start)
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(whole) < len(tail) and (whole or not start):
        os.ftruncate(fd, start + len(whole))
    return whole


def _of_latest(path: str) -> list[bytes]:
    """The last records of the newest file that was rotated."""
    old = rotation.rotated(path)
    if not old or old[-1].compressed:
        return []
    try:
        fd = os.open(old[-1].path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return _records(os.pread(fd, TAIL, max(0, os.fstat(fd).st_size - TAIL)))
    finally:
        os.close(fd)


def _records(tail: bytes) -> list[bytes]:
    """The last records of `tail`, the latest first, with their newlines."""
    found: list[bytes] = []
    end = tail.rfind(b"\n") + 1
    while end > 0 and len(found) < REMEMBERED:
        start = tail.rfind(b"\n", 0, end - 1) + 1
        found.append(tail[start:end])
        end = start
    return found
