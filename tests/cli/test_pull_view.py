"""What is drawn of pulls, on a terminal made by hand: nothing above it is touched, whatever its size does."""

from __future__ import annotations

import io
import os
import re
from typing import Any

import pytest
from rich.console import Console

from podwright.cli import pull_view
from podwright.cli.pull_display import Lines
from podwright.cli.pull_view import Pull, Speed
from podwright.cli.region import Region
from podwright.wire import podwright_pb2 as own

MB = 1_000_000


class Screen(io.StringIO):
    """A terminal that folds long lines anew when it becomes narrower, as most do."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0

    @property
    def buffer(self) -> Any:
        return self

    def isatty(self) -> bool:
        return True

    def write(self, given: str | bytes) -> int:
        text = given.decode() if isinstance(given, bytes) else given
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                self.column = 0
            elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
                self.row -= int(up[1])
                assert self.row >= 0
            elif part == "\x1b[J":
                self.lines[self.row :] = [self.lines[self.row][: self.column]]
            elif part == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif part[0] != "\x1b":
                before = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = before[: self.column] + part + before[self.column + len(part) :]
                self.column += len(part)
        return len(text)

    def narrow(self, columns: int) -> None:
        folded = []
        for line in self.lines:
            folded += [line[at : at + columns] for at in range(0, max(1, len(line)), columns)]
        self.lines, self.row, self.columns = folded, len(folded) - 1, columns
        self.column = len(folded[-1])


class Sized(Region):
    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._screen = screen

    def size(self) -> os.terminal_size:
        return os.terminal_size((self._screen.columns, 24))


def draw(region: Region, *lines: str) -> None:
    region.draw(lines, [len(line) for line in lines])


def test_a_region_is_drawn_in_place_and_leaves_nothing() -> None:
    screen = Screen(40)
    region = Sized(screen)
    screen.write("above\n")
    draw(region, "one", "two", "three")
    draw(region, "four")
    assert screen.lines == ["above", "four"]
    region.erase()
    screen.write("said\n")
    draw(region, "five", "six")
    assert screen.lines == ["above", "said", "five", "six"]
    region.erase()
    assert screen.lines == ["above", "said", ""]


@pytest.mark.parametrize("columns", [30, 20, 11, 7])
def test_a_region_knows_its_lines_when_the_terminal_becomes_narrower(columns: int) -> None:
    screen = Screen(40)
    region = Sized(screen)
    screen.write("above\n")
    draw(region, "x" * 39, "y" * 12, "z" * 25)
    screen.narrow(columns)
    draw(region, "new")
    assert screen.lines == ["above", "new"]


def progress(*layers: tuple[own.LayerStage, int, int], image: str = "docker.io/library/app:1") -> Pull:
    pull = Pull(image, began=0.0)
    state = own.PullProgress(image=image, stage=own.PULL_TRANSFERRING)
    for index, (stage, done, total) in enumerate(layers):
        state.layers.add(digest=f"sha256:{index:012}{'f' * 52}", stage=stage, bytes=done, total=total)
    pull.update(state, 0.0)
    return pull


def drawn(pull: Pull, columns: int, height: int = 20, now: float = 2.0) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=24, color_system=None)
    lines = pull_view.lines([pull], console, height, now)
    for text, width in lines:
        assert len(text.rstrip()) <= width <= columns
    return [text.rstrip() for text, _ in lines]


ALL = (
    (own.LAYER_PRESENT, 9 * MB, 9 * MB),
    (own.LAYER_DONE, 20 * MB, 20 * MB),
    (own.LAYER_UNPACKING, 10 * MB, 10 * MB),
    (own.LAYER_DOWNLOADING, 10 * MB, 40 * MB),
    (own.LAYER_WAITING, 0, 5 * MB),
)


def test_each_layer_has_a_line_and_the_pull_a_sum() -> None:
    lines = drawn(progress(*ALL), 100)
    assert lines[0] == "Pulling docker.io/library/app:1"
    words = ("here already", "done", "unpacking", "downloading", "waiting")
    for index, (line, word) in enumerate(zip(lines[1:6], words, strict=True)):
        assert line.startswith(f"  {index:012}") and word in line
    assert "10 MB of 40 MB" in lines[4] and "━" in lines[4]
    assert lines[6] == "  40 MB of 75 MB · 2 of 5 layers in place"


@pytest.mark.parametrize("columns", [20, 30, 47, 60, 75, 79, 200])
def test_it_fits_any_width(columns: int) -> None:
    lines = drawn(progress(*ALL, image="registry.example/" + "long/" * 20 + "name:tag"), columns)
    assert len(lines) == 7 and lines[0].endswith("…" if columns < 120 else "tag")


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8])
def test_it_fits_any_height_and_counts_what_it_leaves_out(height: int) -> None:
    lines = drawn(progress(*ALL, *ALL, *ALL), 100, height)
    assert len(lines) <= height
    if height >= 5:
        assert lines[-2].startswith("  … and ") and "3 waiting" in lines[-2]
        assert any("unpacking" in line or "downloading" in line for line in lines[1:-2])


def test_speed_and_what_is_left() -> None:
    pull = progress((own.LAYER_DOWNLOADING, 0, 40 * MB))
    for second in range(1, 5):
        state = own.PullProgress()
        state.CopyFrom(pull.state)
        state.layers[0].bytes = second * 5 * MB
        pull.update(state, float(second))
    lines = drawn(pull, 100, now=4.0)
    assert lines[1].endswith("5 MB/s")
    assert lines[2] == "  20 MB of 40 MB · 0 of 1 layer in place · 5 MB/s · 4 s left"


def test_a_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    speed.add(0.0, 0)
    assert speed.at(1.0) == 0
    for tenth in range(1, 101):
        speed.add(tenth / 10, tenth if tenth <= 50 else 50 + (tenth - 50) * 100)
    assert 900 < speed.at(10.0) <= 1001
    assert speed.at(20.0) < 100


def test_what_it_came_to() -> None:
    pull = progress(*[(own.LAYER_DONE, 10 * MB, 10 * MB)] * 2, (own.LAYER_PRESENT, 5 * MB, 5 * MB))
    assert pull_view.summary(pull.state, 2.34) == (
        "docker.io/library/app:1: pulled 20 MB in 2 layers, 1 here already, 2.3 s"
    )
    assert pull_view.summary(own.PullProgress(image="a"), 0.04) == "a: pulled, 0.0 s"


def test_plain_lines_tell_each_end_once() -> None:
    said: list[str] = []
    shown = Lines(said.append)
    shown.begin("docker.io/library/app:1")
    pull = progress((own.LAYER_PRESENT, 5 * MB, 5 * MB), (own.LAYER_DOWNLOADING, MB, 8 * MB))
    for count in (1, 2, 8):
        pull.state.layers[1].bytes = count * MB
        state = own.PullProgress()
        state.CopyFrom(pull.state)
        shown.show(state)
    state = own.PullProgress()
    state.CopyFrom(pull.state)
    state.layers[1].stage, state.stage = own.LAYER_DONE, own.PULL_DONE
    shown.show(state)
    assert [re.sub(r", \d.\d s$", "", line).partition(": ")[2] for line in said] == [
        "pulling",
        "2 layers, 13 MB",
        "layer 000000000000 here already, 5 MB",
        "layer 000000000001 done, 8 MB",
        "pulled 8 MB in 1 layer, 1 here already",
    ]
