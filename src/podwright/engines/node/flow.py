"""Bytes on their way between a process and a client: read as they come, written as they are taken.

Neither side is read faster than the other one takes it, and nothing is copied but by the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
from io import FileIO

from podwright.engines.streams import Sink, Source
from podwright.linux.readiness import readable, write_all
from podwright.linux.spawn import MAX_PIPE

SMALL, LARGE = 1 << 16, 1 << 18
"""Bytes read at a time, at first and when there is always more."""
GRACE = 1.0
"""Seconds after the process's end in which others who hold its output (a `tee` behind it) may end as well.
A daemonised child must not keep a session open for ever."""
_REOPENED = 0.1
"""Seconds after which a terminal that nobody has open is looked at again: opening it wakes nobody."""


def widen(pipe: int) -> None:
    """Give a pipe as much room as it may have: fewer turns for a gigabyte. Refused: it stays as it is."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, MAX_PIPE)
    except PermissionError:
        pass


async def outward(file: FileIO, sink: Sink | None, ended: asyncio.Future[int], grace: float = GRACE) -> None:
    """Hand on what comes out of `file`, a pipe or a terminal, up to its end; closes the sink then, and a
    pipe.

    Once the process has `ended` all that it wrote still goes to the client, however slowly that reads; what
    others write who hold the file for more than `grace` seconds is dropped. Without a sink everything is.
    When the client does not read this stream any more, who writes to the pipe is told by its being broken;
    a terminal is read on, for it is more than an output. When cancelled both stay open.
    """
    terminal = file.isatty()
    try:
        await _pass_on(file, sink, ended, grace)
    except BrokenPipeError:
        if terminal:
            await _pass_on(file, None, ended, grace)
    if not terminal:
        file.close()
    if sink is not None:
        await sink.close()


def at_hand(file: FileIO) -> bytes:
    """What can be read from `file` now, as far as it is a matter of words."""
    buffer = memoryview(bytearray(SMALL))
    return bytes(buffer[: _fill(file, buffer)[0]])


async def _pass_on(file: FileIO, sink: Sink | None, ended: asyncio.Future[int], grace: float) -> None:
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(SMALL))
    deadline, left = 0.0, MAX_PIPE
    while True:
        over = ended.done()
        if over and not deadline:
            deadline = loop.time() + grace
        count, at_end = _fill(file, buffer)
        if count:
            if sink is not None:
                await sink.write(buffer[:count])
            if over:
                left -= count
        if at_end and (over or not file.isatty()):
            return
        if over and loop.time() >= deadline and (left <= 0 or not count):
            return
        if count == len(buffer):
            if count < LARGE:
                buffer = memoryview(bytearray(LARGE))
            await asyncio.sleep(0)  # others want their turn, too
        elif at_end:
            # Nobody has the terminal open now, but the process may open it again.
            await asyncio.wait([ended], timeout=_REOPENED)
        elif over:
            await readable(file.fileno(), timeout=deadline - loop.time())
        else:
            await readable(file.fileno(), until=ended)


def _fill(file: FileIO, buffer: memoryview) -> tuple[int, bool]:
    """Read until there is nothing more or no more room: how much, and whether the end has come.

    A terminal gives 4 KiB at most at a time, and its end is an error (EIO), with nobody there any more.
    """
    filled = 0
    while filled < len(buffer):
        try:
            count = file.readinto(buffer[filled:])
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return filled, True
        if count is None:
            return filled, False
        if count == 0:
            return filled, True
        filled += count
    return filled, False


async def inward(source: Source, file: FileIO, *, farewell: bytes = b"") -> None:
    """Hand on what the client sends to `file`, and at its end close that; a terminal, which is written and
    read through one file, is told `farewell` instead.

    When nobody reads `file` any more the rest is dropped: it must not hold up the client's other streams.
    """
    last, heard = b"\n", True
    while data := await source.read():
        last = data[-1:]
        heard = heard and await _write(file, data)
        if not heard and not farewell:
            file.close()
    if farewell and heard:
        # In the middle of a line the first one only ends the line's beginning (termios(3), VEOF).
        await _write(file, farewell if last in b"\r\n" else farewell * 2)
    if not farewell:
        file.close()


async def _write(file: FileIO, data: bytes) -> bool:
    """Whether anybody reads it."""
    try:
        await write_all(file, data)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        return False
    return True
