"""Programs run inside a container for a client that reads and writes their streams meanwhile (exec)."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from podwright.engines.oci import conmon, exec, executions, flow
from podwright.engines.oci.executions import Execution
from podwright.engines.oci.runtimes import Runtime
from podwright.engines.streams import Size, Streams
from podwright.errors import CommandFailed
from podwright.linux import spawn, terminals
from podwright.linux.waiting import to_the_end

START_GRACE = 10.0
"""Seconds that a start may take to end after its client has vanished: what is half started cannot be told
to go."""
HANGUP_GRACE = 5.0
"""Seconds that a program has to end itself after SIGHUP."""
KILL_GRACE = 5.0
"""Seconds that its end may take to be reported after SIGKILL."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes by which shells tell a command that is not there from one that cannot be run."""


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


async def run(place: Place, argv: Sequence[str], streams: Streams) -> int:
    """Run `argv` in the container as its own process, connected with `streams`; its exit code.

    A command that cannot be found or executed has 127 or 126 for a code, and the reason on its
    standard error.
    When cancelled, and when a stream fails, the program is hung up as a closed terminal does it: its streams
    end, it gets SIGHUP, and SIGKILL if it stays.
    Raises CommandFailed when the runtime could not start it, FileNotFoundError when there is no bundle.
    """
    # Never a name again: a pid file that a killed podwright left would name a stranger by now.
    stem = place.bundle / f"session-{secrets.token_hex(8)}"
    process, pidfile, inner = (stem.with_suffix(each) for each in (".json", ".pid", ".inner"))
    options = ["--internal-pid-file", str(inner)] if place.runtime.sandboxed else []
    window = _Window()
    sizing = asyncio.ensure_future(window.follow(streams.sizes)) if streams.tty and streams.sizes else None
    try:
        await asyncio.sleep(0)  # the first size is mostly there: the program shall see it from its start
        spec = exec.process_of(place.bundle, argv, terminal=streams.tty)
        if window.size is not None:
            spec["consoleSize"] = {"width": window.size.width, "height": window.size.height}
        process.write_bytes(msgspec.json.encode(spec))
        async with AsyncExitStack() as stack:
            session = _Session(place, stem, inner, streams, window)
            stack.callback(session.close)
            connect = session.terminal if streams.tty else session.pipes
            return await connect(stack, options)
    finally:
        if sizing is not None:
            sizing.cancel()
            await asyncio.wait([sizing])
        for file in (process, pidfile, inner):
            file.unlink(missing_ok=True)


class _Window:
    """The client's terminal: its size, which the program's follows."""

    def __init__(self) -> None:
        self.size: Size | None = None
        self.terminal: FileIO | None = None

    async def follow(self, sizes: AsyncIterator[Size]) -> None:
        async for size in sizes:
            if size.width > 0 and size.height > 0:
                self.size = size
                if self.terminal is not None:
                    terminals.set_size(self.terminal.fileno(), size.width, size.height)

    def show_on(self, terminal: FileIO) -> None:
        self.terminal = terminal
        if self.size is not None:
            terminals.set_size(terminal.fileno(), self.size.width, self.size.height)


