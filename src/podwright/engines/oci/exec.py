"""Programs run inside a container and waited for, with their output in memory.

Normally by the runtime directly: a supervisor would only add a process. A runtime that copies the output
itself (runc) waits for everybody who holds it, a daemonised child included; there it is a session, with a
client that only listens.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from podwright.engines import exec_sync, refusals
from podwright.engines.base import ExecResult
from podwright.engines.oci import conmon, executions, sessions
from podwright.engines.oci.executions import Place
from podwright.engines.streams import Streams
from podwright.errors import CommandFailed
from podwright.linux import proc, spawn
from podwright.linux.waiting import to_the_end

KILL_GRACE = 2.0
"""Seconds that the runtime may take to notice that the program it waits for was killed."""


async def run(place: Place, argv: Sequence[str], timeout: float | None, limit: int) -> ExecResult:
    """Run `argv` in the container as its own process: environment, user, directory, capabilities.

    A command that cannot be found or executed has 127 or 126 for a code, and the reason on its standard
    error. Raises DeadlineExceeded after `timeout` seconds, the process group killed and reaped; CommandFailed
    when the runtime could not start it for another reason.
    """
    work = (
        _direct(place, argv, limit) if place.runtime.passes_output_through else _connected(place, argv, limit)
    )
    return await exec_sync.within(timeout, argv[0], work)


async def _connected(place: Place, argv: Sequence[str], limit: int) -> ExecResult:
    def run(streams: Streams) -> Coroutine[Any, Any, int]:
        return sessions.run(place, argv, streams, patient=False)

    return await exec_sync.kept(limit, run)


async def _direct(place: Place, argv: Sequence[str], limit: int) -> ExecResult:
    """By the runtime alone, which hands its own streams on: quicker by a process."""
    runtime = place.runtime
    with executions.files(place, "exec") as files:
        files.process.write_bytes(msgspec.json.encode(executions.process_of(place.bundle, argv)))
        options = ["--process", str(files.process), "--pid-file", str(files.pid)]
        if runtime.sandboxed:
            options += ["--internal-pid-file", str(files.inner)]
        running = asyncio.ensure_future(
            spawn.run(runtime.argv("exec", *options, place.id), limit=limit, owner=place.owner)
        )
        try:
            done = await asyncio.shield(running)
        except asyncio.CancelledError:
            await to_the_end(_kill(place, running, files))
            raise
        if done.status != 0 and not files.pid.exists():
            # The runtime writes the pid only of a program that it could start.
            words = conmon.plain_words(done.stderr.decode(errors="replace"))
            if (code := refusals.code(words)) is None:
                raise CommandFailed(runtime.kind, done.status, words)
            return ExecResult(b"", words.encode(), code)
    return ExecResult(done.stdout, done.stderr, done.status if done.status >= 0 else 128 - done.status)


async def _kill(place: Place, running: asyncio.Future[spawn.Finished], files: executions.Files) -> None:
    if place.runtime.sandboxed:
        await executions.signal_inside(place, files.inner, signal.SIGKILL)
    if not running.done():
        await _end(running, files.pid)


async def _end(task: asyncio.Future[spawn.Finished], pidfile: Path) -> None:
    """Kill the program first, so that its parent reaps it; then what is left of its process group."""
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
        task.cancel()  # what waits for the program is killed with its own group
        await asyncio.wait([task])
