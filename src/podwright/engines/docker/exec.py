"""Programs run inside a container by Docker's exec, for a client that reads and writes meanwhile.

Docker answers before the program runs, says why it cannot in its output, and goes on running it whoever hangs
up. So what comes first is looked at, and the end is made by its pid on this host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from podwright.engines import refusals
from podwright.engines.docker import connected
from podwright.engines.docker.api import Docker
from podwright.engines.docker.connected import STDOUT, Output
from podwright.engines.docker.hijack import Hijacked
from podwright.engines.node.host_process import HostProcess
from podwright.engines.streams import Streams
from podwright.errors import CommandFailed, PodwrightError
from podwright.linux.waiting import to_the_end

log = logging.getLogger(__name__)

WATCHED_AFTER = 0.2
"""Seconds after which a program that still runs is watched: most have ended before, and need not be."""
SHORTEST_LOOK, LONGEST_LOOK = 0.004, 0.1
"""Seconds between two looks at what Docker tells nobody by itself: that a program has begun, or is reaped."""
START_GRACE = 10.0
"""Seconds that a start may take to end after its client has vanished."""
GRACE = 1.0
"""Seconds after the program's end in which others who hold its output may end as well."""
QUIET = 0.2
"""Seconds without output after which, for who is not patient, all that the program said has come: its end is
told past the shim and Docker, and its output goes another way through both."""
MOST_AFTER = 4 << 20
"""Bytes that are still on the way then, at most: what comes beyond is others'."""
HANGUP_GRACE = 5.0
"""Seconds that a program has to end itself after SIGHUP."""
KILL_GRACE = 5.0
"""Seconds that its end may take to be told after SIGKILL."""
_PREFIXES = (
    "OCI runtime exec failed: ",
    "exec failed: ",
    "unable to start container process: ",
)


@dataclass(frozen=True, slots=True)
class State:
    """What Docker says of an exec."""

    running: bool
    pid: int
    """On its host; 0 before it runs, and for ever when it could not be started."""
    code: int | None

    @property
    def over(self) -> bool:
        return not self.running and self.code is not None


async def run(
    docker: Docker,
    docker_id: str,
    argv: Sequence[str],
    streams: Streams,
    *,
    detach_keys: str,
    patient: bool = True,
) -> int:
    """Run `argv` in the running container `docker_id`, connected with `streams`; its exit code.
    `detach_keys` tell whose session it is (`strays.py`).

    A command that is not there or cannot be run has 127 or 126 for a code, and the reason on its standard
    error. When cancelled, and when a stream fails, it is hung up: SIGHUP, and SIGKILL if it stays; if not
    `patient`, its process group is killed at once, and whoever else holds its output is not waited for.
    Raises FailedPrecondition when the container does not run, NotFound, CommandFailed when Docker cannot
    start it for another reason.
    """
    asked = {
        "AttachStdin": streams.stdin is not None,
        "AttachStdout": streams.stdout is not None,
        "AttachStderr": not streams.tty,
        "Tty": streams.tty,
        "Cmd": list(argv),
        "DetachKeys": detach_keys,
    }
    exec_id = str((await docker.call("POST", f"/containers/{docker_id}/exec", json=asked))["Id"])
    session = _Session(docker, docker_id, exec_id, streams, patient)
    try:
        # Not cut short: whether it was to be started must be known.
        session.connection = await to_the_end(
            docker.hijack("POST", f"/exec/{exec_id}/start", json={"Detach": False, "Tty": streams.tty})
        )
        return await session.carry()
    except BaseException:
        await to_the_end(session.hang_up())
        raise
    finally:
        await session.close()


