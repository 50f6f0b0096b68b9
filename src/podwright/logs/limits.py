"""What a log may take up: a limit of its size, of its rate, and rotation. Pure: records in, records out.

Who writes a log feeds a `Keeper` the records of a container and does what it says. Nothing is left out
without a record that says so, and no line loses its beginning or, unseen, its end: parts (P) are one line to
readers. Imports the standard library only: the writer's process is kept small.
"""

from __future__ import annotations

from typing import NamedTuple

ROTATE = b""
"""In place of records: the file is full, go on in a new one."""
RESERVE = 512
"""Bytes of a limited log that are left for the records that tell of the limit."""
MIN_SIZE = 4096
"""A limit below this would hold little more than them."""
_STREAMS = (b"stdout", b"stderr")
_ROUNDING = 1e-6


class Limits(NamedTuple):
    """All off at 0. Sizes in bytes of the file, rates in a second of the container's life."""

    max_size: int = 0
    """Of one file: at it the log is rotated or, without rotation, left as it is."""
    max_files: int = 0
    """Files of one container, the current one included; 0: no rotation."""
    compress: bool = False
    """gzip all rotated files but the latest."""
    rate_bytes: int = 0
    rate_lines: int = 0
    """Records: a line longer than the writer's buffer counts for each part."""
    burst: float = 1.0
    """Seconds of the rates that may come at once."""


class Keeper:
    """The records that one container's log gets. Times are seconds of any clock that only goes forward."""

    def __init__(self, limits: Limits, *, size: int = 0, marked: bool = False) -> None:
        """`size`: bytes that the file has. `marked`: its last record says already that it is full."""
        self.limits = limits
        self._size = size
        self._full = _Gate()
        self._full.shut = marked
        self._rate = _Gate()
        self._moment = float("-inf")
        self._buckets = _full_buckets(limits)

    def take(self, records: bytes, now: float) -> list[bytes]:
        """What to write of `records` (whole ones, in order), piece by piece; ROTATE among them."""
        return self._sized(self._rated(records, now))

    def due(self) -> float | None:
        """When `tick` has something to say though no record comes; None: never."""
        if not self._rate.shut:
            return None
        waits = [(size / 2 - left) / rate for left, size, rate in self._levels()]
        return self._moment + max(0.0, *waits)

    def tick(self, now: float) -> list[bytes]:
        """What to write now that time has passed."""
        return self._sized(self._reopen_rate(now))

    def reopened(self, size: int = 0) -> list[bytes]:
        """A new file of `size` bytes is written from now on: what comes first in it."""
        self._size = size
        if not self._full.shut:
            return []
        return self._grown(self._full.open(self._full_words()))

    def end(self) -> list[bytes]:
        """No more records come: what is still to be said."""
        made = self._sized(self._rate.open(self._rate_words()) if self._rate.shut else b"")
        if self._full.shut:
            made += self._grown(self._full.open(self._full_words()))
        return made

    # The rate

    def _rated(self, records: bytes, now: float) -> bytes:
        if not self._buckets:
            return records
        said = self._reopen_rate(now)
        if self._rate.shut:
            self._rate.drop(records)
            return b""
        self._refill(now)
        records = self._rate.without_heads(records)
        fit = self._admitted(records)
        passed = self._rate.let(records[:fit])
        if fit < len(records):
            passed += self._rate.shut_before(records[fit:])
        return said + passed

    def _reopen_rate(self, now: float) -> bytes:
        """The record that tells what was left out, once half of what may come at once is free again: from
        there on more comes than such records."""
        if not self._rate.shut:
            return b""
        self._refill(now)
        if any(left < size / 2 - _ROUNDING for left, size, _ in self._levels()):
            return b""
        return self._rate.open(self._rate_words())

    def _admitted(self, records: bytes) -> int:
        """How many bytes of `records` pass; they are taken from the buckets. A record passes when something
        is left, however long it is: the next ones wait for what it took too much."""
        lines = records.count(b"\n")
        costs = self._cost(lines, len(records))
        if all(left >= cost for left, cost in zip(self._buckets, costs, strict=True)):
            self._spend(lines, len(records))
            return len(records)
        at = 0
        while at < len(records) and all(left > 0 for left in self._buckets):
            end = records.index(b"\n", at) + 1
            self._spend(1, end - at)
            at = end
        return at

    def _cost(self, lines: int, size: int) -> list[int]:
        limits = self.limits
        return [cost for cost, rate in ((lines, limits.rate_lines), (size, limits.rate_bytes)) if rate]

    def _spend(self, lines: int, size: int) -> None:
        for number, cost in enumerate(self._cost(lines, size)):
            self._buckets[number] -= cost

    def _levels(self) -> list[tuple[float, float, int]]:
        """Of each bucket: what is left, how much it holds, and what flows in each second."""
        rates = [rate for rate in (self.limits.rate_lines, self.limits.rate_bytes) if rate]
        return list(zip(self._buckets, _full_buckets(self.limits), rates, strict=True))

    def _refill(self, now: float) -> None:
        passed = now - self._moment
        if passed > 0:
            self._buckets = [min(size, left + passed * rate) for left, size, rate in self._levels()]
            self._moment = now

    def _rate_words(self) -> str:
        limits = self.limits
        rates = [f"{limits.rate_lines} lines"] if limits.rate_lines else []
        rates += [f"{limits.rate_bytes} bytes"] if limits.rate_bytes else []
        return f"more than {' or '.join(rates)} a second, {self._rate.dropped()}"

    # The size

    def _sized(self, records: bytes) -> list[bytes]:
        if not records:
            return []
        limit = self.limits.max_size
        if not limit:
            return [records]
        return self._in_files(records, limit) if self.limits.max_files else self._capped(records, limit)

    def _in_files(self, records: bytes, limit: int) -> list[bytes]:
        made: list[bytes] = []
        at = 0
        while len(records) - at > limit - self._size:
            cut = records.rfind(b"\n", at, at + max(0, limit - self._size)) + 1
            if cut <= at and not self._size:
                cut = records.index(b"\n", at) + 1  # one that is larger than a file may be has its own
            if cut > at:
                made.append(records[at:cut])
                at = cut
            self._size = 0
            if at == len(records):
                # Nothing more for now: the file is rotated when something comes.
                self._size = limit
                return made
            made.append(ROTATE)
        if at < len(records):
            made.append(records[at:] if at else records)
            self._size += len(records) - at
        return made

    def _capped(self, records: bytes, limit: int) -> list[bytes]:
        if self._full.shut:
            self._full.drop(records)
            return []
        records = self._full.without_heads(records)
        room = max(0, limit - RESERVE - self._size)
        if len(records) <= room:
            return self._grown(self._full.let(records))
        cut = records.rfind(b"\n", 0, room) + 1
        passed = self._full.let(records[:cut])
        rest = records[cut:]
        passed += self._full.shut_before(rest)
        stamp, stream = _head(rest)
        words = f"podwright: log limit of {limit} bytes reached, lines are dropped from here on"
        return self._grown(passed + b"%b %b F %b\n" % (stamp, stream, words.encode()))

    def _full_words(self) -> str:
        return f"log limit of {self.limits.max_size} bytes reached, {self._full.dropped()}"

    def _grown(self, records: bytes) -> list[bytes]:
        self._size += len(records)
        return [records] if records else []


