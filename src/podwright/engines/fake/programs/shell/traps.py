"""Signals that a shell catches: what it runs then, and how they end its waiting."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from podwright.engines.fake.programs.shell.flow import Interrupted

if TYPE_CHECKING:
    from podwright.engines.fake.process import Process

T = TypeVar("T")


class Traps:
    def __init__(self, process: Process) -> None:
        self._process = process
        self.scripts: dict[int, str] = {}
        """By number of the signal, 0 for the end of the shell; "" ignores it."""
        self._pending: list[int] = []
        self._interrupted: asyncio.Future[None] | None = None
        self._running = False
        self._own: dict[int, Callable[[int], None]] = {}
        """What the shell itself does on signals that have no script."""

    def converse(self) -> None:
        """Somebody types the commands: SIGINT ends what runs, not the shell; other keys do nothing to it."""
        self._own = {
            signal.SIGINT: self._catch,
            signal.SIGQUIT: lambda number: None,
            signal.SIGTERM: lambda number: None,
        }
        process = self._process
        process.handlers = {**self._own, **(process.handlers or {})}

    def set(self, number: int, script: str | None) -> None:
        """None: as it was at the beginning."""
        process = self._process
        handlers = process.handlers = process.handlers if process.handlers is not None else {}
        handlers.pop(number, None)
        process.ignored = process.ignored - {number}
        self.scripts.pop(number, None)
        if script is None:
            if number in self._own:
                handlers[number] = self._own[number]
            return
        self.scripts[number] = script
        if number and script:
            handlers[number] = self._catch
        elif number:
            process.ignored = process.ignored | {number}

    def inherited(self) -> dict[int, str]:
        """What a subshell has of them: a signal that is ignored stays so."""
        return {number: "" for number, script in self.scripts.items() if number and not script}

    def _catch(self, number: int) -> None:
        if number not in self._pending:
            self._pending.append(number)
        if self._interrupted is not None and not self._interrupted.done():
            self._interrupted.set_result(None)

    @property
    def pending(self) -> int:
        """The signal that came first and was not answered yet; 0: none."""
        return self._pending[0] if self._pending else 0

    def take(self) -> str:
        """The script that is due; "": none. A trap is not interrupted by another one. Interrupted."""
        while self._pending and not self._running:
            number = self._pending.pop(0)
            if script := self.scripts.get(number):
                return script
            if number in self._own:
                raise Interrupted
        return ""

    @contextmanager
    def running(self) -> Iterator[None]:
        self._running = True
        try:
            yield
        finally:
            self._running = False

    async def wait_for(self, processes: Sequence[Process]) -> int:
        """The status of the last one when all have ended; 128 and its number when a signal comes before."""
        while True:
            if self.pending:
                return 128 + self.pending
            living = [each for each in processes if each.code is None]
            if not living:
                return processes[-1].code or 0 if processes else 0
            await self._wait([each.ending() for each in living])

    async def unless_caught(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` gives; None, and it is cancelled, when a signal comes before."""
        if not self._process.handlers:
            return await work
        task = asyncio.ensure_future(work)
        try:
            while not task.done() and not self.pending:
                await self._wait([task])
            return task.result() if task.done() else None
        finally:
            task.cancel()

    async def _wait(self, futures: Sequence[asyncio.Future[Any]]) -> None:
        self._interrupted = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._interrupted, *futures], return_when=asyncio.FIRST_COMPLETED)
