"""The last lines of a terminal, drawn anew in place: what changes stays there, what is said scrolls above.

The cursor is left visible and after the last line: a program that is killed leaves a terminal in order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

WITHOUT_WRAP, WITH_WRAP = "\x1b[?7l", "\x1b[?7h"
BELOW = "\x1b[J"


class Region:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._widths: list[int] = []
        """Of the lines that are there."""

    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal; one that nobody has told its size has 80 and 24."""
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except OSError:
            found = os.terminal_size((0, 0))
        return found if found.columns > 0 and found.lines > 0 else os.terminal_size((80, 24))

    def draw(self, lines: Sequence[str], widths: Sequence[int]) -> None:
        """Let `lines` be what is there. `widths` are their columns, less than the terminal has."""
        self._write(self._erased() + WITHOUT_WRAP + "\n".join(lines) + WITH_WRAP)
        self._widths = list(widths)

    def erase(self) -> None:
        """Let nothing be there; what is written next begins where the region began."""
        if self._widths:
            self._write(self._erased())
            self._widths = []

    def _erased(self) -> str:
        if not self._widths:
            return ""
        # A terminal that became narrower has folded the lines.
        columns = self.size().columns
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + BELOW

    def _write(self, text: str) -> None:
        # At once: a terminal shows no half of it.
        self._stream.flush()
        self._stream.write(text)
        self._stream.flush()
