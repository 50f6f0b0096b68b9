"""Programs run inside a container under a conmon of their own, which hands its own streams on to them.

conmon copies nothing then (its log driver "passthrough"): it adopts the program, tells its pid, waits for
its end and tells the exit code. So every runtime's `exec` behaves alike: none copies streams, waits for
daemonised children, or has to stay, and the terminal that it makes comes straight to us.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from podwright.errors import FailedPrecondition
from podwright.linux import proc, spawn

UNKNOWN = -1
"""Instead of an exit code: the supervisor went without telling it."""


class _Report(msgspec.Struct):
    """A line that conmon writes to the sync pipe: a pid, then an exit code."""

    data: int = UNKNOWN


class Execution:
    """A program that conmon is to run in a container."""

    def __init__(self, supervisor: int, reports: int) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[int] = loop.create_future()
        """Its host pid (with gVisor: of the process that waits for it); 0 when it could not be started. What
        the runtime says to that goes where the program's standard error would have gone."""
        self.ended: asyncio.Future[int] = loop.create_future()
        """Its exit code, 128 + signal when one killed it; UNKNOWN."""
        self._supervisor = supervisor
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
            self._take(msgspec.json.decode(line, type=_Report).data)
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._reports)
            os.close(self._reports)
            self._reports = -1
            if not self.started.done():
                self.started.set_result(0)
            if not self.ended.done():
                self.ended.set_result(UNKNOWN)

    def _take(self, number: int) -> None:
        if not self.started.done():
            self._hold(number)
            self.started.set_result(max(0, number))
        elif not self.ended.done():
            self.ended.set_result(number)

    def _hold(self, pid: int) -> None:
        """So that its number cannot be given to another process as long as we might signal it."""
        try:
            self._program = os.pidfd_open(pid) if pid > 0 else -1
            if self._program >= 0 and proc.parent(pid) != self._supervisor:
                raise ProcessLookupError
        except ProcessLookupError:
            # It has ended, been reaped, and its number may be a stranger's by now.
            if self._program >= 0:
                os.close(self._program)
            self._program = -1


@asynccontextmanager
async def running(
    program: str,
    runtime: Sequence[str],
    id: str,
    process: Path,
    pidfile: Path,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int,
    options: Sequence[str] = (),
) -> AsyncIterator[Execution]:
    """Let the conmon `program` run the `process` file in container `id`, with the given files as its streams,
    inside the context; `runtime` is the runtime's program and global options, `options` those of its `exec`.

    The files may be closed as soon as the context is entered. Leaving it ends the supervisor, but not what
    it supervises. Raises FailedPrecondition when there is no conmon.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    command = [
        *(program, "--exec", "--sync", "--api-version", "1", "--cid", id, "--cuuid", id, "--name", id),
        *("--exec-process-spec", str(process), "--container-pidfile", str(pidfile)),
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
            cwd=process.parent,
            pass_fds=(writing,),
        ) as pid:
            os.close(writing)
            writing = -1
            execution = Execution(pid, reading)
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
