"""Pulls shown while they go on: live on a terminal, as plain lines otherwise."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from podwright.cli import pull_view
from podwright.cli.output import short, size
from podwright.cli.pull_view import Pull
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from rich.console import Console

FRAME = 0.1
"""Seconds between two looks at what has changed."""
STILL = 1.0
"""Seconds after which a frame is drawn although nothing has changed: times and speeds have."""
REPORT = 10.0
"""Seconds between two plain lines of a pull that takes long."""


class Display(Protocol):
    def begin(self, image: str) -> None:
        """A pull of `image` is asked for, nothing is known of it yet."""

    def show(self, state: own.PullProgress) -> None:
        """How far a pull is, or how it ended."""

    def hide(self) -> None:
        """Something else is about to be written, in whole lines."""


@asynccontextmanager
async def display(stream: TextIO, say: Callable[[str], None]) -> AsyncIterator[Display]:
    """Show pulls on `stream`, whose lasting lines `say` writes; nothing is left of what is drawn in place."""
    if not live(stream):
        yield Lines(say)
        return
    shown = Live(stream, say)
    drawing = asyncio.ensure_future(shown.run())
    try:
        yield shown
    finally:
        drawing.cancel()
        shown.hide()


def live(stream: TextIO) -> bool:
    """Whether it is a terminal whose lines can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Live:
    """Use `display`."""

    def __init__(self, stream: TextIO, say: Callable[[str], None]) -> None:
        from podwright.cli.region import Region

        self._stream = stream
        self._region = Region(stream)
        self._say = say
        self._pulls: dict[str, Pull] = {}
        self._changed = False
        self._drawn = 0.0
        self._size = self._region.size()

    def begin(self, image: str) -> None:
        self._pulls.setdefault(image, Pull(image))
        self._changed = True

    def show(self, state: own.PullProgress) -> None:
        now = time.monotonic()
        pull = self._pulls.setdefault(state.image, Pull(state.image))
        if state.stage in (own.PULL_DONE, own.PULL_FAILED):
            del self._pulls[state.image]
            self.hide()
            if state.stage == own.PULL_DONE:
                self._say(pull_view.summary(state, max(0.0, now - pull.began)))
        else:
            pull.update(state, now)
        self._changed = True

    def hide(self) -> None:
        self._region.erase()
        self._changed = True

    async def run(self) -> None:
        """Draw what changes, until it is cancelled or the terminal has gone."""
        try:
            await self._draw()
        except OSError:
            pass

    async def _draw(self) -> None:
        console = _console(self._stream)
        while True:
            await asyncio.sleep(FRAME)
            now, size = time.monotonic(), self._region.size()
            if not (self._changed or size != self._size or (self._pulls and now - self._drawn > STILL)):
                continue
            self._changed, self._drawn, self._size = False, now, size
            # The last column stays free: what reaches it may fold.
            console.size = (size.columns - 1, size.lines)
            drawn = pull_view.lines(list(self._pulls.values()), console, size.lines - 1, now)
            if drawn:
                self._region.draw([text for text, _ in drawn], [width for _, width in drawn])
            else:
                self._region.erase()


class Lines:
    """A line when something has come to an end, and now and then one for what takes long."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._pulls: dict[str, Pull] = {}
        self._told: dict[str, float] = {}

    def begin(self, image: str) -> None:
        self._pull(image)
        self._say(f"{image}: pulling")

    def show(self, state: own.PullProgress) -> None:
        now = time.monotonic()
        pull = self._pull(state.image)
        before = pull.state
        pull.update(state, now)
        if state.layers and not before.layers:
            total = sum(layer.total for layer in state.layers)
            self._tell(state.image, f"{pull_view.counted(len(state.layers))}, {size(total)}", now)
        for index, layer in enumerate(state.layers):
            was = before.layers[index].stage if before.layers else own.LAYER_WAITING
            if layer.stage != was and layer.stage in pull_view.IN_PLACE:
                self._tell(
                    state.image,
                    f"layer {short(layer.digest)} {pull_view.WORDS[layer.stage]}, {size(layer.total)}",
                    now,
                )
        if state.stage in (own.PULL_DONE, own.PULL_FAILED):
            del self._pulls[state.image]
            if state.stage == own.PULL_DONE:
                self._say(pull_view.summary(state, max(0.0, now - pull.began)))
        elif now - self._told[state.image] >= REPORT:
            here, total = pull_view.amounts(state)
            self._tell(state.image, f"{size(here)} of {size(total)}", now)

    def hide(self) -> None: ...

    def _pull(self, image: str) -> Pull:
        if image not in self._pulls:
            self._pulls[image], self._told[image] = Pull(image), time.monotonic()
        return self._pulls[image]

    def _tell(self, image: str, text: str, now: float) -> None:
        self._told[image] = now
        self._say(f"{image}: {text}")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)
