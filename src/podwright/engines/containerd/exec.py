"""Programs run inside a container by its shim (Tasks.Exec), connected with a client by FIFOs.

A program's end is told by Tasks.Wait, which is asked again when the daemon was gone meanwhile: the shim, the
program and the FIFOs are not. Signals go through the kernel where the program is one of this host's, because
the API knows no process groups.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
import signal
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage

from podwright.engines import refusals
from podwright.engines.base import Json
from podwright.engines.containerd.api import PROCESS, Containerd
from podwright.engines.containerd.exec_io import Fifos, outward
from podwright.engines.containerd.window import Window
from podwright.engines.node import flow
from podwright.engines.node.host_process import HostProcess
from podwright.engines.streams import Size, Streams
from podwright.errors import CommandFailed, FailedPrecondition, NotFound, PodwrightError, Unavailable
from podwright.linux.waiting import to_the_end
from podwright.wire.containerd import tasks_pb2

KIND = "exec"
"""How the ids of these programs begin, and the names of their directories."""
GRACE, SHORT_GRACE = flow.GRACE, 0.5
"""Seconds for which others who hold a program's output are waited for when it has ended; the second for who
waits for the code and not for a stream."""
START_GRACE = 10.0
"""Seconds that a start may take to end after its client has vanished: half a start cannot be told to go."""
HANGUP_GRACE = 5.0
"""Seconds that a program has to end itself after SIGHUP."""
KILL_GRACE = 5.0
"""Seconds that its end may take to be told after SIGKILL."""
DAEMON_GRACE = 60.0
"""Seconds that a daemon which is gone may take to come back and tell how a program has ended."""
_AGAIN = 0.2
END_OF_INPUT = b"\4"
"""What ends the input of who reads lines from a terminal (termios(3), VEOF)."""
_PREFIXES = ("OCI runtime exec failed: ", "exec failed: ", "unable to start container process: ")
_SUFFIXES = (": unknown", ": not found")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program is to run."""

    containerd: Containerd
    id: str
    """The container's."""
    process: dict[str, Json]
    """The container's own process, as its spec has it."""
    directory: Path
    """For FIFOs."""
    mark: str
    """Of this engine: its programs are told by it from those of an earlier one."""
    tidying: set[asyncio.Task[None]] = field(default_factory=set)
    """What is still being cleared away, after the client has its answer."""


async def run(place: Place, argv: Sequence[str], streams: Streams, *, patient: bool = True) -> int:
    """Run `argv` in the container as its own process, connected with `streams`; its exit code.

    A command that cannot be found or executed has 127 or 126 for a code, and the reason on its standard
    error. When cancelled, and when a stream fails, the program is hung up as a closed terminal does it: its
    streams end, it gets SIGHUP, and SIGKILL if it stays; if not `patient`, its process group is killed at
    once. Raises FailedPrecondition when the container does not run, CommandFailed when the program cannot be
    started for another reason.
    """
    session = _Session(place, streams, patient)
    try:
        session.fifos.make()
        return await session.carry(argv)
    except BaseException:
        await to_the_end(session.hang_up())
        raise
    finally:
        await to_the_end(session.close())


