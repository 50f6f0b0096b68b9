"""Programs run inside a container by its shim (Tasks.Exec), connected with a client by FIFOs.

A program's end is told by Tasks.Wait, which is asked again when the daemon was gone meanwhile: the shim, the
program and the FIFOs are not. A client that leaves takes its program with it; what is slow to start or to end
then is ended behind its back.
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
from podwright.engines.containerd import strays
from podwright.engines.containerd.api import PROCESS, Containerd
from podwright.engines.containerd.exec_calls import (
    HANGUP_GRACE,
    KILL_GRACE,
    KIND,
    close_stdin,
    exit_code,
    forget,
    send,
)
from podwright.engines.containerd.exec_io import Fifos, outward
from podwright.engines.containerd.window import Window
from podwright.engines.node import flow
from podwright.engines.streams import Size, Streams
from podwright.errors import (
    CommandFailed,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    PodwrightError,
    Unavailable,
)
from podwright.linux.waiting import to_the_end
from podwright.wire.containerd import tasks_pb2

GRACE, SHORT_GRACE = flow.GRACE, 0.5
"""Seconds for which others who hold a program's output are waited for when it has ended; the second for who
waits for the code and not for a stream."""
START_GRACE = 10.0
"""Seconds that a client who leaves is kept for a start to end: half a start cannot be told to go."""
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
        self._left = False
        """Whether the client has."""
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
        """End the program; nobody listens any more. What does not end in time is left to `close`."""
        self._left = True
        await self._stop()
        if self._starting is not None:
            await asyncio.wait([self._starting], timeout=START_GRACE)
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
        told = self._ended.done()
        self._ended.cancel()
        with suppress(asyncio.CancelledError, PodwrightError):
            await self._ended
        tidying = asyncio.ensure_future(self._tidy(told))
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
        if self._left:
            return
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
        if code is None and isinstance(error, (Unavailable, DeadlineExceeded)):
            raise error
        if code is None or self._streams.complaints is None:
            raise CommandFailed("containerd exec", 1, words) from error
        await self._streams.refuse(words)
        return code

    async def _tidy(self, told: bool) -> None:
        """Have the shim forget the program, whose end it has `told`; end one that may run still. That waits
        for others who hold the output, for seconds, and for a shim that does not answer, for ever: a
        podwright that is closed meanwhile leaves it, with its FIFOs, to the next one."""
        place = self._place
        try:
            # A shim that finds no reader forgets what it has started.
            sure = await self._started() and (told or not self._pid)
            if sure:
                self.fifos.close()
            try:
                if sure and self._known:
                    await forget(self._containerd, place.id, self._exec_id)
            except PodwrightError as error:
                log.debug("container %s: %s: %s", place.id[:12], self._exec_id, error)
                sure = False
            if sure:
                self.fifos.remove()
            else:
                await strays.end(self._containerd, place.id, self.fifos.directory)
        finally:
            self.fifos.close()

    async def _started(self) -> bool:
        """Wait for the start to return. Whether it succeeded: of one that failed, for want of an answer in
        time perhaps, it is not known what there is."""
        if self._starting is not None:
            try:
                await self._starting
            except PodwrightError:
                return False
        return True

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
