"""One container's log: what Docker's json-file has, written to the CRI log and noted as written. Blocks.

What is noted trails behind what is written. So whoever is killed at any instruction leaves at most some
records beyond the note, and those are looked up: in the file that the note names and in later ones. No line
is lost, none is written twice.

Docker would keep every line as long as the container: what has been converted is given back to the file
system as a hole, but for the last `KEPT` bytes, which `docker logs --tail` shows.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from podwright.engines.docker.log_lines import records, skip_written
from podwright.linux import syscalls
from podwright.logs import rotation
from podwright.logs.limits import Limits
from podwright.logs.writer_files import TAIL, LogFile

PIECE = 1 << 18
"""Bytes of Docker's log that are converted at once."""
LONGEST = 1 << 20
"""Bytes after which a line without an end is none: pieces have 16 KiB, or six times that when escaped."""
KEPT = 1 << 23
"""Bytes before the present place that stay readable for Docker."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is known to be written."""

    offset: int = 0
    """Of Docker's log: everything before."""
    device: int = 0
    inode: int = 0
    """The CRI log's file that was written then."""
    size: int = 0
    """What it had then."""

    def text(self) -> bytes:
        # One write, always of the same length, leaves no half of it.
        return b"%020d %020d %020d %020d\n" % (self.offset, self.device, self.inode, self.size)


def read_note(file: Path) -> Note | None:
    """None when there is none, or it is torn."""
    try:
        numbers = [int(word) for word in file.read_bytes().split()]
    except (FileNotFoundError, ValueError):
        return None
    return Note(*numbers) if len(numbers) == 4 else None


def all_is_written(source: Path, note: Path) -> bool:
    """Whether nothing has come since, so that not even the CRI log need be opened."""
    try:
        known = read_note(note)
        return known is not None and source.stat().st_size == known.offset
    except FileNotFoundError:
        return True


class Copy:
    """From Docker's log at `source` to the CRI log at `target`."""

    def __init__(self, source: Path, target: str, limits: Limits, note: Path) -> None:
        """Goes on where an earlier one stopped. Raises OSError."""
        self._source = os.open(source, os.O_RDWR | os.O_CLOEXEC)
        self._note = -1
        try:
            known = read_note(note)
            self.file = LogFile(target, limits)
            self._note = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._offset = self._taken_up(known)
            self._write_down()
        except BaseException:
            os.close(self._source)
            if self._note >= 0:
                os.close(self._note)
            raise
        self._hole = 0

    def go_on(self) -> bool:
        """Convert the next piece; whether there may be more."""
        size = os.fstat(self._source).st_size
        if size < self._offset:
            self._offset = 0  # somebody has emptied it
        limits = self.file.keeper.limits
        # It fills one file at most: the one that is noted is still there when this has been written.
        piece = min(PIECE, limits.max_size) if limits.max_files else PIECE
        data = os.pread(self._source, piece, self._offset)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == piece:
            data = os.pread(self._source, LONGEST, self._offset)
            whole = data.find(b"\n") + 1 or len(data)
        if not whole:
            return False
        if made := records(data[:whole]):
            self.file.take(made)
        self._offset += whole
        self._write_down()
        self._give_back()
        if self.file.rotated:
            self.file.rotated = False
            if limits.compress:
                for each in self.file.to_compress():
                    rotation.compress(each)
        return self._offset < size

    def reopen(self) -> None:
        """Go on in the file that is at the target now. OSError: it goes on in the old one."""
        self.file.reopen()
        self._write_down()

    def tick(self) -> None:
        self.file.tick()
        self._write_down()

    def close(self) -> None:
        """Nothing more is read."""
        self.file.close()
        os.close(self._source)
        os.close(self._note)

    def _taken_up(self, known: Note | None) -> int:
        """Where to go on: after what is noted, and what was written since."""
        at = taken_up = known.offset if known else _first_data(self._source)
        # What one piece became. If nothing is known it may be anywhere.
        end = at + LONGEST if known else os.fstat(self._source).st_size
        written = self._written_since(known)
        while written and at < end:
            lines = os.pread(self._source, LONGEST, at)
            lines = lines[: lines.rfind(b"\n") + 1]
            if not lines:
                break
            skipped, count = skip_written(lines, written)
            if count:
                taken_up, written = at + skipped, written[count:]
            at += len(lines)
        return taken_up

    def _written_since(self, known: Note | None) -> list[bytes]:
        """The records of the CRI log after `known`; the last ones it has when nothing is known."""
        files = [each.path for each in rotation.rotated(self.file.path) if not each.compressed]
        files.append(self.file.path)
        if known is None:
            return next(filter(None, (_records(each, -TAIL) for each in reversed(files))), [])
        found: list[bytes] = []
        for each in reversed(files):
            try:
                status = Path(each).stat()
            except FileNotFoundError:
                continue
            if (status.st_dev, status.st_ino) == (known.device, known.inode):
                return [*_records(each, known.size), *found]
            found = [*_records(each, 0), *found]
        return found  # it has gone since, so all that are left are later ones

    def _write_down(self) -> None:
        os.pwrite(self._note, Note(self._offset, *self.file.place).text(), 0)

    def _give_back(self) -> None:
        end = (self._offset - KEPT) & ~0xFFFF
        if end - self._hole < KEPT or self._hole < 0:
            return
        try:
            syscalls.punch_hole(self._source, 0, end)
            self._hole = end
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._hole = -1  # this file system has none


def _first_data(source: int) -> int:
    """Where the first whole line begins: there may be a hole before it."""
    try:
        begin = os.lseek(source, 0, os.SEEK_DATA)
    except OSError:
        return 0  # an empty file
    return begin + os.pread(source, LONGEST, begin).find(b"\n") + 1 if begin else 0


def _records(path: str, begin: int) -> list[bytes]:
    """The whole records from byte `begin` on; of the last -`begin` bytes when that is negative."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        size = os.fstat(fd).st_size
        start = begin if begin >= 0 else max(0, size + begin)
        # The last is what a killed one has not ended, or nothing.
        lines = os.pread(fd, max(0, size - start), start).split(b"\n")[:-1]
    finally:
        os.close(fd)
    in_the_middle = begin < 0 < start
    return [line + b"\n" for line in lines[in_the_middle:]]
