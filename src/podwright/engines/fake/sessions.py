"""Programs that a client runs in a fake container, and whose streams it reads and writes meanwhile (exec)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from podwright.clock import SETTLE
from podwright.engines.base import Container
from podwright.engines.fake import flow
from podwright.engines.fake.connections import Connections
from podwright.engines.fake.execution import entered, program_of, refusal
from podwright.engines.fake.inside import Inside
from podwright.engines.fake.process import Process
from podwright.engines.fake.programs.streams import Pipe, Stream
from podwright.engines.fake.programs.terminal import Terminal
from podwright.engines.fake.world import FakeContainer, World
from podwright.engines.streams import Sink, Streams
from podwright.errors import CommandFailed

HANGUP_GRACE = 5.0
"""Seconds, by the world's clock, that a program has to end itself after SIGHUP."""


async def run(
    world: World,
    made: FakeContainer,
    container: Container,
    argv: Sequence[str],
    streams: Streams,
    connections: Connections,
) -> int:
    """As `Engine.exec`. When `connections` are cut the program lives on, with streams that nobody has."""
    inside = entered(world, made, container)
    found = program_of(world, inside, list(argv))
    if found is None:
        return await _refused(inside, argv[0], streams)
    ends: _Ends = _Terminal(inside, streams) if streams.tty else _Pipes(streams)
    tasks: list[asyncio.Task[Any]] = []
    process: Process | None = None
    with connections.join(ends.cut):
        try:
            tasks += map(asyncio.ensure_future, ends.before())
            if tasks:
                await asyncio.sleep(0)  # the first size is mostly there: the program shall see it
            program, words = found
            process = inside.spawn(program, words, ends.fds, env=ends.environment(inside))
            ends.start(process)
            tasks += map(asyncio.ensure_future, ends.inward())
            outward = [asyncio.ensure_future(each) for each in ends.outward()]
            tasks += outward
            await _until([process.ending()], tasks)
            await ends.settle()
            await _until(outward, outward)
        except BaseException:
            if not connections.are_cut:
                ends.hang_up()
                if process is not None and process.code is None:
                    _hang_up(world, process)
            raise
        finally:
            await flow.stop(tasks)
    assert process.code is not None
    return process.code


def _hang_up(world: World, process: Process) -> None:
    """Its streams are gone already. It need not be waited for: it belongs to the world."""
    inside = process.inside
    inside.signal_group(process.group, signal.SIGHUP)
    if process.code is None:
        timer = world.clock.call_later(HANGUP_GRACE, inside.signal_group, process.group, signal.SIGKILL)
        process.ending().add_done_callback(lambda _: timer.cancel())


async def _refused(inside: Inside, name: str, streams: Streams) -> int:
    """The code of a command that cannot be run, with the reason on its standard error."""
    code, words = refusal(inside, name)
    if streams.complaints is None:
        raise CommandFailed("fake", code, words)
    await streams.refuse(words)
    return code


async def _until(futures: Sequence[asyncio.Future[Any]], tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for all `futures`; raises what one of `tasks` raises meanwhile."""
    waited = {*futures, *tasks}
    while not all(each.done() for each in futures):
        done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    for each in futures:
        each.result()


Flows = list[Coroutine[Any, Any, None]]


class _Ends(Protocol):
    """Both ends of a program's streams."""

    fds: dict[int, Stream]
    """What the program has."""

    def environment(self, inside: Inside) -> dict[str, str]: ...
    def before(self) -> Flows: ...
    def start(self, process: Process) -> None: ...
    def inward(self) -> Flows: ...
    def outward(self) -> Flows: ...

    async def settle(self) -> None:
        """The program has ended: nothing comes out any more but what is on its way, whoever else could
        write."""

    def hang_up(self) -> None:
        """The client is gone."""

    def cut(self) -> None:
        """Who held the client's ends is gone."""


class _Pipes:
    def __init__(self, streams: Streams) -> None:
        self._source = streams.stdin
        self._input = Pipe() if streams.stdin is not None else None
        self._outputs: list[tuple[Pipe, Sink]] = []
        self.fds = {0: self._input.reader if self._input is not None else Stream()}
        for fd, sink in ((1, streams.stdout), (2, streams.stderr)):
            if sink is None:
                self.fds[fd] = Stream()
                continue
            pipe = Pipe()
            self._outputs.append((pipe, sink))
            self.fds[fd] = pipe.writer

    def environment(self, inside: Inside) -> dict[str, str]:
        return dict(inside.command.env)

    def before(self) -> Flows:
        return []

    def start(self, process: Process) -> None:
        pass

    def inward(self) -> Flows:
        if self._source is None or self._input is None:
            return []
        return [flow.inward(self._source, self._input.writer)]

    def outward(self) -> Flows:
        return [flow.outward(pipe, sink) for pipe, sink in self._outputs]

    async def settle(self) -> None:
        # What it has started in the background may be about to say something.
        for _ in range(SETTLE):
            if all(pipe.ended for pipe, _ in self._outputs):
                break
            await asyncio.sleep(0)
        for pipe, _ in self._outputs:
            pipe.finish()

    def hang_up(self) -> None:
        if self._input is not None:
            self._input.finish()
        for pipe, _ in self._outputs:
            # A broken pipe would end it in the middle of what it does on SIGHUP.
            pipe.discard()

    def cut(self) -> None:
        if self._input is not None:
            self._input.finish()
        for pipe, _ in self._outputs:
            pipe.abandon()


class _Terminal:
    def __init__(self, inside: Inside, streams: Streams) -> None:
        self._inside = inside
        self._streams = streams
        self._screen = Pipe()
        self._group = 0
        self._terminal = Terminal(self._screen, self._signal)
        stream = self._terminal.stream
        self.fds: dict[int, Stream] = {0: stream, 1: stream.share(), 2: stream.share()}

    def environment(self, inside: Inside) -> dict[str, str]:
        return {"TERM": "xterm", **inside.command.env}

    def before(self) -> Flows:
        sizes = self._streams.sizes
        return [flow.follow(self._terminal, sizes)] if sizes is not None else []

    def start(self, process: Process) -> None:
        self._group = process.group

    def inward(self) -> Flows:
        source = self._streams.stdin
        return [flow.typed(source, self._terminal)] if source is not None else []

    def outward(self) -> Flows:
        if self._streams.stdout is None:
            self._screen.discard()
            return []
        return [flow.outward(self._screen, self._streams.stdout, unseen=True)]

    async def settle(self) -> None:
        self._screen.finish()

    def hang_up(self) -> None:
        self._screen.discard()
        self._terminal.hang_up()

    cut = hang_up

    def _signal(self, number: int) -> None:
        if self._group:
            self._inside.signal_group(self._group, number)
