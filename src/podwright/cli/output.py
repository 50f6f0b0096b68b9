"""What commands print: tables for people, the CRI's own messages as JSON for programs.

Tables have colours and fit the width when a terminal reads them; otherwise they are plain text whose
columns are aligned. They are drawn here and not by rich, which takes as long as all of `podwright ps`.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from podwright.errors import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.message import Message

SHORT_ID = 12

GAP, NARROW_GAP = 3, 2
"""Spaces between two columns, and where room is short."""

MIN_FOLDED = 10
"""Columns that a folded cell keeps on however narrow a terminal."""

_BOLD, _RED, _GREEN, _YELLOW = "1", "31", "32", "33"
_COLOURS = {
    "running": _GREEN,
    "ready": _GREEN,
    "ok": _GREEN,
    "yes": _GREEN,
    "created": _YELLOW,
    "Running": _GREEN,
    "Succeeded": _GREEN,
    "Pending": _YELLOW,
    "Failed": _RED,
    "warning": _YELLOW,
    "not ready": _RED,
    "missing": _RED,
    "no": _RED,
    "unknown": _RED,
}
"""Words of a state that stand out on a terminal."""


class Format(enum.StrEnum):
    """How a list is written."""

    TABLE = "table"
    JSON = "json"


class Document(enum.StrEnum):
    """How one thing is written."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None) -> None:
    """Print `rows` under their headings. On a terminal wide columns fold rather than lose their ends."""
    file = file or sys.stdout
    terminal = file.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR")
    widths, gap = [max(map(len, column)) for column in zip(columns, *rows, strict=True)], GAP
    if terminal:
        widths, gap = fitted(widths, terminal_width(file))
    for index, row in enumerate((columns, *rows)):
        folded = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for line in range(max(map(len, folded))):
            text = ""
            for column, cell, width, whole in zip(columns, folded, widths, row, strict=True):
                part = cell[line] if line < len(cell) else ""
                colour = _BOLD if index == 0 else _colour(column, whole)
                text += painted(part, colour if coloured else "") + " " * (width - len(part) + gap)
            print(text.rstrip(), file=file)


def terminal_width(file: TextIO) -> int:
    """Columns of the terminal that `file` is, which may be another one than that of standard output."""
    told = shutil.get_terminal_size().columns
    if file is sys.stdout:
        return told
    try:
        return os.get_terminal_size(file.fileno()).columns or told
    except OSError:
        return told


def fitted(widths: Sequence[int], room: int) -> tuple[list[int], int]:
    """Widths of columns that fit into `room`, and the gap between them: the widest give way first."""
    fit = list(widths)
    if sum(fit) + GAP * (len(fit) - 1) <= room:
        return fit, GAP
    while sum(fit) + NARROW_GAP * (len(fit) - 1) > room and max(fit) > MIN_FOLDED:
        fit[fit.index(max(fit))] -= 1
    return fit, NARROW_GAP


def json(value: Any) -> None:
    """Print a JSON value for programs and people: indented, no escapes for what is no ASCII."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def plain(message: Message) -> dict[str, Any]:
    """A CRI message as JSON (protobuf's mapping: camelCase, 64-bit numbers as strings), all fields set."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, always_print_fields_with_no_presence=True)


def in_words(error: Exception) -> str:
    """An error for people: what the system says of which file, without numbers."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    # Whose right is missing says more than what an engine would need: the fake one needs none.
    hint = f" (this is uid {os.geteuid()})" if isinstance(error, PermissionError) else ""
    return f"{error.filename}: {error.strerror}{hint}" if error.filename else f"{error.strerror}{hint}"


def fail(message: str, status: int = 1) -> NoReturn:
    """End with one line on standard error."""
    print(f"podwright: {message}", file=sys.stderr)
    sys.exit(status)


def age(nanoseconds: int) -> str:
    """How long ago a moment was, as kubectl writes it: "45s", "3m20s", "59m", "5h", "4d"; "-" for none."""
    if nanoseconds <= 0:
        return "-"
    return span(int(time.time()) - nanoseconds // 1_000_000_000)


def span(seconds: int) -> str:
    """A length of time in the same way; "0s" for what lies ahead."""
    seconds = max(0, seconds)
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600 and seconds % 60:
        return f"{seconds // 60}m{seconds % 60}s"
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    return f"{seconds // 3600}h" if seconds < 48 * 3600 else f"{seconds // 86400}d"


def seconds(option: str, text: str) -> float:
    """A length of time as people type it: "90", "30s", "1h30m". InvalidArgument names `option`."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    if parts is None or not text:
        raise InvalidArgument(f"{option} {text}", "is no length of time: 30s, 2m, 1h30m")
    hours, minutes, rest = (float(one or 0) for one in parts.groups())
    return hours * 3600 + minutes * 60 + rest


@contextmanager
def unread(stream: TextIO) -> Iterator[None]:
    """Write in the block for somebody who may read no more (`| head`, a terminal that was closed): then what
    is written goes nowhere, and the command goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def size(octets: int) -> str:
    """Bytes in decimal units, as registries count: "4.2 MB"."""
    value = float(octets)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def short(id: str) -> str:
    """An id as people type it."""
    return id.removeprefix("sha256:")[:SHORT_ID]


def _colour(column: str, cell: str) -> str:
    if column in ("EXIT CODE", "TYPE"):
        return _RED if cell.isdecimal() and cell != "0" else _YELLOW if cell == "Warning" else ""
    if column not in ("STATE", "PHASE"):
        return ""
    if cell.startswith("exited (") and cell != "exited (0)":
        return _RED
    return _COLOURS.get(cell, "")


def painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if text and colour else text