class _Session:
    def __init__(self, docker: Docker, docker_id: str, exec_id: str, streams: Streams, patient: bool) -> None:
        self._docker = docker
        self._docker_id = docker_id
        self._exec_id = exec_id
        self._streams = streams
        self._patient = patient
        self.connection: Hijacked | None = None
        self._said_all = asyncio.Event()
        """Nothing more comes out."""
        self._ended = asyncio.Event()
        """The program has."""
        self._words = b""
        """What is said instead of a program's output, when there is none."""
        self._refused = False
        self._tasks: list[asyncio.Task[None]] = []

    async def carry(self) -> int:
        """Wait for the end, and until all output is with the client."""
        assert self.connection is not None
        streams, tty = self._streams, self._streams.tty
        output = asyncio.ensure_future(self._output(Output(self.connection, streams, tty=tty)))
        end = asyncio.ensure_future(self._end())
        self._tasks = [output, end]
        if streams.stdin is not None:
            self._tasks.append(asyncio.ensure_future(self._input()))
        if tty and streams.sizes is not None:
            sizes = connected.resize(self._docker, f"/exec/{self._exec_id}", streams.sizes)
            self._tasks.append(asyncio.ensure_future(sizes))
        waited = set(self._tasks)
        while not (output.done() and end.done()):
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        state = await self._state()
        if self._refused or not state.pid:
            return await self._tell_refusal(state)
        for sink in (streams.stdout, streams.stderr):
            if sink is not None:
                await sink.close()
        return state.code or 0

    async def hang_up(self) -> None:
        """End the program; nobody listens any more."""
        await self._stop()
        try:
            process = await self._process() if self.connection is not None else None
        except PodwrightError as error:
            log.warning("an exec in %s may go on: %s", self._docker_id[:12], error)
            return
        if process is None or self.connection is None:
            return
        drain = asyncio.ensure_future(self._drain())
        try:
            if self._patient:
                if not self._streams.tty:
                    self.connection.end_input()
                process.hang_up()
            if not self._patient or not await process.ends_within(HANGUP_GRACE):
                process.kill()
                await process.ends_within(KILL_GRACE)
        finally:
            process.close()
            drain.cancel()
            await asyncio.wait([drain])

    async def close(self) -> None:
        await self._stop()
        if self.connection is not None:
            self.connection.close()

    async def _stop(self) -> None:
        for each in self._tasks:
            each.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # The streams

    async def _output(self, output: Output) -> None:
        """Hand on all that the program says, and of others who hold its output, what they say soon."""
        loop = asyncio.get_running_loop()
        deadline, left, known = 0.0, MOST_AFTER, False
        ended = asyncio.ensure_future(self._ended.wait())
        reading: asyncio.Task[tuple[int, bytes] | None] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(output.next())
                await asyncio.wait([reading, ended], return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    deadline = deadline or loop.time() + GRACE
                    rest = max(0.0, deadline - loop.time())
                    await asyncio.wait([reading], timeout=rest if self._patient else min(rest, QUIET))
                    if not reading.done():
                        return
                piece = reading.result()
                if piece is None:
                    return
                stream, data = piece
                if stream == STDOUT and not known:
                    known = True
                    self._refused = await self._was_refused()
                if self._refused:
                    self._words += data
                    continue
                await output.hand_on(stream, data)
                if ended.done():
                    left -= len(data)
                    if left < 0:
                        return
        finally:
            self._said_all.set()
            for each in (ended, reading):
                if each is not None:
                    each.cancel()

    async def _input(self) -> None:
        assert self.connection is not None and self._streams.stdin is not None
        last = await connected.send(self._streams.stdin, self.connection)
        await connected.end_input(self.connection, last, tty=self._streams.tty)

    async def _drain(self) -> None:
        """Read on, or a broken pipe would end it in the middle of what it does when hung up."""
        assert self.connection is not None
        with suppress(OSError):
            while await self.connection.read():
                pass

    # The program

    async def _end(self) -> None:
        """Wait until the program has ended and Docker knows its code."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCHED_AFTER):
                await self._said_all.wait()
        process = await self._process()
        if process is not None:
            try:
                await process.ended()
            finally:
                process.close()
        await self._until_over()
        self._ended.set()

    async def _process(self) -> HostProcess | None:
        """The program, once it runs; None when it does no more, or cannot be seen from here."""
        state = await self._look_until(lambda state: state.over or state.pid > 0, START_GRACE)
        if state.over or not state.pid:
            return None
        return HostProcess.of(state.pid, self._docker_id)

    async def _until_over(self) -> None:
        await self._look_until(lambda state: state.over, None)

    async def _look_until(self, wanted: Callable[[State], bool], seconds: float | None) -> State:
        """The first state that is `wanted`, or that of the moment when so many seconds have passed."""
        deadline = asyncio.get_running_loop().time() + (seconds if seconds is not None else float("inf"))
        pause = SHORTEST_LOOK
        while True:
            state = await self._state()
            if wanted(state) or asyncio.get_running_loop().time() > deadline:
                return state
            await asyncio.sleep(pause)
            pause = min(LONGEST_LOOK, pause * 2)

    async def _state(self) -> State:
        found = await self._docker.call("GET", f"/exec/{self._exec_id}/json")
        return State(bool(found["Running"]), int(found["Pid"] or 0), found["ExitCode"])

    # A command that cannot be run

    async def _was_refused(self) -> bool:
        """Whether what comes out is Docker's word on why nothing runs."""
        state = await self._state()
        return state.over and not state.pid

    async def _tell_refusal(self, state: State) -> int:
        words = " ".join(self._words.decode(errors="replace").split()).removesuffix(": unknown")
        for prefix in _PREFIXES:
            words = words.removeprefix(prefix)
        code = refusals.code(words)
        if code is None or self._streams.complaints is None:
            raise CommandFailed("docker exec", state.code or 0, words)
        await self._streams.refuse(words)
        return code
