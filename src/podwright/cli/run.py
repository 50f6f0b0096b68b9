"""`podwright run`: the body of the command. Output of containers goes where they sent it, with their names in
front; what podwright has to say goes to standard error; the pod's exit status becomes the command's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.cli.pull_display import Display
    from podwright.kube.manifest import Manifest
    from podwright.kube.outcome import ContainerOutcome, PodOutcome
    from podwright.kube.runner import PodRun
    from podwright.logs.lines import Line

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI foreground colours, one a container, again from the first when there are more containers."""
WATCH_AGAIN = 1.0
"""Seconds after which a server whose stream of pulls has ended is asked again."""
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
    from podwright.kube.node import observe
    from podwright.kube.runner import PodRun, run_pods
    from podwright.kube.wakes import Feed

    async with lasting(door, endpoint) as runtime, Feed(runtime) as feed:
        node = await observe(runtime, door.config())
        runs = [PodRun(runtime, one, node, reporter=screen, feed=feed) for one in manifests]
        async with _pulls_shown(runtime, manifests, screen):
            with _stopped_by_signals(runs, screen):
                outcomes = await run_pods(runs, keep=keep, detach=detach)
    if detach and not any(one.error for one in outcomes):
        _print_ids(outcomes)
    else:
        screen.summary(outcomes, keep)
    return next((one.exit_code for one in outcomes if one.exit_code), 0)


@asynccontextmanager
async def _pulls_shown(runtime: Cri, manifests: Sequence[Manifest], screen: Screen) -> AsyncIterator[None]:
    """While the block runs, show how far the pulls of the pods' images are."""
    from podwright.cli.pull_display import display

    if screen.quiet:
        yield
        return
    images = {one.image or "" for each in manifests for one in [*each.init_containers, *each.containers]}
    async with display(screen.err, screen.note) as shown:
        screen.display = shown
        following = asyncio.ensure_future(_follow_pulls(runtime, images, shown))
        try:
            yield
        finally:
            screen.display = None
            following.cancel()
            await asyncio.wait({following})


async def _follow_pulls(runtime: Cri, images: set[str], shown: Display) -> None:
    from podwright.errors import InvalidArgument, PodwrightError, Unimplemented
    from podwright.images.references import full_name
    from podwright.pulls import watch

    names = set()
    for image in images:
        try:
            names.add(full_name(image))
        except InvalidArgument:
            pass  # its pull says so
    while True:
        try:
            async for state in watch(runtime):
                if state.image in names:
                    shown.show(state)
        except Unimplemented:
            return  # another CRI's server
        except PodwrightError:
            pass  # the server has gone, or is being started anew: who waits for the pull deals with that
        await asyncio.sleep(WATCH_AGAIN)


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
        self.quiet = quiet
        self.display: Display | None = None
        """What is drawn at the end of the terminal meanwhile."""
        self._out, self.err = out or sys.stdout, err or sys.stderr
        self._several = len({pod for pod, _ in containers}) > 1
        labels = {pair: self._label(*pair) for pair in containers}
        self._width = max(map(len, labels.values()), default=0)
        self._colours = {pair: COLOURS[index % len(COLOURS)] for index, pair in enumerate(labels)}

    def output(self, pod: str, container: str, line: Line) -> None:
        stream = self._out if line.stream == "stdout" else self.err
        prefix = f"{self._label(pod, container):<{self._width}} | "
        if _coloured(stream):
            prefix = f"\x1b[{self._colours[pod, container]}m{prefix}{RESET}"
        self._make_room()
        # Bytes, not text: what a program writes need not be UTF-8.
        with _unread(stream):
            stream.flush()
            stream.buffer.write(prefix.encode() + line.text + b"\n")
            stream.buffer.flush()

    def event(self, pod: str, container: str, text: str) -> None:
        if self.quiet:
            return
        label = self._label(pod, container) if container else pod if self._several else ""
        self._say(f"podwright: {label + ': ' if label else ''}{text}", DIM)

    def note(self, text: str) -> None:
        """Something that belongs to no pod alone."""
        self.event("", "", text)

    def summary(self, outcomes: Sequence[PodOutcome], kept: bool) -> None:
        """How every container ended; why a pod could not run is said even when quiet."""
        for pod in outcomes:
            if pod.error:
                self._say(f"podwright: {pod.name}: {pod.error}", RED)
        if self.quiet:
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
        self._make_room()
        if colour and _coloured(self.err):
            text = f"{colour}{text}{RESET}"
        with _unread(self.err):
            print(text, file=self.err, flush=True)

    def _make_room(self) -> None:
        if self.display is not None:
            with _unread(self.err):
                self.display.hide()


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