class _Session:
    def __init__(self, place: Place, streams: Streams, patient: bool) -> None:
        self._place = place
        self._containerd = place.containerd
        self._streams = streams
        self._patient = patient
        self._grace = GRACE if patient else SHORT_GRACE
        self._exec_id = f"{KIND}-{place.mark}-{secrets.token_hex(8)}"
        # Outputs that nobody wants are there all the same: containerd's own shim takes all of them or none.
        names = ("stdout",) if streams.tty else ("stdout", "stderr")
        self.fifos = Fifos(place.directory / self._exec_id, names, stdin=streams.stdin is not None)
        self._files: dict[str, FileIO] = {}
        self._window = Window(self._containerd, place.id, self._exec_id, streams)
        self._pid = 0
        self._known = False
        """Whether the shim knows the program, so that it has to forget it."""
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._starting: asyncio.Task[None] | None = None
        self._flows: list[asyncio.Task[None]] = []
        self._outward: list[asyncio.Task[None]] = []

    async def carry(self, argv: Sequence[str]) -> int:
        """Start the program, and wait for its end and until its output is with the client."""
        if self._streams.sizes is not None:
            await asyncio.sleep(0)  # the first size is mostly there: the program shall see it from its start
        self._files = self.fifos.outputs()
        # Not cut short: whether it was started must be known.
        self._starting = asyncio.ensure_future(self._start(argv))
        try:
            await asyncio.shield(self._starting)
        except PodwrightError as error:
            return await self._refused(error)
        streams = self._streams
        sinks = {"stdout": streams.stdout, "stderr": streams.stderr}
        for name, file in self._files.items():
            self._outward.append(self._flow(outward(file, sinks[name], self._ended, self._grace)))
        if streams.stdin is not None:
            self._flows.append(self._flow(self._inward()))
        if streams.tty:
            self._flows.append(self._flow(self._window.show()))
        await self._until(self._ended, *self._outward)
        return self._ended.result()

    async def hang_up(self) -> None:
        """End the program; nobody listens any more."""
        await self._stop()
        if self._starting is not None:
            await asyncio.wait([self._starting], timeout=START_GRACE)
            if not self._starting.done():
                self._starting.cancel()
                await asyncio.wait([self._starting])
            if not self._starting.cancelled():
                self._starting.exception()  # seen: it has no other reader
        if not self._pid or self._ended.done():
            return
        # Read on, or a full pipe would hold it up in the middle of what it does on SIGHUP.
        self._outward = [self._flow(outward(each, None, self._ended, 0.0)) for each in self._files.values()]
        if self._patient:
            await self._end_input()
            await self._signal(signal.SIGHUP)
            await asyncio.wait([self._ended], timeout=HANGUP_GRACE)
        if not self._ended.done():
            await self._signal(signal.SIGKILL)
            await asyncio.wait([self._ended], timeout=KILL_GRACE)

    async def close(self) -> None:
        await self._stop()
        await self._window.close()
        self.fifos.close()
        self._ended.cancel()
        with suppress(asyncio.CancelledError, PodwrightError):
            await self._ended
        tidying = asyncio.ensure_future(self._tidy())
        self._place.tidying.add(tidying)
        tidying.add_done_callback(self._place.tidying.discard)

    # The program

    async def _start(self, argv: Sequence[str]) -> None:
        place, fifos = self._place, self.fifos
        size = self._window.size
        spec = process_of(place.process, argv, terminal=self._streams.tty, size=size)
        request = tasks_pb2.ExecProcessRequest(
            container_id=place.id,
            exec_id=self._exec_id,
            terminal=self._streams.tty,
            stdin=fifos.path("stdin"),
            stdout=fifos.path("stdout"),
            stderr=fifos.path("stderr"),
            spec=AnyMessage(type_url=PROCESS, value=msgspec.json.encode(spec)),
        )
        await self._containerd.ask(self._containerd.tasks.Exec, request, "exec")
        self._known = True
        # It is waited for before it runs: one turn less for those that are quick.
        self._ended = asyncio.ensure_future(exit_code(self._containerd, place.id, self._exec_id))
        start = tasks_pb2.StartRequest(container_id=place.id, exec_id=self._exec_id)
        self._pid = (await self._containerd.ask(self._containerd.tasks.Start, start, "exec")).pid

    async def _signal(self, number: int) -> None:
        await send(self._containerd, self._place.id, self._exec_id, self._pid, number)

    async def _refused(self, error: PodwrightError) -> int:
        """The code that tells why nothing was started; raises when no code does."""
        words = _words(error)
        code = refusals.code(words)
        if code is None and isinstance(error, (NotFound, FailedPrecondition)):
            raise FailedPrecondition(f"container {self._place.id[:12]} does not run: {words}") from error
        if code is None and isinstance(error, Unavailable):
            raise error
        if code is None or self._streams.complaints is None:
            raise CommandFailed("containerd exec", 1, words) from error
        await self._streams.refuse(words)
        return code

    async def _tidy(self) -> None:
        """Have the shim forget the program. It waits then for others who hold the output, for seconds."""
        try:
            if self._known:
                await forget(self._containerd, self._place.id, self._exec_id)
        except PodwrightError as error:
            log.warning("container %s: an exec is not cleared away: %s", self._place.id[:12], error)
        self.fifos.remove()

    # The streams

    def _flow(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.ensure_future(work)

    async def _inward(self) -> None:
        source = self._streams.stdin
        assert source is not None
        file = await self.fifos.stdin(self._ended)
        if file is None:
            return
        if self._streams.tty:
            await flow.inward(source, file, farewell=END_OF_INPUT)
        else:
            await flow.inward(source, file)
            await self._end_input()

    async def _end_input(self) -> None:
        """Of the program, which the shim keeps open otherwise."""
        if self._streams.stdin is not None and not self._streams.tty:
            await close_stdin(self._containerd, self._place.id, self._exec_id)

    async def _until(self, *futures: asyncio.Future[Any]) -> None:
        """Wait for all of them; raises what a stream raises meanwhile."""
        waited = {*futures, *self._flows}
        while not all(each.done() for each in futures):
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()

    async def _stop(self) -> None:
        flows = [*self._flows, *self._outward]
        for each in flows:
            each.cancel()
        if flows:
            await asyncio.wait(flows)


def process_of(
    own: dict[str, Json], argv: Sequence[str], *, terminal: bool = False, size: Size | None = None
) -> dict[str, Json]:
    """The container's `own` process, but with other arguments and its own terminal."""
    process = copy.copy(own)
    process["args"] = list(argv)
    process["terminal"] = terminal
    process.pop("consoleSize", None)
    if terminal and size is not None:
        process["consoleSize"] = {"width": size.width, "height": size.height}
    if terminal and not any(each.startswith("TERM=") for each in process.get("env") or ()):
        process["env"] = [*(process.get("env") or ()), "TERM=xterm"]
    return process


async def exit_code(containerd: Containerd, id: str, exec_id: str) -> int:
    """Wait for the end of a program that has been made known. Raises CommandFailed when nobody knows."""
    request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
    deadline = 0.0
    while True:
        asked = asyncio.get_running_loop().time()
        try:
            answer = await containerd.ask(containerd.tasks.Wait, request, "exec", timeout=None)
            return int(answer.exit_status)
        except NotFound as error:
            raise CommandFailed("containerd exec", -signal.SIGKILL, "its container is gone") from error
        except Unavailable as error:
            now = asyncio.get_running_loop().time()
            # What was waited for meanwhile says that the daemon was there.
            deadline = now + DAEMON_GRACE if not deadline or now - asked > 2 * _AGAIN else deadline
            if now > deadline:
                raise CommandFailed("containerd exec", -signal.SIGKILL, str(error)) from error
            await asyncio.sleep(_AGAIN)


async def send(containerd: Containerd, id: str, exec_id: str, pid: int, number: int) -> None:
    """Signal a program with its process group, or alone where it is no process of this kernel; fine when it
    has ended."""
    if (process := HostProcess.of(pid, id)) is not None:
        try:
            if number == signal.SIGKILL:
                process.kill()
            else:
                process.hang_up()
        finally:
            process.close()
        return
    request = tasks_pb2.KillRequest(container_id=id, exec_id=exec_id, signal=number)
    with suppress(NotFound, FailedPrecondition):
        await containerd.ask(containerd.tasks.Kill, request, "signal of an exec")


async def close_stdin(containerd: Containerd, id: str, exec_id: str = "") -> None:
    """No more comes: the shim lets go of the stdin of a program, or of the container's own process."""
    request = tasks_pb2.CloseIORequest(container_id=id, exec_id=exec_id, stdin=True)
    with suppress(NotFound, FailedPrecondition):
        await containerd.ask(containerd.tasks.CloseIO, request, "end of stdin")


async def forget(containerd: Containerd, id: str, exec_id: str) -> None:
    """Have the shim forget a program that has ended, or could not be started."""
    request = tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id)
    with suppress(NotFound):
        await containerd.ask(containerd.tasks.DeleteProcess, request, "end of an exec")


def _words(error: PodwrightError) -> str:
    """What the runtime said."""
    cause = error.__cause__
    words = (cause.details() if isinstance(cause, grpc.aio.AioRpcError) else "") or str(error)
    words = " ".join(words.split())
    for prefix in _PREFIXES:
        words = words.removeprefix(prefix)
    for suffix in _SUFFIXES:
        words = words.removesuffix(suffix)
    return words
