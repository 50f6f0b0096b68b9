"""What commands print: tables for people, the CRI's own messages as JSON for programs.

Tables have colours and fit the width when a terminal reads them; otherwise they are plain text whose
columns are aligned. rich is imported for terminals alone: it costs as long as all of `podwright ps`.
"""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

SHORT_ID = 12

_STYLES = {
    "running": "green",
    "ready": "green",
    "ok": "green",
    "yes": "green",
    "created": "yellow",
    "warning": "yellow",
    "not ready": "red",
    "missing": "red",
    "no": "red",
    "unknown": "red",
}
"""Words of a state that stand out on a terminal."""


class Format(enum.StrEnum):
    """How a list is written."""

    TABLE = "table"
    JSON = "json"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under their headings; the last column may be long."""
    if sys.stdout.isatty():
        _rich_table(columns, rows)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("   ".join(cells).rstrip())


def json(value: Any) -> None:
    """Print a JSON value for programs and people: indented, no escapes for what is no ASCII."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def plain(message: Message) -> dict[str, Any]:
    """A CRI message as JSON (protobuf's mapping: camelCase, 64-bit numbers as strings), all fields set."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, always_print_fields_with_no_presence=True)


def age(nanoseconds: int) -> str:
    """How long ago a moment was, in its largest unit: "3 minutes ago"; "-" for none."""
    if nanoseconds <= 0:
        return "-"
    seconds = max(0, int(time.time()) - nanoseconds // 1_000_000_000)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} s ago"


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


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        # Ids and states stay whole; long texts fold onto the next line rather than lose their end.
        drawn.add_column(column, overflow="fold", no_wrap=column in ("ID", "STATE", "CREATED"))
    for row in rows:
        drawn.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console().print(drawn)


def _style(cell: str) -> str:
    if cell.startswith("exited") and cell != "exited (0)":
        return "red"
    return _STYLES.get(cell, "")
