"""The tables of `explain`: rows with a path, grouped by section and cut to the width of a terminal.

What is not a terminal gets whole paths and whole values, one row a line, so that it can be searched.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence

from podwright.cli.explain_words import ABSENT
from podwright.cli.output import painted

BOLD, DIM, RED, YELLOW = "1", "2", "31", "33"
GAP = 2
PATH_SHARE, LEAST_PATH = 0.3, 24
"""How much of the width a path has at most; a longer one loses its middle."""
LEAST = 14
"""Columns of any other cell at least, however narrow the terminal."""
PADDED = 60
"""Where there is no terminal a cell is filled up to this at most."""
MANY = 8
"""Devices that are there for one reason become one row."""
WHOLE = ("linux.resources", "linux.namespaces", "linux.devices", "process.env", "process.rlimits")
"""Parts of a spec that are sections of their own."""


def strong(text: str) -> None:
    print(_paint(text, BOLD))


def note(text: str) -> None:
    for line in _wrapped(text):
        print(_paint(line, DIM))


def warning(text: str) -> None:
    first, *others = _wrapped(f"warning: {text}")
    print(_paint("warning:", YELLOW) + first.removeprefix("warning:"))
    for line in others:
        print(line)


def _wrapped(text: str) -> Sequence[str]:
    """A sentence in the width of a terminal; as it is where there is none, for programs that search."""
    if not _on_terminal():
        return [text]
    return textwrap.wrap(text, shutil.get_terminal_size().columns, break_on_hyphens=False) or [""]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    wide: bool = False,
    marked: Collection[str] = (),
) -> bool:
    """Print `rows`, whose first cell is a path; those at the paths `marked` stand out. Whether anything had
    to be cut."""
    if not _on_terminal():
        _plain(columns, rows)
        return False
    shown = rows if wide else _folded(rows)
    sections: dict[str, list[tuple[str, Sequence[str]]]] = {}
    for path, *others in shown:
        section = _section(path)
        inside = f"  {path.removeprefix(section).removeprefix('.')}" if section else path
        sections.setdefault(section, []).append((path, (inside, *others)))
    cells = [cell for group in sections.values() for _, cell in group]
    natural = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    widths = natural if wide else _fitted(natural, shutil.get_terminal_size().columns)
    print(_paint(_line(columns, widths), BOLD))
    for section, group in sections.items():
        if section:
            print(_paint(section, BOLD))
        for path, cell in group:
            print(_paint(_line(cell, widths), RED if path in marked else ""))
    return len(shown) < len(rows) or widths != natural


def _folded(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """`rows`, those of many devices that are there for the same reason as one."""
    devices = [row for row in rows if row[0].startswith("linux.devices[")]
    if (
        len(devices) < MANY
        or len({(row[-1], *(each == ABSENT for each in row[1:-1])) for row in devices}) > 1
    ):
        return rows
    names = " ".join(row[0].removeprefix("linux.devices[").removesuffix("]") for row in devices)
    columns = zip(*(row[1:-1] for row in devices), strict=True)
    told = (each[0] if len(set(each)) == 1 else f"{len(devices)}: {names}" for each in columns)
    place = rows.index(devices[0])
    others = [row for row in rows if row not in devices]
    return [*others[:place], ("linux.devices", *told, devices[0][-1]), *others[place:]]


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [min(PADDED, max(map(len, column))) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print((" " * GAP).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _section(path: str) -> str:
    """What a row is listed under; "" for what stands alone."""
    for whole in WHOLE:
        if path.startswith((f"{whole}.", f"{whole}[")):
            return whole
    section = path.partition("[")[0].partition(".")[0]
    return section if section != path else ""


def _fitted(widths: list[int], room: int) -> list[int]:
    """Widths that fit into `room`: the path keeps its own up to a measure, the widest other gives way."""
    if sum(widths) + GAP * (len(widths) - 1) <= room:
        return widths
    fit = [min(widths[0], max(LEAST_PATH, int(room * PATH_SHARE))), *widths[1:]]
    others = range(1, len(fit))
    while sum(fit) + GAP * (len(fit) - 1) > room:
        widest = max(others, key=lambda at: fit[at])
        if fit[widest] <= LEAST:
            break
        fit[widest] -= 1
    return fit


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    shown = (shortened(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True))
    return (" " * GAP).join(shown).rstrip()


def shortened(text: str, width: int) -> str:
    """`text` in `width` columns. Of a path, and of what begins with a word and a path, both ends are kept."""
    if len(text) <= width:
        return text
    word, colon, rest = text.partition(": ")
    if colon and " " not in word and _is_path(rest):
        return f"{word}: {_middle(rest, width - len(word) - 2, 0)}"
    if " = " in text and _is_path(text.split(" ")[0]):
        return _middle(text, width, 0)
    if _is_path(text.split(" ")[0]):
        return _middle(text, width, (width - 1) // 2)
    return f"{text[: max(0, width - 1)]}…"


def _is_path(text: str) -> bool:
    """Of a file, or of a value: dots or slashes, and no words."""
    return text[:1] not in "[{" and " " not in text and (text.count("/") > 1 or text.count(".") > 1)


def _middle(text: str, width: int, head: int) -> str:
    return f"{text[:head]}…{text[len(text) - max(0, width - 1 - head) :]}"


def _paint(text: str, colour: str) -> str:
    coloured = _on_terminal() and not os.environ.get("NO_COLOR")
    return painted(text, colour) if coloured and colour else text


def _on_terminal() -> bool:
    return sys.stdout.isatty()