class _Session:
    def __init__(self, place: Place, stem: Path, inner: Path, streams: Streams, window: _Window) -> None:
        self._place = place
        self._stem = stem
        self._inner = inner
        self._streams = streams
        self._window = window
        self._files: list[FileIO] = []
        self._flows: list[asyncio.Task[None]] = []
        self._outward: list[asyncio.Task[None]] = []

    async def pipes(self, stack: AsyncExitStack, options: Sequence[str]) -> int:
        """The program's streams are pipes of its own."""
        streams = self._streams
        with _theirs() as theirs:
            stdin, to = self._pipe(theirs, outward=False) if streams.stdin else (subprocess.DEVNULL, None)
            stdout, out = self._pipe(theirs) if streams.stdout else (subprocess.DEVNULL, None)
            stderr, errors = self._pipe(theirs)
            execution = await stack.enter_async_context(
                self._running(stdin=stdin, stdout=stdout, stderr=stderr, options=options)
            )
        try:
            if to is not None and streams.stdin is not None:
                self._flow(flow.inward(streams.stdin, to))
            if out is not None:
                self._flow(flow.outward(out, streams.stdout, execution.ended), outward=True)
            await self._until(execution.started)
            if not execution.started.result():
                return await self._refused(errors)
            # Only now: until it had been started, what was said there was said by the runtime.
            self._flow(flow.outward(errors, streams.stderr, execution.ended), outward=True)
            return await self._end(execution)
        except BaseException:
            await to_the_end(self._hang_up(execution))
            raise

    async def terminal(self, stack: AsyncExitStack, options: Sequence[str]) -> int:
        """The program's streams are a terminal that the runtime makes."""
        streams = self._streams
        console = await stack.enter_async_context(terminals.console(self._stem.with_suffix(".console")))
        with _theirs() as theirs:
            stderr, errors = self._pipe(theirs)
            execution = await stack.enter_async_context(
                self._running(stderr=stderr, options=[*options, "--console-socket", console.path])
            )
        try:
            receiving = asyncio.ensure_future(console.receive())
            try:
                either: list[asyncio.Future[Any]] = [receiving, execution.ended]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    return await self._refused(errors)
                master = receiving.result()
            finally:
                if not receiving.done():
                    receiving.cancel()
                    await asyncio.wait([receiving])
            self._files.append(master)
            terminals.return_carriages(master.fileno())
            self._window.show_on(master)
            if streams.stdin is not None:
                farewell = terminals.end_of_file(master.fileno()) or b"\4"
                self._flow(flow.inward(streams.stdin, master, farewell=farewell))
            output = flow.outward(master, streams.stdout, execution.ended)
            self._flow(output, outward=True)
            await self._until(execution.started)
            if not execution.started.result():
                return await self._refused(errors)
            return await self._end(execution)
        except BaseException:
            await to_the_end(self._hang_up(execution))
            raise

    def close(self) -> None:
        self._window.terminal = None
        for file in self._files:
            file.close()

    def _running(
        self,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int,
        options: Sequence[str],
    ) -> AbstractAsyncContextManager[Execution]:
        place, stem = self._place, self._stem
        return executions.running(
            place.supervisor,
            place.runtime.argv(),
            place.id,
            stem.with_suffix(".json"),
            stem.with_suffix(".pid"),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            options=options,
        )

    def _pipe(self, theirs: list[int], *, outward: bool = True) -> tuple[int, FileIO]:
        """The program's end, which is closed with `theirs`, and ours."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        their, our = (writing, reading) if outward else (reading, writing)
        theirs.append(their)
        file = FileIO(our, "r" if outward else "w")
        self._files.append(file)
        os.set_blocking(our, False)
        # The runtimes see to that, but cannot in a user namespace in which we, its owner, have no number.
        os.fchown(our, *self._place.owner)
        flow.widen(our)
        return their, file

    def _flow(self, work: Coroutine[Any, Any, None], *, outward: bool = False) -> None:
        task = asyncio.ensure_future(work)
        (self._outward if outward else self._flows).append(task)

    async def _until(self, *futures: asyncio.Future[Any]) -> None:
        """Wait for all of them; raises what a stream raises meanwhile."""
        waited = {*futures, *self._outward, *self._flows}
        while not all(each.done() for each in futures):
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()

    async def _end(self, execution: Execution) -> int:
        """Wait for the program's end, and until its output is with the client."""
        await self._until(execution.ended)
        code = execution.ended.result()
        if code == executions.UNKNOWN:
            raise CommandFailed("conmon", -signal.SIGKILL, "it was to tell how the command ends")
        await self._until(*self._outward)
        await self._stop()
        return code

    async def _refused(self, errors: FileIO) -> int:
        """The code that tells what the runtime could not start; raises CommandFailed when no code does."""
        await self._stop()
        words = conmon.plain_words((errors.read(spawn.READ_SIZE) or b"").decode(errors="replace"))
        code = _code(words)
        streams = self._streams
        sink = streams.stdout if streams.tty else streams.stderr
        if code is None or sink is None:
            raise CommandFailed(self._place.runtime.kind, 1, words)
        try:
            await sink.write(f"{words}\r\n".encode() if streams.tty else f"{words}\n".encode())
        except BrokenPipeError:
            pass
        for each in (streams.stdout, streams.stderr):
            if each is not None:
                await each.close()
        return code

    async def _stop(self) -> None:
        flows = [*self._flows, *self._outward]
        for each in flows:
            each.cancel()
        if flows:
            await asyncio.wait(flows)

    async def _hang_up(self, execution: Execution) -> None:
        await self._stop()
        if not execution.started.done():
            await asyncio.wait([execution.started], timeout=START_GRACE)
        self.close()
        if not execution.ended.done():
            execution.signal(signal.SIGHUP)
            await asyncio.wait([execution.ended], timeout=HANGUP_GRACE)
        if execution.ended.done() and execution.ended.result() != executions.UNKNOWN:
            return
        if self._place.runtime.sandboxed:
            await exec.end_inside(self._place.runtime, self._place.id, self._inner)
        execution.signal(signal.SIGKILL)
        await asyncio.wait([execution.ended], timeout=KILL_GRACE)


@contextmanager
def _theirs() -> Iterator[list[int]]:
    """Files for a child: they are closed here once it has them."""
    files: list[int] = []
    try:
        yield files
    finally:
        for each in files:
            os.close(each)


_ABSENT = re.compile(
    r"executable file .*not found|executable file .*no such file|exec: .*: no such file or directory"
    r"|failed to load .*: no such file or directory|finding executable",
    re.IGNORECASE | re.DOTALL,
)
_UNFIT = re.compile(
    r"open executable: |exec: .*: (permission denied|is a directory)|exec format error"
    r"|failed to load .*: (permission denied|exec format error|is a directory)",
    re.IGNORECASE | re.DOTALL,
)


def _code(words: str) -> int | None:
    """What crun, runc and gVisor say when there is no such command, or it is none."""
    if _ABSENT.search(words):
        return NOT_FOUND
    return NOT_EXECUTABLE if _UNFIT.search(words) else None
