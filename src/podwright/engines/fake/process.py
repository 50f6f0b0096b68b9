"""Processes of fake containers: something that runs until it ends or a signal ends it.

One that only waits has no task and no file, at most a timer. They belong to the world: an engine that
crashes leaves them as they are.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from podwright.clock import Clock, Timer
from podwright.engines.fake.programs.context import Become, Context, OutOfMemory, Program
from podwright.engines.fake.programs.streams import BrokenPipe, Stream

if TYPE_CHECKING:
    from podwright.engines.fake.inside import Inside
    from podwright.engines.fake.world import FakeContainer, World

FOREVER = float("inf")
HARMLESS = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
"""Signals that a program takes no notice of unless it asks for them (signal(7))."""
STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
"""A stopped process still runs as far as anybody outside can see; here it does not even stop."""
NO_SIGNALS: frozenset[int] = frozenset()

log = logging.getLogger(__name__)


class Process:
    """One that a program or an exec started. `inside` is what it shares with the others of its container."""

    __slots__ = (
        "_inside",
        "_task",
        "_timer",
        "_waiting",
        "argv",
        "code",
        "fds",
        "group",
        "handlers",
        "ignored",
        "parent",
        "pid",
    )

    def __init__(self, pid: int, argv: list[str], inside: Inside | None) -> None:
        self._inside = inside
        self.pid = pid
        """As the container's processes see it."""
        self.argv = argv
        self.parent = 0
        self.group = pid
        self.code: int | None = None
        """Its exit status once it has ended."""
        self.ignored: frozenset[int] = NO_SIGNALS
        """Signals that it has decided to ignore; its children ignore them, too."""
        self.handlers: dict[int, Callable[[int], None]] | None = None
        self.fds: dict[int, Stream] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def inside(self) -> Inside:
        assert self._inside is not None, "only a process without a program has no inside"
        return self._inside

    @property
    def clock(self) -> Clock:
        return self.inside.clock

    # Running

    def idle(self, seconds: float) -> None:
        """Do nothing for so long, then end with 0."""
        if seconds < FOREVER:
            self._timer = self.clock.call_later(seconds, self.finish, 0)

    def run(self, program: Program, context: Context) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(program, context))

    async def _run(self, program: Program, context: Context) -> None:
        try:
            code = await program(context)
        except Become as other:
            self._task = None
            self.idle(other.seconds)
            return
        except BrokenPipe:
            code = 128 + signal.SIGPIPE
        except OutOfMemory:
            self.end(128 + signal.SIGKILL, oom=True)
            return
        except OSError as error:
            code = await _complained(context, error.strerror or str(error))
        except Exception:
            log.exception("program %s of a fake container", context.argv)
            code = 70  # EX_SOFTWARE: our fault, not the script's
        self.finish(code)

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        while self.code is None:
            await asyncio.shield(self.ending())
        return self.code

    def ending(self) -> asyncio.Future[None]:
        """Done when it has ended. Shared: not to be cancelled."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
            if self.code is not None:
                self._waiting.set_result(None)
        return self._waiting

    # Ending

    def signal(self, number: int) -> None:
        """As kill(2). One that has ended takes no notice."""
        if self.code is not None:
            return
        if number == signal.SIGKILL:
            self.end(128 + number)
        elif number in STOPS or number in self.ignored:
            return
        elif self.handlers and number in self.handlers:
            self.handlers[number](number)
        elif number not in HARMLESS:
            self.strike(number)

    def strike(self, number: int) -> None:
        """A signal ends it."""
        self.end(128 + number)

    def finish(self, code: int) -> None:
        """Its program has come to its end."""
        self.end(code)

    def end(self, code: int, *, oom: bool = False) -> None:
        if self.code is None:
            self.release(code)
            self.inside.gone(self)

    def release(self, code: int) -> None:
        """Whatever it holds is let go; those who wait for it are told."""
        self.code = code
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self.fds:
            for stream in self.fds.values():
                stream.close()
            self.fds = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


async def _complained(context: Context, words: str) -> int:
    try:
        await context.error(words)
    except BrokenPipe:
        return 128 + signal.SIGPIPE
    return 1


class First(Process):
    """The first process of a container: with its end the container has ended."""

    __slots__ = ("_container", "_deaf", "_scripted", "_signalled", "_stopping", "_striking", "_world")

    def __init__(
        self, world: World, container: FakeContainer, *, deaf: frozenset[int], stopping: float, scripted: bool
    ) -> None:
        """`deaf`: signals that do not reach it. `stopping`: seconds from a signal that ends it to its end.
        `scripted`: its end is the script's; if its program ends before, unasked, it waits."""
        super().__init__(1, [], container.inside)
        self._world = world
        self._container = container
        self._deaf = deaf
        self._stopping = stopping
        self._scripted = scripted
        self._signalled = False
        self._striking: Timer | None = None

    @property
    def inside(self) -> Inside:
        assert self._container.inside is not None, "only a process without a program has no inside"
        return self._container.inside

    @property
    def clock(self) -> Clock:
        return self._world.clock

    def signal(self, number: int) -> None:
        if number not in self._deaf or number == signal.SIGKILL:
            self._signalled = self._signalled or (number not in HARMLESS and number not in STOPS)
            super().signal(number)

    def strike(self, number: int) -> None:
        if self._stopping <= 0:
            self.end(128 + number)
        elif self._striking is None:
            self._striking = self.clock.call_later(self._stopping, self.end, 128 + number)

    def finish(self, code: int) -> None:
        if self._scripted and not self._signalled:
            self._task = None
            return
        self.end(code)

    def end(self, code: int, *, oom: bool = False) -> None:
        if self.code is None:
            self._world.ended(self._container, code, oom=oom)

    def release(self, code: int) -> None:
        super().release(code)
        if self._striking is not None:
            self._striking.cancel()
