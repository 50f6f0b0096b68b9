"""A terminal in memory: what a pseudo-terminal's line discipline does between a user and programs.

Lines are edited before a program gets them, keys become signals, what is typed is echoed, and newlines get
carriage returns (termios(3)). The user's side feeds keys and has a screen; programs have a stream.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from podwright.engines.fake.programs.streams import Stream

NAME = "/dev/pts/0"
LONGEST_LINE = 4095
"""Bytes of a line that is not complete; what is typed beyond is dropped, as the kernel drops it."""
ROOM = 4096
"""Bytes of input that wait for programs; then the user waits."""
_SIGNALS = {0x03: signal.SIGINT, 0x1C: signal.SIGQUIT, 0x1A: signal.SIGTSTP}
_END, _ERASE, _WORD_ERASE, _KILL = 0x04, 0x7F, 0x17, 0x15
_NEWLINE, _RETURN, _TAB = 0x0A, 0x0D, 0x09
_PLAIN = (_NEWLINE, _TAB)


class Screen(Protocol):
    """Where the user sees what programs write, and what is typed."""

    def put(self, data: bytes, /) -> Awaitable[None]: ...

    def offer(self, data: bytes, /) -> object:
        """If there is room: an echo that does not fit is lost."""


@dataclass(slots=True)
class Modes:
    """As of a new pseudo-terminal; the names are those of stty(1)."""

    icanon: bool = True
    echo: bool = True
    isig: bool = True
    icrnl: bool = True
    opost: bool = True
    onlcr: bool = True


class Terminal:
    def __init__(self, screen: Screen, signal: Callable[[int], None]) -> None:
        """`signal` goes to the processes in the foreground."""
        self._screen = screen
        self._signal = signal
        self.modes = Modes()
        self.columns = self.rows = 0
        self.stream = TerminalStream(self)
        """What programs have open."""
        self._line = bytearray()
        """Typed, and not complete."""
        self._input: deque[bytes] = deque()
        """Lines, or in raw mode bytes; b"" is an end of input."""
        self._hung_up = False
        self._waiting: list[asyncio.Future[None]] = []

    # The user's side

    async def feed(self, data: bytes) -> None:
        """Keys that the user has typed. Returns when programs have room for more."""
        for start in range(0, len(data), ROOM):
            while sum(map(len, self._input)) >= ROOM and not self._hung_up:
                await self._changed()
            self._type(data[start : start + ROOM])

    def end_input(self) -> None:
        """The user types no more. Programs that read lines see an end, after what was typed last."""
        if not self.modes.icanon:
            self._give(bytes([_END]))
            return
        if self._line:
            self._complete()
        self._give(b"")

    def resize(self, columns: int, rows: int) -> None:
        if (columns, rows) != (self.columns, self.rows):
            self.columns, self.rows = columns, rows
            self._signal(signal.SIGWINCH)

    def hang_up(self) -> None:
        """The user is gone: nothing is to be read or written any more."""
        if not self._hung_up:
            self._hung_up = True
            self._input.clear()
            self._wake()
            self._signal(signal.SIGHUP)

    def _type(self, data: bytes) -> None:
        raw, echo = bytearray(), bytearray()
        for key in data:
            if self.modes.isig and key in _SIGNALS:
                raw.clear()
                self._line.clear()
                self._input.clear()
                # It is shown before it strikes: whoever it ends may take the screen along.
                self._show(echo + _echo(key))
                echo.clear()
                self._signal(_SIGNALS[key])
                continue
            if self.modes.icrnl and key == _RETURN:
                key = _NEWLINE
            if self.modes.icanon:
                echo += self._edit(key)
            else:
                raw.append(key)
                echo += _echo(key)
        if raw:
            self._give(bytes(raw))
        self._wake()
        self._show(echo)

    def _show(self, echo: bytearray) -> None:
        if echo and self.modes.echo:
            self._screen.offer(self._shown(bytes(echo)))

    def _edit(self, key: int) -> bytes:
        """What the key shows."""
        line = self._line
        if key == _NEWLINE:
            line.append(key)
            self._complete()
            return b"\n"
        if key == _END:
            if line:
                self._complete()
            else:
                self._give(b"")
            return b""
        if key == _ERASE:
            return self._erase(min(1, len(line)))
        if key == _KILL:
            return self._erase(len(line))
        if key == _WORD_ERASE:
            kept = len(line)
            while kept and not _in_word(line[kept - 1]):
                kept -= 1
            while kept and _in_word(line[kept - 1]):
                kept -= 1
            return self._erase(len(line) - kept)
        if len(line) < LONGEST_LINE:
            line.append(key)
        return _echo(key)

    def _erase(self, count: int) -> bytes:
        erased = self._line[len(self._line) - count :]
        del self._line[len(self._line) - count :]
        return b"\b \b" * sum(len(_echo(each)) for each in erased)

    def _complete(self) -> None:
        self._give(bytes(self._line))
        self._line.clear()

    def _give(self, data: bytes) -> None:
        self._input.append(data)
        self._wake()

    # The programs' side

    async def read(self, size: int, line: bool) -> bytes:
        while not self._input:
            if self._hung_up:
                return b""
            await self._changed()
        found = self._input.popleft()
        end = min(size, len(found))
        if line:
            end = found.find(b"\n", 0, end) + 1 or end
        if rest := found[end:]:
            self._input.appendleft(rest)
        self._wake()
        return found[:end]

    async def write(self, data: bytes) -> None:
        if self._hung_up:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        await self._screen.put(self._shown(data))

    def change(self, modes: Modes) -> None:
        self.modes = modes
        if not modes.icanon and self._line:
            self._complete()

    def _shown(self, data: bytes) -> bytes:
        return data.replace(b"\n", b"\r\n") if self.modes.opost and self.modes.onlcr else data

    async def _changed(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)


class TerminalStream(Stream):
    """A program's end of a terminal, both to be read and to be written."""

    __slots__ = ("tty",)

    def __init__(self, tty: Terminal) -> None:
        super().__init__()
        self.tty = tty

    @property
    def terminal(self) -> bool:
        return True

    async def read(self, size: int, *, line: bool = False) -> bytes:
        return await self.tty.read(size, line)

    async def write(self, data: bytes) -> None:
        if data:
            await self.tty.write(data)


def _echo(key: int) -> bytes:
    return b"^%c" % (key ^ 0x40) if (key < 0x20 and key not in _PLAIN) or key == 0x7F else bytes([key])


def _in_word(key: int) -> bool:
    return (chr(key).isalnum() and key < 0x80) or key == 0x5F
