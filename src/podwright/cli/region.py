"""The last lines of a terminal, drawn anew in place: what changes stays there, what is said scrolls above.

The cursor is left visible and after the last line: a program that is killed leaves a terminal in order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

WITHOUT_WRAP, WITH_WRAP = "\x1b[?7l", "\x1b[?7h"
BELOW, REST = "\x1b[J", "\x1b[K"
"""Clear what is below the cursor; what is right of it."""


class Region:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._widths: list[int] = []
        """Of the lines that are there."""
        self._columns = 0
        """Of the terminal, when they were drawn."""

    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal; one that nobody has told its size has 80 and 24."""
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except OSError:
            found = os.terminal_size((0, 0))
        return found if found.columns > 0 and found.lines > 0 else os.terminal_size((80, 24))

    def draw(self, lines: Sequence[str], widths: Sequence[int], above: bytes = b"") -> None:
        """Let `lines` be what is there, and `above`, whole lines, what was said before them. `widths` are
        their columns, less than the terminal has."""
        text = above + WITHOUT_WRAP.encode() + (REST + "\n").join(lines).encode() + REST.encode()
        # Drawn over, not cleared first: nothing flickers. But what is said needs the place, and lines that
        # a new width has folded would be joined again by the next one.
        columns = self.size().columns
        top = self._top() + (BELOW if above or columns != self._columns else "")
        self._write(top.encode() + text + (BELOW + WITH_WRAP).encode())
        self._widths, self._columns = list(widths), columns

    def erase(self, above: bytes = b"") -> None:
        """Let nothing be there; what is written next, or `above`, begins where the region began."""
        if self._widths or above:
            self._write((self._top() + BELOW if self._widths else "").encode() + above)
            self._widths = []

    def _top(self) -> str:
        """To the beginning of the first line that is there."""
        if not self._widths:
            return ""
        # A terminal that became narrower has folded the lines.
        columns = self.size().columns
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "")

    def _write(self, text: bytes) -> None:
        # At once: a terminal shows no half of it.
        self._stream.flush()
        self._stream.buffer.write(text)
        self._stream.buffer.flush()
