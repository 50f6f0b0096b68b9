"""`podwright trace`: start a pod as `podwright run -d` does, tell where the time went, remove it again."""

from __future__ import annotations

import asyncio
import enum
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.errors import InvalidArgument, PodwrightError

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.cli.region import Region
    from podwright.cli.trace_record import Recording
    from podwright.config import Config
    from podwright.kube.manifests.manifest import Manifest

PLAIN = 100
"""Columns where no terminal reads it."""
FRAME = 0.2
"""Seconds between two drawings of a start that goes on; a short one is not drawn before its end."""


class Form(enum.StrEnum):
    WATERFALL = "waterfall"
    JSON = "json"
    OTLP = "otlp-json"


@dataclass(frozen=True, slots=True)
class Options:
    endpoint: str | None = None
    repeat: int = 1
    keep: bool = False
    every: bool = False
    output: Form = Form.WATERFALL


async def trace(door: Door, file: Path, options: Options) -> int:
    """Start the Pod of `file` and print where the time went; 1 when it could not be started, which is shown
    where it happened, else 0. Interrupted, it prints how far the start has come.

    InvalidArgument for a bad manifest, or options that do not go together.
    """
    from podwright.kube.manifests import manifest

    pods = manifest.read(file)
    if len(pods) != 1:
        raise InvalidArgument(str(file), f"has {len(pods)} Pods: podwright trace starts one")
    if options.keep and options.repeat > 1:
        raise InvalidArgument("--keep", "one pod can be left, --repeat makes several")
    recordings: list[Recording] = []
    left = ""
    async with _runtime(door, options.endpoint) as runtime:
        for _ in range(options.repeat):
            start = asyncio.ensure_future(_start(runtime, pods[0], door.config(), options.keep, recordings))
            try:
                with _drawn(recordings, pods[0], options):
                    left = await asyncio.shield(start)
            except asyncio.CancelledError:
                with _one_interrupt_at_a_time():
                    # Before the removal, which may have to wait for what hangs.
                    if recordings and recordings[-1].interrupt():
                        _print(recordings[:-1] or recordings, pods[0], options)
                    start.cancel()
                    await asyncio.sleep(0)
                await start
                raise
            if left or _failed(recordings[-1]):
                break
        _print(recordings, pods[0], options)
    if left:
        print(f"podwright: {left}", file=sys.stderr)
    return 1 if left or _failed(recordings[-1]) else 0


@contextmanager
def _one_interrupt_at_a_time() -> Iterator[None]:
    """A SIGINT inside the block comes at its end: a second one ends the wait for what the first has begun,
    and finds nothing to end before."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:
            signal.raise_signal(signal.SIGINT)


@asynccontextmanager
async def _runtime(door: Door, endpoint: str | None) -> AsyncIterator[Cri]:
    if endpoint is None:
        async with door.cri() as runtime:
            yield runtime
    else:
        from podwright.cli.share import reached

        async with reached(endpoint) as runtime:
            yield runtime


async def _start(runtime: Cri, pod: Manifest, config: Config, keep: bool, recordings: list[Recording]) -> str:
    """Start the pod once; what could not be removed, "" for nothing."""
    from podwright.cli.trace_record import Recording
    from podwright.kube.life.runner import PodRun
    from podwright.tracing.exporting import exported

    recording = Recording(f"pod {pod.name}")
    recordings.append(recording)
    run: PodRun | None = None

    async def work(traced: Cri) -> None:
        nonlocal run
        run = PodRun(traced, pod, config.root_path)
        outcome = await run.run(detach=True, keep=keep)
        if outcome.error and not _failed(recording):
            next(iter(recording.spans.values())).error = outcome.error

    try:
        async with exported(recording.operations, config.tracing):
            await recording.record(runtime, work)
    finally:
        left = ""
        if run is not None and not keep:
            try:
                await asyncio.shield(run.remove())
            except PodwrightError as error:
                left = f"the pod could not be removed: {error}"
    return left


@contextmanager
def _drawn(recordings: list[Recording], pod: Manifest, options: Options) -> Iterator[None]:
    """On a terminal: while the block runs the newest start is drawn as far as it has come."""
    from podwright.cli.pull_display import live
    from podwright.cli.region import Region

    if options.output is not Form.WATERFALL or not live(sys.stdout):
        yield
        return
    region = Region(sys.stdout)
    drawing = asyncio.ensure_future(_draw(region, recordings, len(recordings), pod))
    try:
        yield
    finally:
        drawing.cancel()
        region.erase()


async def _draw(region: Region, recordings: list[Recording], index: int, pod: Manifest) -> None:
    from podwright.cli.trace_path import tree
    from podwright.cli.trace_view import Look, rows

    while True:
        await asyncio.sleep(FRAME)
        if len(recordings) <= index or not recordings[index].spans:
            continue
        recording = recordings[index]
        root = tree(recording.spans, [one.name for one in pod.init_containers], time.monotonic_ns())
        size = region.size()
        drawn, plain = (
            rows(root, Look(size.columns - 1, colours)) for colours in (not os.environ.get("NO_COLOR"), False)
        )
        # The heading, and what is newest.
        kept = [0, *range(max(1, len(drawn) - size.lines + 2), len(drawn))]
        region.draw([drawn[line] for line in kept], [len(plain[line]) for line in kept])


def _failed(recording: Recording) -> bool:
    from podwright.cli.trace_record import CANCELLED

    # A probe may be under way when the pod has started; what failed for others to be cancelled has words.
    return any(span.error not in ("", CANCELLED) for span in recording.spans.values())


def _print(recordings: Sequence[Recording], pod: Manifest, options: Options) -> None:
    from podwright.cli import output, trace_json
    from podwright.cli.trace_path import medians, tree
    from podwright.cli.trace_view import Look, waterfall

    init_containers = [one.name for one in pod.init_containers]
    match options.output:
        case Form.JSON:
            output.json(trace_json.plain(recordings, init_containers))
        case Form.OTLP:
            output.json(trace_json.otlp(recordings))
        case Form.WATERFALL:
            terminal = sys.stdout.isatty()
            width = shutil.get_terminal_size().columns if terminal else PLAIN
            look = Look(width, terminal and not os.environ.get("NO_COLOR"), options.every)
            trees = [tree(one.spans, init_containers) for one in recordings]
            root = trees[0] if len(trees) == 1 else medians(trees)
            title = f"{len(trees)} starts, medians" if len(trees) > 1 else ""
            notes = dict.fromkeys(one.calls_only for one in recordings if one.calls_only)
            print("\n".join(waterfall(root, look, title, list(notes))), flush=True)
