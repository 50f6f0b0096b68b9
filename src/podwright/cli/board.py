"""What `podwright run` draws at the end of a terminal: pulls that go on, and the pods; whatever is said or
written goes above it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

from podwright.cli import pod_view, pull_view
from podwright.cli.output import unread
from podwright.cli.pod_view import Shown
from podwright.cli.pull_view import Pull
from podwright.cli.region import Region
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from rich.console import Console

FRAME = 0.1
"""Seconds between two looks at what has changed."""
HELD = 1 << 16
"""Bytes that may wait for the next frame of the loop."""


class Board:
    """A `pull_display.Display` with the pods below the pulls. Use `board`."""

    def __init__(
        self, stream: TextIO, pods: Callable[[], Sequence[Shown]], say: Callable[[str], None]
    ) -> None:
        self._region = Region(stream)
        self._pods = pods
        self._say = say
        self._pulls: dict[str, Pull] = {}
        self._held = bytearray()
        self._flushing: asyncio.Handle | None = None
        self._drawn: list[tuple[str, int]] = []
        self._size = self._region.size()
        self._coloured = not os.environ.get("NO_COLOR")
        self._plain = not (stream.encoding or "").lower().startswith("utf")
        self._console: Console | None = None
        self._stream = stream

    # Pulls

    def begin(self, image: str) -> None:
        self._pulls.setdefault(image, Pull(image))

    def show(self, state: own.PullProgress) -> None:
        now = time.monotonic()
        pull = self._pulls.setdefault(state.image, Pull(state.image))
        if state.stage in (own.PULL_DONE, own.PULL_FAILED):
            del self._pulls[state.image]
            if state.stage == own.PULL_DONE:
                self._say(pull_view.summary(state, max(0.0, now - pull.began)))
        else:
            pull.update(state, now)

    def hide(self) -> None:
        """Something is about to be written past the board."""
        above = self._taken()
        with unread(self._stream):
            self._region.erase(above)
        self._drawn = []

    # What goes above

    def write(self, lines: bytes) -> None:
        """Whole lines. They appear with all others of this turn of the loop."""
        self._held += lines
        if len(self._held) > HELD:
            self._flush()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if above := self._taken():
            with unread(self._stream):
                if self._drawn:
                    self._region.draw(*_apart(self._drawn), above)
                else:
                    self._region.erase(above)

    def _taken(self) -> bytes:
        """What waits, which waits no more."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        above, self._held = bytes(self._held), bytearray()
        return above

    # The board itself

    async def run(self) -> None:
        """Draw what changes, until it is cancelled."""
        while True:
            with unread(self._stream):
                self.draw()
            await asyncio.sleep(FRAME)

    def draw(self) -> None:
        size = self._region.size()
        drawn = self._lines(size)
        if drawn == self._drawn and size == self._size:
            return
        self._drawn, self._size = drawn, size
        if drawn:
            self._region.draw(*_apart(drawn))
        else:
            self._region.erase()

    def _lines(self, size: os.terminal_size) -> list[tuple[str, int]]:
        # The last column stays free: what reaches it may fold.
        width, height = size.columns - 1, max(1, size.lines - 1)
        pulls: list[tuple[str, int]] = []
        if self._pulls:
            console = self._of_rich()
            console.size = (width, size.lines)
            room = max(1, height * 2 // 3)
            pulls = pull_view.lines(list(self._pulls.values()), console, room, time.monotonic())
        room = max(1, min(height - len(pulls), int(height * pod_view.SHARE)))
        pods = pod_view.lines(self._pods(), width, room, coloured=self._coloured, plain=self._plain)
        return [*pulls, *pods][-height:]

    def _of_rich(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        return self._console


def _apart(drawn: Sequence[tuple[str, int]]) -> tuple[list[str], list[int]]:
    return [text for text, _ in drawn], [width for _, width in drawn]


@asynccontextmanager
async def board(
    stream: TextIO, pods: Callable[[], Sequence[Shown]], say: Callable[[str], None]
) -> AsyncIterator[Board]:
    """Draw `pods()` and pulls on `stream`, a terminal, while the block runs; nothing is left of it. `say`
    writes lasting lines."""
    made = Board(stream, pods, say)
    drawing = asyncio.ensure_future(made.run())
    try:
        yield made
    finally:
        drawing.cancel()
        await asyncio.wait({drawing})
        made.hide()
