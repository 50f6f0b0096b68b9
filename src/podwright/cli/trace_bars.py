"""Bars and the axis above them, to scale, in cells of a terminal; and times in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FULL, LINE, PALE, PALE_LINE = "█", "━", "░", "╌"
"""At work itself, and something inside at work; the pale ones where nothing waited for it."""
EIGHTHS = "▏▎▍▌▋▊▉█"
HALF_RIGHT, THIN_RIGHT = "▐", "▕"
LINE_BEGINS, LINE_ENDS = "╺", "╸"

BETWEEN_TICKS = 8
"""Cells at least."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar, in nanoseconds."""

    start: int
    end: int
    glyph: str


def bar(pieces: Sequence[Piece], total: int, cells: int) -> list[str]:
    """One glyph or blank for each of `cells`, which are `total` nanoseconds. A bar is never invisible."""
    drawn = [" "] * cells
    if not pieces or not cells:
        return drawn
    cell = max(total, 1) / cells
    begin, end = min(piece.start for piece in pieces), max(piece.end for piece in pieces)
    first = min(int(begin / cell), cells - 1)
    last = min(max(first, -int(-end // cell) - 1), cells - 1)
    for index in range(first, last + 1):
        left, right = index * cell, (index + 1) * cell
        here = [piece for piece in pieces if piece.start < right and piece.end >= left]
        if not here and first < last:
            continue  # a gap between two pieces
        parts = [(min(piece.end, right) - max(piece.start, left), piece.glyph) for piece in here or pieces]
        covered, glyph = sum(max(0, part) for part, _ in parts) / cell, max(parts)[1]
        goes_on = any(piece.end >= right for piece in here)
        came = any(piece.start <= left for piece in here)
        drawn[index] = glyph if covered > 0.95 else _partial(glyph, covered, came, goes_on)
    if first == last and drawn[first] in EIGHTHS[:3] and begin / cell - first > 0.6:
        drawn[first] = THIN_RIGHT
    return drawn


def _partial(glyph: str, covered: float, came: bool, goes_on: bool) -> str:
    """A cell that is not full: what `came` from the one before ends in it, what `goes_on` begins."""
    if came == goes_on or (glyph == FULL and came):
        return EIGHTHS[max(0, round(covered * 8) - 1)]
    if glyph == FULL:
        return FULL if covered > 0.75 else HALF_RIGHT if covered > 0.2 else THIN_RIGHT
    if glyph == LINE:
        return LINE if covered > 0.75 else LINE_ENDS if came else LINE_BEGINS
    return glyph


def axis(total: int, cells: int) -> str:
    """Round times above the places of the bars that they stand for."""
    if not total or cells < 1:
        return ""
    step = _step(total * BETWEEN_TICKS / cells)
    unit, name = _unit(total)
    ticks = [(round(at * cells / total), f"{at / unit:g}") for at in range(0, total + 1, step)]
    # The last one that has room for it tells the unit.
    while len(ticks) > 1 and ticks[-1][0] + len(f"{ticks[-1][1]} {name}") > cells:
        ticks.pop()
    if len(ticks) == 1:
        return "0".ljust(cells - len(end := duration(total))) + end
    line = ""
    for place, text in ticks:
        line = line.ljust(place) + text
    return f"{line} {name}"


def duration(nanoseconds: int) -> str:
    """Three digits and a unit: "1.23 s", "412 ms", "85.0 µs"; minutes and seconds from a minute on."""
    if nanoseconds >= 60_000_000_000:
        minutes, seconds = divmod(nanoseconds // 1_000_000_000, 60)
        return f"{minutes}m{seconds:02}s"
    for unit, name in ((1_000_000_000, "s"), (1_000_000, "ms")):
        # What would be rounded to 1000 is 1 of the next unit.
        if nanoseconds >= unit * 0.9995:
            return f"{_digits(nanoseconds / unit)} {name}"
    return f"{_digits(nanoseconds / 1000)} µs"


def _digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _step(least: float) -> int:
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10


def _unit(nanoseconds: int) -> tuple[int, str]:
    for unit, name in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")):
        if nanoseconds >= unit:
            return unit, name
    return 1, "ns"
