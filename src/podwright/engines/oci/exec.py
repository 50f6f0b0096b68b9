"""Programs run inside a container and waited for, with their output in memory.

Normally by the runtime directly: a supervisor would only add a process. A runtime that copies the output
itself (runc) waits for everybody who holds it, a daemonised child included; there conmon waits instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from podwright.engines.base import ExecResult, Json
from podwright.engines.oci import conmon
from podwright.engines.oci.runtimes import Runtime
from podwright.errors import CommandFailed, DeadlineExceeded
from podwright.linux import proc, spawn

KILL_GRACE = 2.0
"""Seconds that the runtime may take to notice that the program it waits for was killed."""

log = logging.getLogger(__name__)


class _Bundle(msgspec.Struct):
    """The one part of a bundle's config.json that matters here; msgspec skips the rest unread."""

    process: dict[str, Json]


async def run(
    supervisor: str,
    runtime: Runtime,
    bundle: Path,
    id: str,
    argv: Sequence[str],
    timeout: float | None,
    limit: int,
) -> ExecResult:
    """Run `argv` in container `id` as its own process: environment, user, directory, capabilities.

    Raises DeadlineExceeded after `timeout` seconds, the process group killed and reaped; CommandFailed when
    the runtime could not start it.
    """
    # Never a name again: a pid file that a killed podwright left would name a stranger by now.
    stem = bundle / f"exec-{secrets.token_hex(8)}"
    process, pidfile = stem.with_suffix(".json"), stem.with_suffix(".pid")
    inner = stem.with_suffix(".inner")
    process.write_bytes(msgspec.json.encode(process_of(bundle, argv)))
    if runtime.passes_output_through:
        work = _direct(runtime, id, process, pidfile, inner, limit)
    else:
        work = conmon.execute(
            supervisor, runtime.kind, runtime.argv(), id, process, pidfile, stem.with_suffix(".out"), limit
        )
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise DeadlineExceeded(f"command {argv[0]!r} timed out: it did not end within {timeout:g} s")
        return task.result()
    finally:
        if not task.done() and runtime.sandboxed:
            await end_inside(runtime, id, inner)
        if not task.done():
            await _end(task, pidfile)
        for file in (process, pidfile, inner):
            file.unlink(missing_ok=True)


async def _direct(
    runtime: Runtime, id: str, process: Path, pidfile: Path, inner: Path, limit: int
) -> ExecResult:
    options = ["--process", str(process), "--pid-file", str(pidfile)]
    if runtime.sandboxed:
        options += ["--internal-pid-file", str(inner)]
    done = await spawn.run(runtime.argv("exec", *options, id), limit=limit)
    if done.status != 0 and not pidfile.exists():
        # The runtime writes the pid only of a program that it could start.
        words = conmon.plain_words(done.stderr.decode(errors="replace"))
        raise CommandFailed(runtime.kind, done.status, words)
    return ExecResult(done.stdout, done.stderr, done.status if done.status >= 0 else 128 - done.status)


def process_of(bundle: Path, argv: Sequence[str], *, terminal: bool = False) -> dict[str, Json]:
    """The container's own process, but with other arguments. FileNotFoundError when there is no bundle."""
    process = msgspec.json.decode((bundle / "config.json").read_bytes(), type=_Bundle).process
    process["args"] = list(argv)
    process["terminal"] = terminal
    process.pop("consoleSize", None)
    if terminal and not any(each.startswith("TERM=") for each in process.get("env") or ()):
        process["env"] = [*(process.get("env") or ()), "TERM=xterm"]
    return process


async def end_inside(runtime: Runtime, id: str, inner: Path) -> None:
    """Kill a program that is no process of this host, and its descendants: gVisor's `exec` leaves it behind
    when it is killed itself, and process groups cannot be signalled from outside."""
    first = conmon.read_pid(inner)
    if not first:
        return
    try:
        listed = await spawn.run(runtime.argv("ps", id), timeout=KILL_GRACE)
        for pid in (first, *_descendants(listed.stdout.decode(errors="replace"), first)):
            await spawn.run(runtime.argv("kill", "--pid", str(pid), id, "KILL"), timeout=KILL_GRACE)
    except DeadlineExceeded as error:
        log.warning("container %s: ending a program after its time-out: %s", id, error)


def _descendants(table: str, first: int) -> list[int]:
    """Of a table that begins with the columns UID PID PPID: who comes from `first`."""
    rows = [line.split() for line in table.splitlines()[1:]]
    parents = {int(row[1]): int(row[2]) for row in rows if len(row) > 2}
    found = [first]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


async def _end(task: asyncio.Future[ExecResult], pidfile: Path) -> None:
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
