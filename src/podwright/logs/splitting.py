"""What a program writes, made into records of the CRI log format. Pure, and cut alike however it comes.

Standard library only, as the writer's process is kept small.
"""

from __future__ import annotations

MAX_LINE = 16384
"""Bytes of a line in one record; a longer line is parts and an end."""


class Splitter:
    """One stream of a container. The end of a line loses its newline, and a carriage return before it."""

    def __init__(self, stream: str, limit: int = MAX_LINE) -> None:
        self._name = stream.encode()
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes, stamp: bytes) -> bytes:
        """The records that `data` completes; `stamp` is their time (RFC 3339)."""
        *ended, rest = (self._rest + data).split(b"\n")
        made = bytearray()
        for line in ended:
            self._record(made, line.removesuffix(b"\r"), stamp, b"F")
        # A carriage return that ends the limit's next byte may belong to a newline that has not come yet.
        while len(rest) > self._limit + 1 or (len(rest) == self._limit + 1 and rest[-1:] != b"\r"):
            made += b"%b %b P %b\n" % (stamp, self._name, rest[: self._limit])
            rest = rest[self._limit :]
        self._rest = rest
        return bytes(made)

    def close(self, stamp: bytes) -> bytes:
        """The stream has ended: what had no newline, as a part."""
        made = bytearray()
        if self._rest:
            self._record(made, self._rest, stamp, b"P")
        self._rest = b""
        return bytes(made)

    def _record(self, made: bytearray, line: bytes, stamp: bytes, last: bytes) -> None:
        limit = self._limit
        while len(line) > limit:
            made += b"%b %b P %b\n" % (stamp, self._name, line[:limit])
            line = line[limit:]
        made += b"%b %b %b %b\n" % (stamp, self._name, last, line)
