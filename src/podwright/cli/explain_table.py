"""The tables of `explain`: rows with a path, grouped by section and cut to the width of a terminal.

What is not a terminal gets whole paths and whole values, one row a line, so that it can be searched.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby

from podwright.cli.output import painted

BOLD, DIM, RED, YELLOW = "1", "2", "31", "33"
GAP = 2
MOST_PATH = 34
"""Columns of a path at most; a longer one loses its middle."""
LEAST = 14
"""Columns of any other cell at least, however narrow the terminal."""
PADDED = 60
"""Where there is no terminal a cell is filled up to this at most."""


def strong(text: str) -> None:
    print(_paint(text, BOLD))


def note(text: str) -> None:
    print(_paint(text, DIM))


def warning(text: str) -> None:
    print(f"{_paint('warning:', YELLOW)} {text}")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, wide: bool = False, marked: Iterable[int] = ()
) -> None:
    """Print `rows`, whose first cell is a path. Rows whose number is in `marked` stand out."""
    if not rows:
        return
    standing_out = set(marked)
    if not sys.stdout.isatty():
        _plain(columns, rows)
        return
    room = sys.maxsize if wide else shutil.get_terminal_size().columns
    inner = [(_section(row[0]), index, row) for index, row in enumerate(rows)]
    cells = [(_inside(section, row[0]), *row[1:]) for section, _, row in inner]
    widths = _fitted([max(map(len, column)) for column in zip(columns, *cells, strict=True)], room)
    print(_paint(_line(columns, widths), BOLD))
    for section, group in groupby(zip(inner, cells, strict=True), key=lambda pair: pair[0][0]):
        print(_paint(section, BOLD))
        for (_, index, _), cell in group:
            print(_paint(_line(cell, widths), RED if index in standing_out else ""))


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [min(PADDED, max(map(len, column))) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print((" " * GAP).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _section(path: str) -> str:
    """What a row is listed under."""
    for whole in ("linux.resources", "linux.namespaces", "linux.devices", "process.env", "process.rlimits"):
        if path.startswith((f"{whole}.", f"{whole}[")):
            return whole
    return path.partition("[")[0].partition(".")[0]


def _inside(section: str, path: str) -> str:
    rest = path.removeprefix(section).removeprefix(".")
    return f"  {rest}" if rest else f"  {section}"


def _fitted(widths: list[int], room: int) -> list[int]:
    """Widths that fit into `room`: the path keeps its own up to a measure, the widest other gives way."""
    if sum(widths) + GAP * (len(widths) - 1) <= room:
        return widths
    fit = [min(widths[0], MOST_PATH), *widths[1:]]
    others = range(1, len(fit))
    while sum(fit) + GAP * (len(fit) - 1) > room:
        widest = max(others, key=lambda at: fit[at])
        if fit[widest] <= LEAST:
            break
        fit[widest] -= 1
    return fit


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    path, *others = zip(cells, widths, strict=True)
    shown = [_middle(*path), *(shortened(cell, width) for cell, width in others)]
    return (" " * GAP).join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip()


def _middle(path: str, width: int) -> str:
    """Both ends of a path tell where it leads."""
    if len(path) <= width:
        return path
    head = (width - 1) // 2
    return f"{path[:head]}…{path[len(path) - (width - 1 - head) :]}"


def shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return text[: max(0, width - 1)] + "…"


def _paint(text: str, colour: str) -> str:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return painted(text, colour) if coloured and colour else text