class _Gate:
    """Where records pass or are dropped: what was dropped, and the lines that this has cut."""

    def __init__(self) -> None:
        self.shut = False
        self._lines = 0
        self._size = 0
        self._last = b"", b""
        """Time and stream of the last record that was dropped."""
        self._open: dict[bytes, bool] = {}
        """Of each stream: its last record is a part, the line goes on."""
        self._heads: set[bytes] = set()
        """Streams of which the next records go on with a line whose beginning was dropped."""

    def let(self, records: bytes) -> bytes:
        _note_ends(records, self._open)
        return records

    def shut_before(self, records: bytes) -> bytes:
        """Drop `records` and what comes after them; what ends the lines that are cut by this."""
        self.shut = True
        stamp, _ = _head(records)
        ends = b"".join(b"%b %b F \n" % (stamp, each) for each in _STREAMS if self._open.get(each))
        self._heads |= {each for each, goes_on in self._open.items() if goes_on}
        self.drop(records)
        return ends

    def drop(self, records: bytes) -> None:
        if not records:
            return
        self._lines += records.count(b"\n")
        self._size += len(records)
        self._last = _head(records[records.rfind(b"\n", 0, len(records) - 1) + 1 :])
        ends: dict[bytes, bool] = {}
        _note_ends(records, ends)
        for stream, goes_on in ends.items():
            (self._heads.add if goes_on else self._heads.discard)(stream)

    def open(self, words: str) -> bytes:
        """Let records pass again; the record that says what was dropped."""
        self.shut = False
        self._open = {}
        stamp, stream = self._last
        made = b"%b %b F podwright: %b\n" % (stamp, stream, words.encode()) if self._lines else b""
        self._lines = self._size = 0
        return made

    def without_heads(self, records: bytes) -> bytes:
        """`records` without the ends of lines whose beginnings were dropped. Those are not counted."""
        if not self._heads:
            return records
        kept = bytearray()
        at = 0
        while at < len(records) and self._heads:
            end = records.index(b"\n", at) + 1
            _, stream, tag = _fields(records[at:end])
            if stream not in self._heads:
                kept += records[at:end]
            elif not tag.startswith(b"P"):
                self._heads.discard(stream)
            at = end
        return bytes(kept) + records[at:]

    def dropped(self) -> str:
        return f"{self._lines} {'line' if self._lines == 1 else 'lines'} ({self._size} bytes) dropped"


def marks_full(record: bytes) -> bool:
    """Whether this record of a log says that the log is full."""
    return b" F podwright: log limit of " in record and b"from here on" in record


def _full_buckets(limits: Limits) -> list[float]:
    return [max(1.0, rate * limits.burst) for rate in (limits.rate_lines, limits.rate_bytes) if rate]


def _head(records: bytes) -> tuple[bytes, bytes]:
    """Time and stream of the first record."""
    stamp, stream, _ = _fields(records[:64])
    return stamp, stream


def _fields(record: bytes) -> tuple[bytes, bytes, bytes]:
    parts = record.split(b" ", 3)
    return (parts[0], parts[1], parts[2]) if len(parts) == 4 else (parts[0], b"stdout", b"F")


def _note_ends(records: bytes, ends: dict[bytes, bool]) -> None:
    """Set for each stream whether its last record among `records` is a part."""
    missing = {each for each in _STREAMS if b" %b " % each in records}
    end = len(records)
    while end > 0 and missing:
        start = records.rfind(b"\n", 0, end - 1) + 1
        _, stream, tag = _fields(records[start:end])
        if stream in missing:
            ends[stream] = tag.startswith(b"P")
            missing.discard(stream)
        end = start
