"""`podwright run`: the body of the command. What is seen of it is `run_screen`'s; the pod's exit status
becomes the command's.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from podwright.cli.output import span
from podwright.cli.run_screen import Screen
from podwright.errors import InvalidArgument

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.cli.pod_view import Shown
    from podwright.cli.pull_display import Display
    from podwright.cli.run_inputs import Inputs
    from podwright.kube.life.outcome import PodOutcome
    from podwright.kube.life.runner import PodRun
    from podwright.kube.manifests.manifest import Manifest

WATCH_AGAIN = 1.0
"""Seconds after which a server whose stream of pulls has ended is asked again."""
TIMED_OUT = 124
"""The exit status of timeout(1)."""
READY_LIMIT = 300.0
"""Seconds that `--wait=ready` takes at most where nobody says how long."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, beside what."""

    endpoint: str | None = None
    """Any CRI server's address; None: a podwright server that answers, or this process."""
    keep: bool | None = None
    """Whether what has ended stays; None: as is usual for the way to run."""
    detach: bool = False
    wait: Literal["ready", "completed"] | None = None
    timeout: float | None = None
    """Seconds for `wait`; 0: any time."""
    quiet: bool = False

    def check(self) -> None:
        """InvalidArgument for options that contradict each other."""
        if self.timeout is not None and self.wait is None:
            raise InvalidArgument("--timeout", "is how long --wait takes at most; say --wait, too")
        if self.detached and self.keep is False and self.wait != "completed":
            raise InvalidArgument(
                "--rm", "nobody is left to remove a detached pod when it ends: use --wait=completed, or no -d"
            )

    @property
    def detached(self) -> bool:
        """Nobody follows the containers' output."""
        return self.detach or self.wait is not None


def run_command(inputs: Inputs, door: Door, options: Options) -> int:
    """Run the Pods of `inputs` side by side; the exit status: the first of a container that is not 0, or
    TIMED_OUT when what was waited for did not come in time.

    In the foreground they run to their end and are removed, unless they are kept; Ctrl-C stops gracefully, a
    second one at once. Detached they are left running once they are started, or as they are when what was
    waited for has come, and their ids are printed. Raises InvalidArgument for bad manifests and options.
    """
    from podwright.cli.run_inputs import read

    options.check()
    manifests = read(inputs)
    screen = Screen(
        [(one.name, container.name) for one in manifests for container in one.all_containers()],
        quiet=options.quiet,
        silent=options.wait is not None,
        out=sys.stderr if options.detached else None,  # `id=$(podwright run -d …)` wants the ids alone
    )
    for one in manifests:
        for note in one.notes:
            screen.event(one.name, "", note)
    return asyncio.run(_main(manifests, door, options, screen))


async def _main(manifests: Sequence[Manifest], door: Door, options: Options, screen: Screen) -> int:
    from podwright.cli.share import lasting
    from podwright.kube.life.runner import PodRun, run_pods
    from podwright.kube.life.wakes import Feed
    from podwright.kube.node import observe

    begun = time.monotonic()
    late: list[str] = []
    async with lasting(door, options.endpoint) as runtime, Feed(runtime) as feed:
        node = await observe(runtime, door.config())
        runs = [PodRun(runtime, one, node, reporter=screen, feed=feed) for one in manifests]
        for one in runs:
            one.terse = screen.live
        async with _drawn(runtime, runs, screen):
            with _stopped_by_signals(runs, screen) as stopped, _limited(runs, options, late):
                outcomes = await run_pods(
                    runs,
                    keep=options.keep is True or options.wait is not None,
                    detach=options.detached,
                    until=options.wait or "started",
                )
            if options.wait is not None and not late and (stopped or options.keep is False):
                await asyncio.gather(*(one.remove() for one in runs))
    if late:
        limit = span(round(time.monotonic() - begun))
        screen.fault("\n  ".join([f"not {options.wait} after {limit}:", *late]))
        _print_ids(outcomes)
        return TIMED_OUT
    if options.detached and not stopped and not (options.wait and options.keep is False):
        _print_ids([one for one in outcomes if options.wait is not None or not one.error])
    if not options.detached or options.wait == "completed" or any(one.error for one in outcomes):
        screen.summary(outcomes, options.keep is True and not options.detached)
    return next((one.exit_code for one in outcomes if one.exit_code), 0)


# Waiting


@contextmanager
def _limited(runs: Sequence[PodRun], options: Options, late: list[str]) -> Iterator[None]:
    """When the time is over nobody waits any more, and `late` says for what."""
    limit = options.timeout
    if limit is None:
        limit = READY_LIMIT if options.wait == "ready" else 0
    if not options.wait or not limit:
        yield
        return

    def leave() -> None:
        from podwright.cli.run_pods import missing

        late.extend(text for one in runs if (text := missing(one, options.wait or "")))
        for one in runs:
            one.leave()

    timer = asyncio.get_running_loop().call_later(limit, leave)
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _stopped_by_signals(runs: Sequence[PodRun], screen: Screen) -> Iterator[list[bool]]:
    """While the block runs; what it gets is not empty when somebody has stopped the pods."""
    loop = asyncio.get_running_loop()
    seen: list[bool] = []

    def on_signal() -> None:
        seen.append(True)
        if len(seen) == 1:
            screen.note("stopping; once more to kill")
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
        yield seen
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


# What is drawn meanwhile


@asynccontextmanager
async def _drawn(runtime: Cri, runs: Sequence[PodRun], screen: Screen) -> AsyncIterator[None]:
    """While the block runs, show the pods, and how far the pulls of their images are."""
    from podwright.cli.run_pods import shown

    def pods() -> list[Shown]:
        return [one for one in map(shown, runs) if one is not None]

    images = {
        reference
        for each in runs
        for reference in (
            *(one.image for one in each.manifest.all_containers()),
            *(one.image.reference for one in each.manifest.spec.volumes or [] if one.image is not None),
        )
        if reference
    }
    async with screen.drawing(pods) as display:
        if display is None:
            yield
            return
        following = asyncio.ensure_future(_follow_pulls(runtime, images, display))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})


async def _follow_pulls(runtime: Cri, images: set[str], shown: Display) -> None:
    from podwright.errors import PodwrightError, Unimplemented
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


def _print_ids(outcomes: Sequence[PodOutcome]) -> None:
    for pod in outcomes:
        if pod.sandbox_id:
            print(pod.sandbox_id)
        for container in pod.containers:
            if container.id and not container.init:
                print(f"  {container.name} {container.id}")
