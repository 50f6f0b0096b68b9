"""The files of one log as a row, oldest first, while they are rotated and compressed under the reader.

A file is known by the time of its first record: that stays whatever it is called and however it is packed.
Blocks for moments only, but for looking backwards through compressed files.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from podwright.errors import InvalidArgument
from podwright.logs.lines import Line, parse
from podwright.logs.rotation import rotated

CHUNK = 1 << 16
LOOK_BACK = 1 << 18
"""Bytes before the wanted lines that are searched for the beginning of an interleaved long line."""
_HEAD = 1 << 14
"""Bytes in which the first record is looked for, or at least its beginning."""
_NEVER_NAMED = "~"
"""In the place of a stamp: of one first time the current file is the last."""
_STAMP = re.compile(r"\.(\d{8}-\d{6}(?:\.\d{3})?)(?: \(deleted\))?$")


class Key(NamedTuple):
    """What files are ordered by."""

    time: int
    """Of the first record; 0 while there is none."""
    stamp: str
    """In its name: conmon gives the same time to all it has read at once."""


@dataclass(eq=False)
class Part:
    """One file that is open, whatever becomes of its name."""

    stream: BinaryIO
    compressed: bool
    identity: tuple[int, int]
    stamp: str = ""
    """Of a compressed file."""
    _time: int = 0

    @property
    def key(self) -> Key:
        if not self._time:
            self._time = _first_time(self.stream, self.compressed)
        return Key(self._time, self.stamp or self._stamp_now())

    @property
    def size(self) -> int:
        return os.fstat(self.stream.fileno()).st_size

    @property
    def unread(self) -> bool:
        """There is more. One that was truncated is read from its beginning again."""
        if self.compressed:
            return False
        size, position = self.size, self.stream.tell()
        if size < position:
            self._time = 0
            self.stream.seek(0)
        return size != position

    def _stamp_now(self) -> str:
        # The kernel knows its present name, and the last one when it has none any more (proc_pid_fd(5)).
        found = _STAMP.search(str(Path(f"/proc/self/fd/{self.stream.fileno()}").readlink()))
        return found[1] if found else _NEVER_NAMED


class Start(NamedTuple):
    part: Part
    """Where to begin, positioned there."""
    newest: Part
    """The last file; it may be the same."""
    end: int
    """How much that had, in bytes."""


class Chain:
    """The files of the log at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times: dict[str, int] = {}
        """Of each stamp. An inode's number would not do: it goes to the next file that is made."""
        self._passed = Key(0, "")

    def start(self, *, since: int | None = None, tail: int | None = None) -> Start | None:
        """Where to begin; None when there is no log.

        `tail`: so that the last so many lines begin there or after, with all their parts. Else `since`: so
        that every record from this moment (nanoseconds since the epoch) on follows.
        """
        row = self._row()
        if not row:
            return None
        end = _end(row[-1])
        chosen = row[0]
        if tail is not None:
            chosen = _last_lines(row, end, tail)
        elif since is not None:
            # A record that is younger than the first of a file is in it or in a later one.
            begun = [each for each in row if 0 < each.key.time <= since]
            chosen = begun[-1] if begun else row[0]
            _seek_time(chosen, since)
        # Those before it are not wanted any more, also if the chosen one has no record yet.
        before = row[: row.index(chosen)]
        self._passed = max((each.key for each in before), default=self._passed)
        for each in row[:-1]:
            if each is not chosen:
                each.stream.close()
        return Start(chosen, row[-1], end)

    def successor(self, part: Part) -> Part | None:
        """The file that comes after `part`; None while there is none."""
        while True:
            key = part.key
            passed = max(self._passed, key)
            later = [each for each in self._listed() if each[0] > passed and each[2] != part.identity]
            current = None if later else self._current()
            if current is not None and current.identity == part.identity:
                current.stream.close()
                current = None
            elif current is not None and self._overtaken(current, part, passed):
                current.stream.close()
                continue
            if part.key != key:
                # It was renamed meanwhile: which ones come after it is to be seen anew.
                if current is not None:
                    current.stream.close()
                continue
            if later:
                current = self._open_old(later[0][1])
                if current is None:
                    continue  # removed: the one after it, then
            if current is not None:
                self._passed = passed
            return current

    def _overtaken(self, current: Part, part: Part, passed: Key) -> bool:
        """Whether what has been the current file when `later` was listed is not current any more."""
        known = (part.identity, current.identity)
        return any(key > passed and identity not in known for key, _, identity in self._listed())

    def _row(self) -> list[Part]:
        """All files, open, oldest first."""
        while True:
            current = self._current()
            row = [part for _, path, _ in self._listed() if (part := self._open_old(path)) is not None]
            if current is None:
                if not self._path.exists():
                    return row or self._empty()
            elif _is(self._path, current.identity) and all(each.identity != current.identity for each in row):
                return [*row, current]
            # It was rotated while we looked.
            for each in (*row, *([current] if current is not None else [])):
                each.stream.close()

    def _empty(self) -> list[Part]:
        """A log in which nothing was written before its only file was renamed."""
        listed = self._listed(empty=True)
        part = self._open_old(listed[-1][1]) if listed else None
        return [part] if part is not None else []

    def _current(self) -> Part | None:
        return self._open(self._path)

    def _listed(self, *, empty: bool = False) -> list[tuple[Key, str, tuple[int, int]]]:
        """Key, path and identity of each rotated file, oldest first.

        One without a record has no place in the row, and is left out. If it was renamed away so and its
        writer has not gone on yet, it gets one. `empty`: with those.
        """
        found = []
        for each in rotated(str(self._path)):
            part = self._open_old(each.path)
            if part is None:
                continue
            with part.stream:
                time = self._times.get(each.stamp) or part.key.time
                if time:
                    self._times[each.stamp] = time
                elif not empty:
                    continue
            found.append((Key(time, each.stamp), each.path, part.identity))
        return sorted(found)

    def _open_old(self, path: str) -> Part | None:
        """A rotated file, which may have been compressed since it was listed; None when it was removed."""
        part = self._open(Path(path))
        return part if part is not None or path.endswith(".gz") else self._open(Path(f"{path}.gz"))

    def _open(self, path: Path) -> Part | None:
        compressed = path.suffix == ".gz" and path != self._path
        try:
            stream = path.open("rb", buffering=0)
        except FileNotFoundError:
            return None
        status = os.fstat(stream.fileno())
        identity = status.st_dev, status.st_ino
        if not compressed:
            return Part(stream, False, identity)
        stream.close()
        stamp = _STAMP.search(path.stem)
        try:
            packed = cast(BinaryIO, gzip.open(path, "rb"))  # noqa: SIM115 - the part is closed by who has it
        except FileNotFoundError:
            return None
        return Part(packed, True, identity, stamp[1] if stamp else _NEVER_NAMED)


