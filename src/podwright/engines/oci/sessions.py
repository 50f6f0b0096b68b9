"""Programs run inside a container for a client that reads and writes their streams meanwhile (exec)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from io import FileIO
from typing import Any

import msgspec

from podwright.engines import refusals
from podwright.engines.node import flow
from podwright.engines.oci import conmon, executions
from podwright.engines.oci.executions import Execution, Files, Place
from podwright.engines.streams import Size, Streams
from podwright.errors import CommandFailed
from podwright.linux import terminals
from podwright.linux.waiting import to_the_end

KIND = "session"
"""How the names of a session's files begin."""
START_GRACE = 10.0
"""Seconds that a start may take to end after its client has vanished: what is half started cannot be told
to go."""
HANGUP_GRACE = 5.0
"""Seconds that a program has to end itself after SIGHUP."""
KILL_GRACE = 5.0
"""Seconds that its end may take to be reported after SIGKILL."""


async def run(place: Place, argv: Sequence[str], streams: Streams, *, patient: bool = True) -> int:
    """Run `argv` in the container as its own process, connected with `streams`; its exit code.

    A command that cannot be found or executed has 127 or 126 for a code, and the reason on its standard
    error. When cancelled, and when a stream fails, the program is hung up as a closed terminal does it: its
    streams end, it gets SIGHUP, and SIGKILL if it stays; if not `patient`, SIGKILL comes at once, and nobody
    is waited for but the program itself.
    Raises CommandFailed when the runtime could not start it, FileNotFoundError when there is no bundle.
    """
    window = _Window()
    sizing = asyncio.ensure_future(window.follow(streams.sizes)) if streams.tty and streams.sizes else None
    try:
        await asyncio.sleep(0)  # the first size is mostly there: the program shall see it from its start
        process = executions.process_of(place.bundle, argv, terminal=streams.tty)
        if window.size is not None:
            process["consoleSize"] = {"width": window.size.width, "height": window.size.height}
        with executions.files(place, KIND) as files:
            files.process.write_bytes(msgspec.json.encode(process))
            async with AsyncExitStack() as stack:
                session = _Session(place, files, streams, window, patient)
                stack.callback(session.close)
                return await (session.terminal(stack) if streams.tty else session.pipes(stack))
    finally:
        if sizing is not None:
            sizing.cancel()
            await asyncio.wait([sizing])


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
    def __init__(self, place: Place, files: Files, streams: Streams, window: _Window, patient: bool) -> None:
        self._place = place
        self._named = files
        self._patient = patient
        self._grace = flow.GRACE if patient else 0.0
        self._streams = streams
        self._window = window
        self._files: list[FileIO] = []
        self._receiving: asyncio.Task[FileIO] | None = None
        self._flows: list[asyncio.Task[None]] = []
        self._outward: list[asyncio.Task[None]] = []

    async def pipes(self, stack: AsyncExitStack) -> int:
        """The program's streams are pipes of its own."""
        streams = self._streams
        with _theirs() as theirs:
            stdin, to = self._pipe(theirs, outward=False) if streams.stdin else (subprocess.DEVNULL, None)
            stdout, out = self._pipe(theirs) if streams.stdout else (subprocess.DEVNULL, None)
            stderr, errors = self._pipe(theirs)
            execution = await stack.enter_async_context(
                executions.running(self._place, self._named, stdin=stdin, stdout=stdout, stderr=stderr)
            )
        try:
            if to is not None and streams.stdin is not None:
                self._flow(flow.inward(streams.stdin, to))
            if out is not None:
                self._flow(flow.outward(out, streams.stdout, execution.ended, self._grace), outward=True)
            await self._until(execution.started)
            if not execution.started.result():
                return await self._refused(errors)
            # Only now: until it had been started, what was said there was said by the runtime.
            self._flow(flow.outward(errors, streams.stderr, execution.ended, self._grace), outward=True)
            return await self._end(execution)
        except BaseException:
            await to_the_end(self._hang_up(execution))
            raise

    async def terminal(self, stack: AsyncExitStack) -> int:
        """The program's streams are a terminal that the runtime makes."""
        streams = self._streams
        console = await stack.enter_async_context(terminals.console(self._named.console))
        with _theirs() as theirs:
            stderr, errors = self._pipe(theirs)
            execution = await stack.enter_async_context(
                executions.running(
                    self._place, self._named, stderr=stderr, options=["--console-socket", console.path]
                )
            )
        try:
            # Not cancelled with us: a terminal dropped on its way is a hang-up in the middle of the start.
            receiving = self._receiving = asyncio.ensure_future(self._receive(console))
            either: list[asyncio.Future[Any]] = [receiving, execution.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done() and console.called:
                # A busy loop may see a quick end before the terminal, which was sent first: the words of a
                # runtime that could not execute anything may be in there.
                await asyncio.wait([receiving], timeout=START_GRACE)
            if not receiving.done():
                return await self._refused(errors)
            master = receiving.result()
            terminals.return_carriages(master.fileno())
            self._window.show_on(master)
            if streams.stdin is not None:
                farewell = terminals.end_of_file(master.fileno()) or b"\4"
                self._flow(flow.inward(streams.stdin, master, farewell=farewell))
            await self._until(execution.started)
            if not execution.started.result():
                return await self._refused(errors, master)
            # Only now: until it had been started, what was said there was said by the runtime.
            output = flow.outward(master, streams.stdout, execution.ended, self._grace)
            self._flow(output, outward=True)
            return await self._end(execution)
        except BaseException:
            await to_the_end(self._hang_up(execution))
            raise

    def close(self) -> None:
        self._window.terminal = None
        for file in self._files:
            file.close()

    async def _receive_no_more(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait([self._receiving])

    async def _receive(self, console: terminals.Console) -> FileIO:
        master = await console.receive()
        self._files.append(master)
        return master

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

    async def _refused(self, *said: FileIO) -> int:
        """The code that tells what the runtime could not start, of which it `said` why there; raises
        CommandFailed when no code does."""
        await self._receive_no_more()
        await self._stop()
        text = b"".join(flow.at_hand(each) for each in said)
        words = conmon.plain_words(text.decode(errors="replace"))
        code = refusals.code(words)
        if code is None or self._streams.complaints is None:
            raise CommandFailed(self._place.runtime.kind, 1, words)
        await self._streams.refuse(words)
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
            # One that dies in the middle of its start nobody reaps: the runtime fails then, and conmon.
            await asyncio.wait([execution.started], timeout=START_GRACE)
        await self._receive_no_more()
        self._close_inputs()
        # Nobody listens any more, but a broken pipe would end it in the middle of what it does on SIGHUP.
        for file in self._files:
            if not file.closed and file.readable():
                self._flow(flow.outward(file, None, execution.ended, 0.0))
        if not execution.ended.done() and self._patient:
            await self._signal(execution, signal.SIGHUP)
            await asyncio.wait([execution.ended], timeout=HANGUP_GRACE)
        if not execution.ended.done() or execution.ended.result() == executions.UNKNOWN:
            await self._signal(execution, signal.SIGKILL)
            await asyncio.wait([execution.ended], timeout=KILL_GRACE)
        await self._stop()

    async def _signal(self, execution: Execution, number: int) -> None:
        if self._place.runtime.sandboxed:
            await executions.signal_inside(self._place, self._named.inner, number)
            if number != signal.SIGKILL:
                return  # by itself the one that waits for it here would go, and leave it there
        execution.signal(number)

    def _close_inputs(self) -> None:
        """Stdin, and the terminal, which is the end of both directions."""
        self._window.terminal = None
        for file in self._files:
            if not file.closed and file.writable():
                file.close()


@contextmanager
def _theirs() -> Iterator[list[int]]:
    """Files for a child: they are closed here once it has them."""
    files: list[int] = []
    try:
        yield files
    finally:
        for each in files:
            os.close(each)
