"""What the user of `podwright run` sees: the containers' output where they sent it, with their names in
front; what podwright has to say on standard error; and, on a terminal, the pods as they are at its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

from podwright.cli.output import table, unread

if TYPE_CHECKING:
    from podwright.cli.board import Board
    from podwright.cli.pod_view import Shown
    from podwright.cli.pull_display import Display
    from podwright.kube.life.outcome import ContainerOutcome, PodOutcome
    from podwright.logs.lines import Line

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI foreground colours, one a container, again from the first when there are more containers."""
COLUMNS = ("CONTAINER", "EXIT CODE", "REASON", "RESTARTS", "TIME", "MESSAGE")
DIM, RED, RESET = "\x1b[2m", "\x1b[31m", "\x1b[0m"


class Screen:
    """A `runner.Reporter`. Colours where a terminal shows them."""

    def __init__(
        self,
        containers: Sequence[tuple[str, str]],
        *,
        quiet: bool = False,
        silent: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """`containers`: (pod, container) of all that will run; pods are named only where there are more.
        `quiet`: nothing but the containers' output; `silent`: all but that."""
        self.quiet, self._silent = quiet, silent
        self._out, self.err = out or sys.stdout, err or sys.stderr
        self._board: Board | None = None
        self._several = len({pod for pod, _ in containers}) > 1
        labels = {pair: self._label(*pair) for pair in containers}
        self._width = max(map(len, labels.values()), default=0)
        self._colours = {pair: COLOURS[index % len(COLOURS)] for index, pair in enumerate(labels)}

    @property
    def live(self) -> bool:
        """Whether pods are drawn in place; who sees them needs no words for what goes well."""
        from podwright.cli.pull_display import live

        return not self.quiet and live(self.err)

    @asynccontextmanager
    async def drawing(self, pods: Callable[[], Sequence[Shown]]) -> AsyncIterator[Display | None]:
        """While the block runs, pods and pulls are drawn, or told in lines; not when quiet."""
        if self.quiet:
            yield None
        elif self.live:
            from podwright.cli.board import board

            async with board(self.err, pods, self.note) as self._board:
                try:
                    yield self._board
                finally:
                    drawn, self._board = self._board, None
                    drawn.hide()
        else:
            from podwright.cli.pull_display import Lines

            yield Lines(self.note)

    def output(self, pod: str, container: str, line: Line) -> None:
        if self._silent:
            return
        stream = self._out if line.stream == "stdout" else self.err
        prefix, end = f"{self._label(pod, container):<{self._width}} | ", b"\n"
        if _coloured(stream):
            prefix = f"\x1b[{self._colours[pod, container]}m{prefix}{RESET}"
            # What the line leaves coloured would colour all that follows.
            end = RESET.encode() + end if b"\x1b" in line.text else end
        # Bytes, not text: what a program writes need not be UTF-8.
        self._write(stream, prefix.encode() + line.text + end)

    def event(self, pod: str, container: str, text: str) -> None:
        if self.quiet:
            return
        label = self._label(pod, container) if container else pod if self._several else ""
        self._say(f"podwright: {label + ': ' if label else ''}{text}", DIM)

    def note(self, text: str) -> None:
        """Something that belongs to no pod alone."""
        self.event("", "", text)

    def fault(self, text: str) -> None:
        """Why something could not be done; said even when quiet."""
        self._say(f"podwright: {text}", RED)

    def summary(self, outcomes: Sequence[PodOutcome], kept: bool) -> None:
        """How every container ended; why a pod could not run is said even when quiet."""
        for pod in outcomes:
            if pod.error:
                self.fault(f"{pod.name}: {pod.error}")
        if self.quiet:
            return
        rows = [_row(self._label(pod.name, one.name), one) for pod in outcomes for one in pod.containers]
        with unread(self.err):
            table(COLUMNS, rows, self.err)
            self.err.flush()
        if kept:
            for pod in outcomes:
                self._say(f"podwright: kept sandbox {pod.sandbox_id}", DIM)

    def _label(self, pod: str, container: str) -> str:
        return f"{pod}/{container}" if self._several else container

    def _say(self, text: str, colour: str) -> None:
        if colour and _coloured(self.err):
            text = f"{colour}{text}{RESET}"
        self._write(self.err, text.encode(errors="replace") + b"\n")

    def _write(self, stream: TextIO, lines: bytes) -> None:
        if self._board is not None and _same(stream, self.err):
            self._board.write(lines)
            return
        with unread(stream):
            stream.flush()
            stream.buffer.write(lines)
            stream.buffer.flush()


def _same(one: TextIO, other: TextIO) -> bool:
    """Whether both lead to the same terminal."""
    if one is other:
        return True
    if not (one.isatty() and other.isatty()):
        return False
    return os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev


def _row(label: str, one: ContainerOutcome) -> tuple[str, ...]:
    return (
        label,
        "-" if one.exit_code is None else str(one.exit_code),
        one.reason or "-",
        str(one.restarts),
        f"{one.seconds:.1f} s",
        " ".join(one.message.split()) or "-",
    )


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