def record_line(record: bytes) -> Line | None:
    """None: a torn record. The host crashed while it was written."""
    try:
        return parse(record)
    except InvalidArgument:
        return None


def _is(path: Path, identity: tuple[int, int]) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == identity


def _first_time(stream: BinaryIO, compressed: bool) -> int:
    """The time of the first record; 0 when there is none yet. Does not move the position."""
    if compressed:
        position = stream.tell()
        stream.seek(0)
        head = stream.read(_HEAD)
        stream.seek(position)
    else:
        head = os.pread(stream.fileno(), _HEAD, 0)
    # The last may be cut, but not its time. The first may be torn.
    for record in head.split(b"\n"):
        if (line := record_line(record)) is not None:
            return line.time
    return 0


def _last_lines(row: list[Part], end: int, count: int) -> Part:
    """The part with which the last `count` lines begin, positioned there; the last one counts to `end`."""
    start = row[-1], end
    complete, walked, started = 0, 0, 0
    closed: set[str] = set()
    for part, offset, record in _backwards(row, end):
        walked += len(record) + 1
        line = record_line(record)
        if line is None:
            continue
        if complete > count and walked - started > LOOK_BACK:
            break
        if line.partial:
            if line.stream not in closed:
                start, started = (part, offset), walked
            continue
        complete += 1
        if complete <= count:
            start, started = (part, offset), walked
        else:
            # Whatever of this stream stands further up belongs to lines that are not wanted.
            closed.add(line.stream)
            if len(closed) == 2:
                break
    part, offset = start
    part.stream.seek(offset)
    return part


def _end(part: Part) -> int:
    if not part.compressed:
        return part.size
    while part.stream.read(CHUNK):
        pass
    end = part.stream.tell()
    part.stream.seek(0)
    return end


def _backwards(row: list[Part], end: int) -> Iterator[tuple[Part, int, bytes]]:
    """File, offset and content of each complete record, the last first."""
    for part in reversed(row):
        if part.compressed:
            part.stream.seek(0)
            # As large as the log that it was: in memory once, and only while somebody wants so many lines.
            records = part.stream.read().split(b"\n")[:-1]
            offset = sum(len(each) + 1 for each in records)
            for record in reversed(records):
                offset -= len(record) + 1
                yield part, offset, record
        else:
            for offset, record in _backwards_in(part.stream, end if part is row[-1] else part.size):
                yield part, offset, record


def _backwards_in(stream: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
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


def _seek_time(part: Part, since: int) -> None:
    """Position `part` before its first record of the moment `since` or later, and before its line's parts."""
    if part.compressed:
        return
    low, high = 0, part.size
    while high - low > CHUNK:
        middle = (low + high) // 2
        time = _time_after(part.stream, middle)
        if time is None or time >= since:
            high = middle
        else:
            low = middle
    start = max(0, low - LOOK_BACK)
    part.stream.seek(start)
    if start:
        _skip_record(part.stream)


def _time_after(stream: BinaryIO, offset: int) -> int | None:
    """The time of the first whole record behind `offset`; None when there is none near."""
    stream.seek(offset)
    for record in stream.read(CHUNK).split(b"\n")[1:-1]:
        if (line := record_line(record)) is not None:
            return line.time
    return None


def _skip_record(stream: BinaryIO) -> None:
    begin = stream.tell()
    chunk = stream.read(CHUNK)
    stream.seek(begin + chunk.find(b"\n") + 1)
