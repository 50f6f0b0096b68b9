"""The user's terminal while a program in a container has it: raw, its size told, and given back as it was.

Whatever ends the session, an error or a signal included, the terminal gets its settings back: the context
manager restores them, and signals that would end this program cancel the task instead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from podwright.engines.streams import Size, Source
from podwright.errors import InvalidArgument

DETACH_KEYS = "ctrl-p,ctrl-q"


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal `fd` hands on every key, and prints what it gets, until the block is left.

    After a stop and a continuation from outside (a shell has had the terminal meanwhile) it is raw again.
    """
    before = termios.tcgetattr(fd)
    loop = asyncio.get_running_loop()
    # First the handler: who stops it as soon as the terminal is raw finds it raw again, too.
    loop.add_signal_handler(signal.SIGCONT, tty.setraw, fd, termios.TCSANOW)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        try:
            # What the user has typed ahead belongs to the shell: DRAIN, not FLUSH.
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        except termios.error:
            pass  # the terminal has gone


async def sizes(fd: int) -> AsyncIterator[Size]:
    """The size of the terminal `fd`, now and whenever it changes."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    last = None
    try:
        while True:
            changed.clear()
            try:
                found = os.get_terminal_size(fd)
            except OSError:
                return  # the terminal has gone
            size = Size(found.columns, found.lines)
            # A terminal that nobody has told its size says 0 x 0.
            if size != last and size.width > 0 and size.height > 0:
                yield size
                last = size
            await changed.wait()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP cancel the current task inside the block, so that it cleans up; the list has the
    signal then. (asyncio does so for SIGINT.)"""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    seen: list[int] = []

    def end(number: int) -> None:
        seen.append(number)
        task.cancel()

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        yield seen
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def keys(text: str) -> bytes:
    """The bytes of "ctrl-p,ctrl-q": keys separated by commas, each one character or ctrl- and one of
    a-z @ [ \\ ] ^ _; "" is none. InvalidArgument for anything else."""
    typed = bytearray()
    for key in text.split(",") if text else ():
        control = key.lower().removeprefix("ctrl-") if key.lower().startswith("ctrl-") else ""
        if len(control) == 1 and control in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            typed.append(ord(control.upper()) & 0x1F)
        elif len(key) == 1 and key.isascii():
            typed += key.encode()
        else:
            raise InvalidArgument("--detach-keys", f"{key!r} is neither one character nor ctrl- and a letter")
    return bytes(typed)


class Watched:
    """A `Source` in which the detach keys are looked for. When they were typed `detached` is set, and nothing
    comes any more: an end of the stream would end the program's input, too."""

    def __init__(self, source: Source, keys: bytes) -> None:
        self.detached = asyncio.Event()
        self._source = source
        self._keys = keys
        self._held = b""
        """The beginning of the keys, which may go on."""
        self._over = False

    async def read(self) -> bytes:
        while True:
            if self._over:
                self.detached.set()
                await asyncio.Event().wait()
            data = await self._source.read()
            if not data:
                held, self._held = self._held, b""
                return held
            text = self._held + data
            if self._keys and self._keys in text:
                self._over = True
                if before := text.partition(self._keys)[0]:
                    return before
                continue
            keep = next((n for n in range(len(self._keys) - 1, 0, -1) if text.endswith(self._keys[:n])), 0)
            self._held = text[len(text) - keep :]
            if passed := text[: len(text) - keep]:
                return passed
