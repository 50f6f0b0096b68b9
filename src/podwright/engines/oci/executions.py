"""Programs run inside a container under a conmon of their own, which hands its own streams on to them.

conmon copies nothing then (its log driver "passthrough"): it adopts the program, tells its pid, waits for
its end and tells the exit code. So every runtime's `exec` behaves alike: none copies streams, waits for
daemonised children, or has to stay, and the terminal that it makes comes straight to us.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from podwright import structs
from podwright.engines.base import Json
from podwright.engines.oci import conmon
from podwright.engines.oci.runtimes import Runtime
from podwright.errors import DeadlineExceeded, FailedPrecondition
from podwright.linux import proc, spawn

ASK_TIMEOUT = 2.0
"""Seconds that gVisor may take to tell and to end what runs inside."""
UNKNOWN = -1
"""Instead of an exit code: the supervisor went without telling it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program is to run."""

    supervisor: str
    """conmon."""
    runtime: Runtime
    bundle: Path
    id: str
    owner: tuple[int, int]
    """The container's user by the host's numbers: it may open /dev/stdout again."""
    mark: str
    """Of this engine: its files are told by it from those of an earlier one."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a runtime is told and tells about one program."""

    process: Path
    pid: Path
    inner: Path
    """gVisor's: the pid inside."""
    console: Path


@contextmanager
def files(place: Place, kind: str) -> Iterator[Files]:
    """Names of files of one program; they are removed at the end."""
    # Never a name again: a pid file that a killed podwright left would name a stranger by now.
    stem = place.bundle / f"{kind}-{place.mark}-{secrets.token_hex(8)}"
    found = Files(*(stem.with_suffix(each) for each in (".json", ".pid", ".inner", ".console")))
    try:
        yield found
    finally:
        for each in (found.process, found.pid, found.inner, found.console):
            each.unlink(missing_ok=True)


class _Bundle(msgspec.Struct):
    """The one part of a bundle's config.json that matters here; msgspec skips the rest unread."""

    process: dict[str, Json]


class _Report(msgspec.Struct):
    """A line that conmon writes to the sync pipe: a pid, then an exit code."""

    data: int = UNKNOWN


class Execution:
    """A program that conmon is to run in a container."""

    def __init__(self, supervisor: int, pidfile: Path, reports: int) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[int] = loop.create_future()
        """Its host pid (with gVisor: of the process that waits for it); 0 when it could not be started. What
        the runtime says to that goes where the program's standard error would have gone."""
        self.ended: asyncio.Future[int] = loop.create_future()
        """Its exit code, 128 + signal when one killed it; UNKNOWN."""
        self._supervisor = supervisor
        self._pidfile = pidfile
        self._program = -1
        self._reports = reports
        self._text = b""
        os.set_blocking(reports, False)
        loop.add_reader(reports, self._read)

    def close(self) -> None:
        if self._reports >= 0:
            asyncio.get_running_loop().remove_reader(self._reports)
            os.close(self._reports)
            self._reports = -1
        if self._program >= 0:
            os.close(self._program)
            self._program = -1
        for future in (self.started, self.ended):
            future.cancel()

    def signal(self, number: int) -> None:
        """To the program and the rest of its process group; fine when it has ended or was not started."""
        if self._program < 0:
            return
        try:
            group = os.getpgid(self.started.result())
            signal.pidfd_send_signal(self._program, number)
        except ProcessLookupError:
            return
        if group in (1, os.getpgid(0), self._supervisor):
            return
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass

    def _read(self) -> None:
        try:
            chunk = os.read(self._reports, spawn.READ_SIZE)
        except BlockingIOError:
            return
        *lines, self._text = (self._text + chunk).split(b"\n")
        for line in lines:
            self._take(structs.decode(line, _Report).data)
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._reports)
            os.close(self._reports)
            self._reports = -1
            if not self.started.done():
                # Killed before it could tell: what it was to supervise may run.
                pid = conmon.read_pid(self._pidfile)
                self._hold(pid, orphan=True)
                self.started.set_result(pid if self._program >= 0 else 0)
            if not self.ended.done():
                self.ended.set_result(UNKNOWN)

    def _take(self, number: int) -> None:
        if not self.started.done():
            self._hold(number)
            self.started.set_result(max(0, number))
        elif not self.ended.done():
            self.ended.set_result(number)

    def _hold(self, pid: int, *, orphan: bool = False) -> None:
        """So that its number cannot be given to another process as long as we might signal it."""
        try:
            if pid > 0:
                self._program = os.pidfd_open(pid)
            if not (proc.alive(pid) if orphan else proc.parent(pid) == self._supervisor):
                raise ProcessLookupError
        except ProcessLookupError:
            # It has ended, been reaped, and its number may be a stranger's by now.
            if self._program >= 0:
                os.close(self._program)
            self._program = -1


