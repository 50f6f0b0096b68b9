"""Lines of Docker's json-file log as records of the CRI log format, and which of them a log has. Pure.

Docker cuts a line of a program into pieces of 16 KiB, of which only the last ends with a newline: those are
the P and F of the CRI. Bytes that are no UTF-8 Docker has replaced before anybody sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

NOTE = b"podwright: "
"""What records of our own begin with: limits that were met (logs/limits.py)."""


class _Piece(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""


_decoder = msgspec.json.Decoder(_Piece)


def records(lines: bytes) -> bytes:
    """The records of whole `lines`, one each. What is no piece (a host that crashed left it) is left out."""
    try:
        pieces: Iterable[_Piece] = _decoder.decode_lines(lines)
    except msgspec.DecodeError:
        pieces = filter(None, map(_piece, lines.split(b"\n")))
    return b"".join(map(_record, pieces))


def skip_written(lines: bytes, written: Sequence[bytes]) -> tuple[int, int]:
    """How many bytes of `lines`, which are whole, stand for records of `written`, and for how many of them.

    These are those of a log, in order, that come from `lines` or say what limits have left out of them: any
    of `lines` may be missing there.
    """
    at = end = number = 0
    while number < len(written) and at < len(lines):
        following = lines.index(b"\n", at) + 1
        record = records(lines[at:following])
        if record and (found := _next(record, written, number)) is not None:
            number, end = found + 1, following
        at = following
    return end, number


def _next(record: bytes, written: Sequence[bytes], number: int) -> int | None:
    """Where `record` is in `written`, from `number` on, with nothing but notes before it."""
    while number < len(written):
        if written[number] == record:
            return number
        if not _is_note(written[number]):
            return None
        number += 1
    return None


def _is_note(record: bytes) -> bool:
    """An empty one may be the end that a cut line was given."""
    text = record.split(b" ", 3)[-1]
    return text == b"\n" or text.startswith(NOTE)


def _piece(line: bytes) -> _Piece | None:
    try:
        return _decoder.decode(line) if line else None
    except msgspec.DecodeError:
        return None


def _record(piece: _Piece) -> bytes:
    if not piece.time:
        return b""
    text = piece.log
    tag = "P"
    if text.endswith("\n"):
        # With a terminal lines end in both.
        tag, text = "F", text[:-1].removesuffix("\r")
    return f"{piece.time} {piece.stream} {tag} {text}\n".encode()
