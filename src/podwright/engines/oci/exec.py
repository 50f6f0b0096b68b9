"""Programs run inside a container and waited for: by the runtime directly, without a supervisor.

A supervisor would only add a process: nobody attaches to these, and their output is wanted in memory.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from podwright.engines.base import ExecResult, Json
from podwright.engines.oci import conmon
from podwright.errors import CommandFailed, DeadlineExceeded
from podwright.linux import proc, spawn
from podwright.spec.encode import encode

KILL_GRACE = 2.0
"""Seconds that the runtime may take to notice that the program it waits for was killed."""

_numbers = itertools.count()


class _Bundle(msgspec.Struct):
    """The one part of a bundle's config.json that matters here; msgspec skips the rest unread."""

    process: dict[str, Json]


async def run(
    runtime: Sequence[str], bundle: Path, id: str, argv: Sequence[str], timeout: float | None, limit: int
) -> ExecResult:
    """Run `argv` in container `id` as its own process: environment, user, directory, capabilities.

    `runtime` is the runtime's program with its global options. Raises DeadlineExceeded after `timeout`
    seconds, the process group killed and reaped; CommandFailed when the runtime could not start it.
    """
    stem = bundle / f"exec-{next(_numbers)}"
    process, pidfile = stem.with_suffix(".json"), stem.with_suffix(".pid")
    process.write_bytes(encode(_process(bundle, argv)))
    task = asyncio.ensure_future(
        spawn.run([*runtime, "exec", "--process", str(process), "--pid-file", str(pidfile), id], limit=limit)
    )
    try:
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            await _end(task, pidfile)
            raise DeadlineExceeded(f"command {argv[0]!r} timed out: it did not end within {timeout:g} s")
        done = task.result()
        if done.status != 0 and not pidfile.exists():
            # The runtime writes the pid only of a program that it could start.
            raise CommandFailed(
                Path(runtime[0]).name, done.status, conmon.plain_words(done.stderr.decode(errors="replace"))
            )
    finally:
        if not task.done():
            await _end(task, pidfile)
        process.unlink(missing_ok=True)
        pidfile.unlink(missing_ok=True)
    return ExecResult(done.stdout, done.stderr, done.status if done.status >= 0 else 128 - done.status)


def _process(bundle: Path, argv: Sequence[str]) -> dict[str, Json]:
    text = (bundle / "config.json").read_bytes()
    try:
        process = msgspec.json.decode(text, type=_Bundle).process
    except msgspec.DecodeError:
        # Environment values that are not UTF-8 stand in it as they are.
        process = json.loads(text.decode(errors="surrogateescape"))["process"]
    process["args"] = list(argv)
    process["terminal"] = False
    process.pop("consoleSize", None)
    return process


async def _end(task: asyncio.Future[spawn.Finished], pidfile: Path) -> None:
    """Kill the program first, so that the runtime, its parent, reaps it; then what is left of its group."""
    pid = conmon.read_pid(pidfile)
    group = 0
    if pid and proc.alive(pid):
        try:
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await asyncio.wait([task], timeout=KILL_GRACE)
    if group > 1 and group != os.getpgid(0):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if not task.done():
        task.cancel()  # spawn.run kills the runtime's own group
        await asyncio.wait([task])
