"""The CRI log format: one record a line, `TIME STREAM TAG TEXT`. Pure: bytes in, values out.

A line of a program that is longer than the writer's buffer stands in several records: P for each part,
F for the last one. The two streams are interleaved, so the parts of a line need not be neighbours.
Source: kubernetes/design-proposals, kubelet-cri-logging.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from time import time_ns

from podwright.errors import InvalidArgument

MAX_JOINED = 1 << 20
"""Bytes of one line that are kept together; a longer one is handed on in parts."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Line:
    stream: str
    """"stdout" or "stderr"."""
    time: int
    """Nanoseconds since the epoch: when its first part was written."""
    text: bytes
    """Without the newline."""
    partial: bool = False
    """The program wrote no newline after it (yet)."""


def parse(record: bytes) -> Line:
    """One record, with or without its newline. InvalidArgument when it is none."""
    try:
        stamp, stream, tags, text = record.removesuffix(b"\n").split(b" ", 3)
        tag = tags.partition(b":")[0]
        if stream not in (b"stdout", b"stderr") or tag not in (b"P", b"F"):
            raise ValueError("unknown stream or tag")
        return Line(stream.decode(), parse_time(stamp.decode()), text, tag == b"P")
    except ValueError as error:
        raise InvalidArgument("log", f"{record[:80]!r} is no record of the CRI log format") from error


def parse_time(text: str) -> int:
    """An RFC 3339 time with up to nine digits of a second as nanoseconds since the epoch. ValueError."""
    head, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if dot and not 1 <= len(digits) <= 9:
        raise ValueError(f"{text!r} has no fraction of a second after the dot")
    zone = rest[len(digits) :] if dot else ""
    return _seconds(head + zone) * 1_000_000_000 + int(digits.ljust(9, "0") or 0)


def moment(text: str, field: str = "since") -> int:
    """Nanoseconds since the epoch of "10m" ago (s, m, h, d) or of an RFC 3339 time; InvalidArgument."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time_ns() - int(float(found[1]) * _UNITS[found[2]] * 1e9)
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidArgument(
            field, f"{text!r} is neither a duration (10m) nor a time (2026-01-31T12:00:00Z)"
        ) from error


def format_time(time: int) -> str:
    """RFC 3339 in UTC with all nine digits, as log readers print it."""
    seconds, fraction = divmod(time, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


@lru_cache(64)
def _seconds(text: str) -> int:
    """Since the epoch. Neighbours of a log have the same."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    passed = moment - _EPOCH
    return passed.days * 86400 + passed.seconds


class Joiner:
    """Puts the parts of lines together, each stream for itself."""

    def __init__(self) -> None:
        self._open: dict[str, list[Line]] = {}

    def feed(self, part: Line) -> Line | None:
        """The line that `part` completes, or None."""
        if not part.partial and part.stream not in self._open:
            return part
        parts = self._open.setdefault(part.stream, [])
        parts.append(part)
        if part.partial and sum(len(each.text) for each in parts) < MAX_JOINED:
            return None
        del self._open[part.stream]
        return _joined(parts)

    def rest(self) -> Iterator[Line]:
        """Lines that never got their end, the oldest first."""
        for parts in sorted(self._open.values(), key=lambda each: each[0].time):
            yield _joined(parts)
        self._open.clear()


def _joined(parts: list[Line]) -> Line:
    if len(parts) == 1:
        return parts[0]
    text = b"".join(each.text for each in parts)
    return replace(parts[0], text=text, partial=parts[-1].partial)
