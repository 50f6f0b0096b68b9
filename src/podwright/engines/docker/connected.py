"""A connection that Docker gave over and a client's streams: bytes carried between them, for exec and attach.

Neither side is read faster than the other takes it. Frames name their stream; a terminal's bytes have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from podwright.engines.docker.api import Docker
from podwright.engines.docker.hijack import Hijacked
from podwright.engines.streams import Sink, Size, Source, Streams
from podwright.errors import PodwrightError

STDOUT, STDERR = 1, 2
END_OF_FILE = b"\4"
"""What a terminal takes for the end of input unless a program has changed that (termios(3), VEOF)."""
DETACH_KEYS = ",".join(["ctrl-^"] * 16)
"""Docker takes some row of keys in a terminal for "detach", and holds back what may be its beginning. It
cannot be told that there is none; nobody types this one."""
KEYS = b"\x1e" * 16
"""The same as bytes."""


class Output:
    """What comes out of `connection`, handed on to the client's sinks."""

    def __init__(self, connection: Hijacked, streams: Streams, *, tty: bool) -> None:
        self._connection = connection
        self._tty = tty
        self._sinks: dict[int, Sink | None] = {STDOUT: streams.stdout, STDERR: streams.stderr}
        self.deaf = asyncio.Event()
        """No client reads any of it. It is read on: others may."""
        self._note_deaf()

    async def next(self) -> tuple[int, bytes] | None:
        """Stream and bytes; None at the end, and when the connection breaks."""
        try:
            if not self._tty:
                return await self._connection.read_frame()
            data = await self._connection.read()
        except OSError:
            return None
        return (STDOUT, data) if data else None

    async def hand_on(self, stream: int, data: bytes) -> None:
        sink = self._sinks.get(stream)
        if sink is None or not data:
            return
        try:
            await sink.write(data)
        except BrokenPipeError:
            self._sinks[stream] = None
            self._note_deaf()

    async def all(self) -> None:
        """Up to the end."""
        while (piece := await self.next()) is not None:
            await self.hand_on(*piece)

    def _note_deaf(self) -> None:
        if not any(self._sinks.values()):
            self.deaf.set()


async def send(source: Source, connection: Hijacked, *, heard: bool = True) -> bytes:
    """Hand on what the client sends up to its end; the last byte. What nobody hears is dropped, so that it
    does not hold up the client's other streams."""
    last = b"\n"
    while data := await source.read():
        last = data[-1:]
        if heard:
            try:
                await connection.write(data)
            except OSError:
                heard = False
    return last


async def end_input(connection: Hijacked, last: bytes, *, tty: bool) -> None:
    """The client has said all. Of a terminal's connection Docker would close the output with the input, so
    the end is typed there: twice in the middle of a line, which the first one only ends."""
    try:
        if tty:
            await connection.write(END_OF_FILE if last in b"\r\n" else END_OF_FILE * 2)
        else:
            connection.end_input()
    except OSError:
        pass  # it has ended


async def resize(docker: Docker, path: str, sizes: AsyncIterator[Size]) -> None:
    """Keep the terminal at `path` ("/exec/ID", "/containers/ID") as large as the client's."""
    async for size in sizes:
        if size.width > 0 and size.height > 0:
            try:
                await docker.call("POST", f"{path}/resize", {"h": size.height, "w": size.width})
            except PodwrightError:
                pass  # it has ended, or not begun: its end is told elsewhere
