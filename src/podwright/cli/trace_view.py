"""The waterfall: where the time of a start went, as lines of text. Nothing is written here.

A row's bar is solid where the row was at work itself, a line where something inside it was, and pale where
nothing waited for it. The column "path" is the row's own share of the critical path.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from podwright.cli.output import painted, short
from podwright.cli.trace_bars import FULL, LINE, PALE, PALE_LINE, Piece, axis, bar, duration
from podwright.cli.trace_path import Account, Node, account

NARROWEST = 40
"""Columns below which lines are longer than the terminal is wide."""
BARS, WIDE = 56, 96
"""Columns from which on there are bars, and the column of begins."""
SHORTEST_BAR = 12
NAMES = 0.42
"""Of the width, what names may take at most."""
SMALL = 200
"""A call without an error that took less than the total divided by this is short."""
ACTS = ("RunPodSandbox", "PullImage", "CreateContainer", "StartContainer", "ExecSync")
"""Calls that have rows however short they are, then without what is inside. Other short ones share one."""
NAMED = 6
"""Steps that the summary names."""
INDENT = 15
"""Columns that the headings of the summary have."""

BOLD, DIM, RED, ON_PATH, BESIDE = "1", "2", "31", "33", "34"

Paint = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Look:
    width: int = 100
    """Columns."""
    colours: bool = False
    every: bool = False
    """Short calls have rows of their own, with all that is inside, too."""


@dataclass(slots=True)
class _Row:
    tree: str
    """What leads from the row above."""
    name: str
    subject: str
    took: int
    share: int
    nodes: list[Node]
    """More than one for short calls."""
    pieces: list[Piece]
    error: str = ""
    """To be said below it."""

    @property
    def failed(self) -> bool:
        return any(node.error for node in self.nodes)

    @property
    def label(self) -> str:
        mark = "✗ " if self.failed else ""
        return f"{self.tree}{mark}{self.name} {self.subject}".rstrip()


def waterfall(root: Node, look: Look, title: str = "", notes: Sequence[str] = ()) -> list[str]:
    """The lines of `root`, with `title` above, a summary and `notes` below; none is wider than the look."""
    paint = _paint if look.colours else _plain
    width = max(NARROWEST, look.width)
    lines = [*(paint(line, BOLD) for line in textwrap.wrap(title, width)), ""] if title else []
    lines += [*rows(root, look), "", *_summary(account(root), width, paint)]
    for note in notes:
        lines += [paint(text, DIM) for text in textwrap.wrap(note, width)]
    return lines


def rows(root: Node, look: Look) -> list[str]:
    """The heading, and a line for each row, with its error below."""
    paint = _paint if look.colours else _plain
    width = max(NARROWEST, look.width)
    made = list(_rows(root, look.every))
    columns = _columns(made, root, width)
    numbers = sum(2 + max(map(len, column)) for column in columns)
    # What short calls there are may be cut; bars need the room.
    widest = max(len(row.label) for row in made if len(row.nodes) == 1)
    bars = width - numbers - 2 - min(widest, int(width * NAMES))
    if width < BARS or bars < SHORTEST_BAR:
        bars = 0
    names = min(widest, width - numbers - (bars + 2 if bars else 0))
    heading = " " * names + _cells([column[0] for column in columns], columns)
    lines = [paint(f"{heading}  {axis(root.took, bars)}".rstrip(), DIM)]
    for index, row in enumerate(made, start=1):
        line = _name(row, names, paint) + _numbers(row, [column[index] for column in columns], columns, paint)
        if bars:
            line += "  " + _painted_bar(row, root.took, bars, paint)
        lines.append(line.rstrip())
        lines += [paint(text, RED) for text in _error(row, width)]
    return lines


def _paint(text: str, colour: str) -> str:
    return painted(text, colour)


def _plain(text: str, _: str) -> str:
    return text


# Rows


def _rows(root: Node, every: bool) -> Iterator[_Row]:
    yield _row(root, "")
    yield from _inside(root, "", root.took, every)


def _inside(node: Node, before: str, total: int, every: bool) -> Iterator[_Row]:
    """The rows below that of `node`."""
    small = [] if every else [child for child in node.children if _folds(child, total)]
    if len(small) == 1:
        small = []  # a row that stands for one row helps nobody
    shown = [child for child in node.children if child not in small]
    for index, child in enumerate(shown):
        last = index == len(shown) - 1 and not small
        yield _row(child, f"{before}{'└' if last else '├'} ")
        if every or not (child.call and _small(child, total)):
            yield from _inside(child, before + ("  " if last else "│ "), total, every)
    if small:
        yield _Row(
            f"{before}└ ",
            f"{len(small)} short calls:",
            ", ".join(dict.fromkeys(child.name for child in small)),
            sum(_typical(child) for child in small),
            sum(node.share for child in small for node in child.below()),
            small,
            [piece for child in small for piece in _pieces(child)],
        )


def _folds(node: Node, total: int) -> bool:
    return node.call and node.name not in ACTS and _small(node, total)


def _small(node: Node, total: int) -> bool:
    return node.took * SMALL < total and all(one.ended and not one.error for one in node.below())


def _row(node: Node, tree: str) -> _Row:
    subject = node.subject
    if len(subject) > 20 and not subject.removeprefix("sha256:").strip("0123456789abcdef"):
        subject = short(subject)
    elif node.call and "Image" in node.name:
        subject = subject.rpartition("/")[2]  # the bars need the room more than the registry's name
    deepest = bool(node.error) and not any(one.error for one in node.below() if one is not node)
    return _Row(
        tree,
        node.name,
        subject,
        _typical(node),
        node.share,
        [node],
        _pieces(node),
        node.error if deepest else "",
    )


def _typical(node: Node) -> int:
    return node.p50 if node.runs > 1 else node.took


def _pieces(node: Node) -> list[Piece]:
    """The bar: whether it was waited for, and who was at work, from one moment to the next."""
    inside = [(max(child.start, node.start), min(child.end, node.end)) for child in node.children]
    moments = {node.start, node.end}
    moments.update(at for part in (*inside, *node.path) for at in part if node.start < at < node.end)
    edges = sorted(moments)
    if len(edges) == 1:
        edges *= 2
    pieces = []
    for start, end in pairwise(edges):
        waited = any(first <= start and end <= last for first, last in node.path)
        within = any(first <= start and end <= last for first, last in inside)
        glyph = (LINE if within else FULL) if waited else (PALE_LINE if within else PALE)
        pieces.append(Piece(start, end, glyph))
    return pieces


# Columns


def _columns(rows: Sequence[_Row], root: Node, width: int) -> list[list[str]]:
    """Each with its heading first."""
    several = root.runs > 1
    columns = [["p50" if several else "took", *map(_took, rows)]]
    if several and width >= BARS:
        columns.append(["longest", *map(_longest, rows)])
    if width >= WIDE:
        columns.insert(0, ["begins", *(duration(start) if (start := _start(row)) else "0" for row in rows)])
    columns.append(["path", *(_share(row.share, root.took) for row in rows)])
    return columns


def _start(row: _Row) -> int:
    return min(node.start for node in row.nodes)


def _took(row: _Row) -> str:
    return ("" if all(node.ended for node in row.nodes) else "> ") + duration(row.took)


def _longest(row: _Row) -> str:
    return duration(row.nodes[0].longest) if len(row.nodes) == 1 else ""


def _share(share: int, total: int) -> str:
    if not share or not total:
        return ""
    percent = 100 * share / total
    return f"{percent:.0f}%" if percent >= 0.95 else f"{percent:.1f}%" if percent >= 0.05 else "0%"


def _cells(cells: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    return "".join(f"  {cell:>{max(map(len, column))}}" for cell, column in zip(cells, columns, strict=True))


# Lines


def _name(row: _Row, width: int, paint: Paint) -> str:
    label = row.label
    if len(label) > width:
        label = label[: width - 1] + "…"
    tree, rest = label[: len(row.tree)], label[len(row.tree) :]
    named = len(row.label) - len(row.tree) - len(row.subject)
    name, subject = rest[:named], rest[named:]
    colour = RED if row.failed else BOLD if any(node.path for node in row.nodes) else ""
    return paint(tree, DIM) + paint(name, colour) + paint(subject, DIM) + " " * (width - len(label))


def _numbers(row: _Row, cells: Sequence[str], columns: Sequence[Sequence[str]], paint: Paint) -> str:
    text = _cells(cells, columns)
    last = 2 + max(map(len, columns[-1]))
    return paint(text[:-last], RED if row.failed else "") + paint(text[-last:], ON_PATH)


def _painted_bar(row: _Row, total: int, cells: int, paint: Paint) -> str:
    drawn = bar(row.pieces, total, cells)
    begin, end = min(piece.start for piece in row.pieces), max(piece.end for piece in row.pieces)
    line, run, colour = "", "", ""
    for index, glyph in enumerate(drawn):
        middle = min(max((index + 0.5) * total / cells, begin), end)
        waited = any(first <= middle <= last for node in row.nodes for first, last in node.path)
        this = RED if row.failed else ON_PATH if waited else BESIDE
        if this != colour:
            line, run, colour = line + _run(run, colour, paint), "", this
        run += glyph
    return line + _run(run, colour, paint)


def _run(text: str, colour: str, paint: Paint) -> str:
    return paint(text, colour) if text.strip() else text


def _error(row: _Row, width: int) -> list[str]:
    """Below its row, with the lines of the tree going on."""
    before = row.tree.replace("├", "│").replace("└", " ") + "  "
    lines = []
    for line in row.error.splitlines():
        words = "".join(letter if letter.isprintable() else " " for letter in line)
        lines += [before + text for text in textwrap.wrap(words, max(width - len(before), 20))]
    return lines


# The summary


def _summary(sums: Account, width: int, paint: Paint) -> list[str]:
    worth = [step for step in sums.steps if step[1] * SMALL >= sums.total][:NAMED]
    path = [_part(name, took, sums.total) for name, took in worth]
    if more := sums.steps[len(worth) :]:
        path.append(_part(f"{len(more)} more", sum(took for _, took in more), sums.total))
    beside = [f"{name} {duration(took)}" for name, took in sums.beside[:NAMED]]
    if more := sums.beside[NAMED:]:
        beside.append(f"{len(more)} more {duration(sum(took for _, took in more))}")
    rest = [
        _part("in no step of a call", sums.in_no_step, sums.total) if sums.in_no_step else "",
        _part("between calls", sums.between, sums.total) if sums.between else "",
    ]
    lines = []
    for heading, parts in (
        ("total", [duration(sums.total)]),
        ("critical path", path),
        ("beside it", beside),
        ("unaccounted", [part for part in rest if part]),
    ):
        if parts:
            lines += _entry(heading, parts, width, paint)
    return lines


def _part(name: str, took: int, total: int) -> str:
    return f"{name} {duration(took)} ({_share(took, total) or '0%'})"


def _entry(heading: str, parts: Sequence[str], width: int, paint: Paint) -> list[str]:
    """Parts stay whole; below a narrow heading they have the width."""
    narrow = width < BARS
    indent = 2 if narrow else INDENT
    lines = [""]
    for index, part in enumerate(parts):
        text = part if index == len(parts) - 1 else f"{part},"
        if lines[-1] and indent + len(lines[-1]) + 1 + len(text) > width:
            lines.append("")
        lines[-1] += f" {text}" if lines[-1] else text
    if narrow:
        return [paint(heading, DIM), *(f"{'':{indent}}{line}" for line in lines)]
    headings = [heading, *[""] * (len(lines) - 1)]
    return [paint(f"{each:{indent}}", DIM) + line for each, line in zip(headings, lines, strict=True)]
