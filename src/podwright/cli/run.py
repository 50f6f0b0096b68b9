"""`podwright run`: the body of the command. Output of containers goes where they sent it, with their names in
front; what podwright has to say goes to standard error; the pod's exit status becomes the command's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from podwright.cli.door import Door
    from podwright.kube.manifest import Manifest
    from podwright.kube.outcome import ContainerOutcome, PodOutcome
    from podwright.kube.runner import PodRun
    from podwright.logs.lines import Line

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI foreground colours, one a container, again from the first when there are more containers."""
DIM, RED, RESET = "\x1b[2m", "\x1b[31m", "\x1b[0m"


def run_command(
    files: Sequence[Path],
    door: Door,
    *,
    endpoint: str | None = None,
    keep: bool = False,
    detach: bool = False,
    quiet: bool = False,
) -> int:
    """Run the Pods of `files` side by side; the exit status: the first of a container that is not 0.

    They run at `endpoint` (any CRI server's address) or through `door`: at a podwright server that answers,
    else in this process, which answers other commands meanwhile. With `keep` the ended pods are left to be
    looked at; with `detach` they are left running once they are started, and their ids are printed. `quiet`
    leaves out what is not the containers' own output. Ctrl-C stops gracefully, a second one at once. Raises
    InvalidArgument for bad manifests.
    """
    from podwright.kube import manifest

    manifests = [one for file in files for one in manifest.read(file)]
    names = [(one.namespace, one.name) for one in manifests]
    for namespace, name in names:
        if names.count((namespace, name)) > 1:
            from podwright.errors import InvalidArgument

            raise InvalidArgument("manifests", f"Pod {namespace}/{name} is in more than one file")
    screen = Screen(
        [
            (one.name, container.name)
            for one in manifests
            for container in [*one.init_containers, *one.containers]
        ],
        quiet=quiet,
        out=sys.stderr if detach else None,  # `id=$(podwright run -d …)` wants the ids alone
    )
    for one in manifests:
        for note in one.notes:
            screen.event(one.name, "", note)
    return asyncio.run(_main(manifests, door, endpoint, keep, detach, screen))


async def _main(
    manifests: Sequence[Manifest], door: Door, endpoint: str | None, keep: bool, detach: bool, screen: Screen
) -> int:
    from podwright.cli.share import lasting
    from podwright.kube.runner import PodRun, run_pods

    root = door.config().root_path
    async with lasting(door, endpoint) as runtime:
        runs = [PodRun(runtime, one, root, reporter=screen) for one in manifests]
        with _stopped_by_signals(runs, screen):
            outcomes = await run_pods(runs, keep=keep, detach=detach)
    if detach and not any(one.error for one in outcomes):
        _print_ids(outcomes)
    else:
        screen.summary(outcomes, keep)
    return next((one.exit_code for one in outcomes if one.exit_code), 0)


@contextmanager
def _stopped_by_signals(runs: Sequence[PodRun], screen: Screen) -> Iterator[None]:
    loop, seen = asyncio.get_running_loop(), []

    def on_signal() -> None:
        seen.append(True)
        if len(seen) == 1:
            screen.event("", "", "stopping; once more to kill")
        for one in runs:
            if len(seen) == 1:
                one.stop()
            else:
                one.kill()

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signals.append(signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


class Screen:
    """What the user sees: a `runner.Reporter`. Colours where a terminal shows them."""

    def __init__(
        self,
        containers: Sequence[tuple[str, str]],
        *,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """`containers`: (pod, container) of all that will run; pods are named only where there are more."""
        self._quiet = quiet
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._several = len({pod for pod, _ in containers}) > 1
        labels = {pair: self._label(*pair) for pair in containers}
        self._width = max(map(len, labels.values()), default=0)
        self._colours = {pair: COLOURS[index % len(COLOURS)] for index, pair in enumerate(labels)}

    def output(self, pod: str, container: str, line: Line) -> None:
        stream = self._out if line.stream == "stdout" else self._err
        prefix = f"{self._label(pod, container):<{self._width}} | "
        if _coloured(stream):
            prefix = f"\x1b[{self._colours[pod, container]}m{prefix}{RESET}"
        # Bytes, not text: what a program writes need not be UTF-8.
        with _unread(stream):
            stream.flush()
            stream.buffer.write(prefix.encode() + line.text + b"\n")
            stream.buffer.flush()

    def event(self, pod: str, container: str, text: str) -> None:
        if self._quiet:
            return
        label = self._label(pod, container) if container else pod if self._several else ""
        self._say(f"podwright: {label + ': ' if label else ''}{text}", DIM)

    def summary(self, outcomes: Sequence[PodOutcome], kept: bool) -> None:
        """How every container ended; why a pod could not run is said even when quiet."""
        for pod in outcomes:
            if pod.error:
                self._say(f"podwright: {pod.name}: {pod.error}", RED)
        if self._quiet:
            return
        rows: list[tuple[str, ...]] = [("CONTAINER", "EXIT CODE", "REASON", "RESTARTS", "TIME", "MESSAGE")]
        rows += [_row(self._label(pod.name, one.name), one) for pod in outcomes for one in pod.containers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for index, row in enumerate(rows):
            text = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            failed = index > 0 and row[1] not in ("0", "-")
            self._say(text, DIM if index == 0 else RED if failed else "")
        if kept:
            for pod in outcomes:
                self._say(f"podwright: kept sandbox {pod.sandbox_id}", DIM)

    def _label(self, pod: str, container: str) -> str:
        return f"{pod}/{container}" if self._several else container

    def _say(self, text: str, colour: str) -> None:
        if colour and _coloured(self._err):
            text = f"{colour}{text}{RESET}"
        with _unread(self._err):
            print(text, file=self._err, flush=True)


@contextmanager
def _unread(stream: TextIO) -> Iterator[None]:
    """Nobody reads any more (`| head`, a terminal that was closed): the pod goes on, or is stopped in order,
    as it would with its logs unread."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _row(label: str, one: ContainerOutcome) -> tuple[str, ...]:
    return (
        label,
        "-" if one.exit_code is None else str(one.exit_code),
        one.reason or "-",
        str(one.restarts),
        f"{one.seconds:.1f} s",
        " ".join(one.message.split()) or "-",
    )


def _print_ids(outcomes: Sequence[PodOutcome]) -> None:
    for pod in outcomes:
        print(pod.sandbox_id)
        for container in pod.containers:
            if not container.init:
                print(f"  {container.name} {container.id}")


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
