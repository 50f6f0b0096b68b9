"""How pulls look: the lines of a terminal for those under way, and a line for what one came to. Nothing is
written here.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwright.cli.output import short, size
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WINDOW = 3.0
"""Seconds that a speed is an average of."""
WIDE, MIDDLE = 76, 48
"""Columns from which on a layer's line has a bar, and its stage in words."""

WORDS = {
    own.LAYER_WAITING: "waiting",
    own.LAYER_DOWNLOADING: "downloading",
    own.LAYER_DOWNLOADED: "downloaded",
    own.LAYER_UNPACKING: "unpacking",
    own.LAYER_DONE: "done",
    own.LAYER_PRESENT: "here already",
}
STYLES = {
    own.LAYER_DOWNLOADING: "cyan",
    own.LAYER_UNPACKING: "yellow",
    own.LAYER_DONE: "green",
    own.LAYER_PRESENT: "green",
}
IN_PLACE = (own.LAYER_DONE, own.LAYER_PRESENT)
BUSY = (own.LAYER_DOWNLOADING, own.LAYER_UNPACKING)


class Speed:
    """Bytes a second over the last WINDOW seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """`count` bytes have come until `now`."""
        if not self._samples or self._samples[-1][1] != count:
            self._samples.append((now, count))

    def at(self, now: float) -> float:
        while len(self._samples) > 2 and self._samples[1][0] < now - WINDOW:
            self._samples.popleft()
        if len(self._samples) < 2:
            return 0.0
        (begin, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(now - begin, 0.001)


@dataclass(slots=True)
class Pull:
    """One pull as it is shown."""

    image: str
    began: float = field(default_factory=time.monotonic)
    state: own.PullProgress = field(default_factory=own.PullProgress)
    speeds: dict[int, Speed] = field(default_factory=dict)
    speed: Speed = field(default_factory=Speed)

    def update(self, state: own.PullProgress, now: float) -> None:
        self.state = state
        for index, layer in enumerate(state.layers):
            if layer.stage == own.LAYER_DOWNLOADING:
                self.speeds.setdefault(index, Speed()).add(now, layer.bytes)
        self.speed.add(now, sum(layer.bytes for layer in state.layers if layer.stage != own.LAYER_PRESENT))


def lines(pulls: Sequence[Pull], console: Console, height: int, now: float) -> list[tuple[str, int]]:
    """What to draw of `pulls` in at most `height` lines of the console's width: each line, and its columns.

    When there are too many layers those that are not being worked on are counted only.
    """
    from rich.text import Text

    frames: list[RenderableType] = []
    room = max(1, height // max(1, len(pulls)) - 2)
    for pull in pulls[: max(1, height // 3)]:
        frames += _frame(pull, console.width, room, now)
    with console.capture() as capture:
        for frame in frames:
            console.print(frame, no_wrap=True, overflow="ellipsis")
    drawn = capture.get().splitlines()[:height]
    return [(line, Text.from_ansi(line).cell_len) for line in drawn]


def summary(state: own.PullProgress, seconds: float) -> str:
    """What a pull that is done has come to."""
    fetched = [layer for layer in state.layers if layer.stage != own.LAYER_PRESENT]
    if not state.layers:
        return f"{state.image}: pulled, {seconds:.1f} s"
    text = f"{state.image}: pulled {size(sum(layer.bytes for layer in fetched))} in {counted(len(fetched))}"
    if there := len(state.layers) - len(fetched):
        text += f", {there} here already"
    return f"{text}, {seconds:.1f} s"


def counted(layers: int) -> str:
    return f"{layers} layer" if layers == 1 else f"{layers} layers"


def amounts(state: own.PullProgress) -> tuple[int, int]:
    """Bytes that are here, and bytes of all, of the layers that are transferred."""
    wanted = [layer for layer in state.layers if layer.stage != own.LAYER_PRESENT]
    return sum(layer.bytes for layer in wanted), sum(layer.total for layer in wanted)


def _frame(pull: Pull, width: int, room: int, now: float) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"Pulling {pull.image}")
    layers = list(enumerate(pull.state.layers))
    if len(layers) > room:
        busy = [(index, layer) for index, layer in layers if layer.stage in BUSY]
        layers = busy[: room - 1] if room > 1 else []
        rest = Counter(
            WORDS[layer.stage]
            for index, layer in enumerate(pull.state.layers)
            if index not in {shown for shown, _ in layers}
        )
        if layers:
            yield _table(pull, layers, width, now)
        words = ", ".join(f"{count} {word}" for word, count in rest.items())
        yield Text(f"  … and {words}", style="dim")
    elif layers:
        yield _table(pull, layers, width, now)
    yield Text(f"  {_total(pull, now)}", style="dim")


def _table(
    pull: Pull, layers: Sequence[tuple[int, own.LayerProgress]], width: int, now: float
) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    if width >= MIDDLE:
        table.add_column(no_wrap=True, min_width=max(map(len, WORDS.values())))
    if width >= WIDE:
        table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right", ratio=None if width >= WIDE else 1)
    if width >= MIDDLE:
        table.add_column(no_wrap=True, justify="right", min_width=9)
    for index, layer in layers:
        speed = 0.0
        if layer.stage == own.LAYER_DOWNLOADING:
            speed = pull.speeds[index].at(now)
        style = STYLES.get(layer.stage, "dim")
        cells: list[RenderableType] = [Text(f"  {short(layer.digest)}", style=style)]
        if width >= MIDDLE:
            cells.append(Text(WORDS[layer.stage], style=style))
        if width >= WIDE:
            done = layer.total if layer.stage in IN_PLACE else layer.bytes
            cells.append(ProgressBar(max(1, layer.total), done, complete_style=style, finished_style=style))
        cells.append(_amount(layer))
        if width >= MIDDLE:
            cells.append(f"{size(round(speed))}/s" if speed else "")
        table.add_row(*cells)
    return table


def _amount(layer: own.LayerProgress) -> str:
    if layer.stage == own.LAYER_DOWNLOADING:
        return f"{size(layer.bytes)} of {size(layer.total)}"
    return size(layer.total)


def _total(pull: Pull, now: float) -> str:
    state, seconds = pull.state, now - pull.began
    if state.stage == own.PULL_RECORDING:
        return f"recording · {seconds:.0f} s"
    if not state.layers:
        return f"{seconds:.0f} s"
    here, total = amounts(state)
    ready = sum(layer.stage in IN_PLACE for layer in state.layers)
    parts = [f"{size(here)} of {size(total)}", f"{ready} of {counted(len(state.layers))} in place"]
    if (speed := pull.speed.at(now)) and here < total:
        parts += [f"{size(round(speed))}/s", f"{_span((total - here) / speed)} left"]
    return " · ".join(parts)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
