"""The FIFOs that the writer reads: records that conmon made, or what a container wrote itself.

What comes is looked at first (tee(2)), written, and only then taken out: a writer that is killed at any
instruction leaves in the FIFO what it has not written. Records that it has written and not taken out are
known by their time stamps. What containers write themselves has none: the next writer writes that again, and
what it had taken out of a line without an end is lost.
Standard library only, as the writer's process is kept small.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import time

from podwright.logs.splitting import Splitter
from podwright.logs.writer_files import LogFile, Nowhere
from podwright.logs.writer_listeners import Heard

CAPACITY = 1 << 19
"""Bytes of a FIFO: what a container can write while nobody reads, before it has to wait."""
_SPLICE_F_NONBLOCK = 2

IDLE, MORE, PARTIAL, ENDED = range(4)
"""What `pull` found: nothing; something; a record that is not whole yet; that nobody writes any more."""

_libc = ctypes.CDLL(None, use_errno=True)


class Glance:
    """A pipe into which FIFOs are copied to be looked at. One is enough for all: it is emptied at once."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        enlarge(self._writing)
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def at(self, fifo: int) -> bytes:
        """What stands in `fifo`; b"" when it is empty and nobody writes. BlockingIOError when it is empty."""
        count = _libc.tee(fifo, self._writing, CAPACITY, _SPLICE_F_NONBLOCK)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))  # which is a BlockingIOError for EAGAIN
        parts = []
        while count > 0:
            part = os.read(self._reading, count)
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, fifo: int, count: int) -> None:
        """Take `count` bytes out of it."""
        while count > 0:
            count -= os.splice(fifo, self._nowhere, count)


class Records:
    """A FIFO into which a supervisor writes records."""

    def __init__(self, path: str, glance: Glance, file: LogFile) -> None:
        self.fd = _read_end(path)
        self._glance = glance
        self._file = file
        self._written = file.last

    def pull(self) -> int:
        try:
            data = self._glance.at(self.fd)
        except BlockingIOError:
            self._written = []
            return IDLE
        if not data:
            return ENDED
        whole = data.rfind(b"\n") + 1
        if not whole:
            if len(data) < CAPACITY // 2:
                return PARTIAL
            whole = len(data)  # no record is as long: whatever it is, it must not be in the way for ever
        else:
            records = self._new(data[:whole] if whole < len(data) else data)
            if records:
                self._file.take(records)
        self._glance.take(self.fd, whole)
        return MORE if whole == len(data) else PARTIAL

    def finish(self) -> None:
        """Nothing is held here."""

    def _new(self, records: bytes) -> bytes:
        """`records` without those that an earlier writer has written and not taken out."""
        known, self._written = self._written, []
        for each in known:
            at = 0 if records.startswith(each) else records.find(b"\n" + each) + 1
            if at or records.startswith(each):
                return records[at + len(each) :]
        return records


class Stream(Heard):
    """A FIFO that is a container's stdout or stderr."""

    def __init__(self, path: str, glance: Glance, name: str, file: LogFile | Nowhere) -> None:
        super().__init__(_read_end(path))
        self._glance = glance
        self.name = name
        self._splitter = Splitter(name)
        self._file = file

    def pull(self) -> int:
        try:
            data = self._glance.at(self.fd)
        except BlockingIOError:
            return IDLE
        if not data:
            return ENDED
        if records := self._splitter.feed(data, _stamp()):
            self._file.take(records)
        self._glance.take(self.fd, len(data))
        if self.listeners:
            self.hand_on(data)
        return MORE

    def finish(self) -> None:
        if records := self._splitter.close(_stamp()):
            self._file.take(records)


def enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CAPACITY)
    except OSError:
        pass  # this user has many pipes: it stays as it was


def _read_end(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    enlarge(fd)
    return fd


def _stamp() -> bytes:
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % fraction