@asynccontextmanager
async def running(
    place: Place,
    files: Files,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int,
    options: Sequence[str] = (),
) -> AsyncIterator[Execution]:
    """Let conmon run the process of `files` in the container of `place`, with the other files as its streams,
    inside the context; `options` are those of the runtime's `exec`.

    Its streams may be closed here as soon as the context is entered. Leaving it ends the supervisor, but not
    what it supervises. Raises FailedPrecondition when there is no conmon.
    """
    program, id, runtime = place.supervisor, place.id, place.runtime.argv()
    if place.runtime.sandboxed:
        options = ["--internal-pid-file", str(files.inner), *options]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    command = [
        *(program, "--exec", "--sync", "--api-version", "1", "--cid", id, "--cuuid", id, "--name", id),
        *("--exec-process-spec", str(files.process), "--container-pidfile", str(files.pid)),
        *("--log-path", "passthrough", "--no-sync-log", "--runtime", runtime[0]),
        *(f"--runtime-arg={each}" for each in runtime[1:]),
        *(f"--runtime-opt={each}" for each in options),
    ]
    try:
        async with spawn.connected(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={"PATH": os.environ.get("PATH", os.defpath), "_OCI_SYNCPIPE": str(writing)},
            cwd=place.bundle,
            pass_fds=(writing,),
        ) as pid:
            os.close(writing)
            writing = -1
            execution = Execution(pid, files.pid, reading)
            reading = -1
            try:
                yield execution
            finally:
                execution.close()
    except FileNotFoundError as error:
        if error.filename != program:
            raise
        raise FailedPrecondition(f"{program} is not installed: nothing can be run in containers") from error
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)


def process_of(bundle: Path, argv: Sequence[str], *, terminal: bool = False) -> dict[str, Json]:
    """The container's own process, but with other arguments. FileNotFoundError when there is no bundle."""
    process = structs.decode((bundle / "config.json").read_bytes(), _Bundle).process
    process["args"] = list(argv)
    process["terminal"] = terminal
    process.pop("consoleSize", None)
    if terminal and not any(each.startswith("TERM=") for each in process.get("env") or ()):
        process["env"] = [*(process.get("env") or ()), "TERM=xterm"]
    return process


async def signal_inside(place: Place, inner: Path, number: int) -> None:
    """Signal a program that is no process of this host, and its descendants: gVisor's `exec` leaves it behind
    when it is killed itself, and process groups cannot be signalled from outside."""
    first = conmon.read_pid(inner)
    if not first:
        return
    runtime, name = place.runtime, signal.Signals(number).name
    try:
        listed = await spawn.run(runtime.argv("ps", place.id), timeout=ASK_TIMEOUT)
        for pid in (first, *_descendants(listed.stdout.decode(errors="replace"), first)):
            await spawn.run(runtime.argv("kill", "--pid", str(pid), place.id, name), timeout=ASK_TIMEOUT)
    except DeadlineExceeded as error:
        log.warning("container %s: signalling a program with %s: %s", place.id, name, error)


def _descendants(table: str, first: int) -> list[int]:
    """Of a table that begins with the columns UID PID PPID: who comes from `first`."""
    rows = [line.split() for line in table.splitlines()[1:]]
    parents = {int(row[1]): int(row[2]) for row in rows if len(row) > 2}
    found = [first]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
