"""The FIFOs between an exec and us: the shim copies between them and the program's own pipes or terminal.

The shim holds both ends of its outputs until the program and all who have its output are done, so nobody is
told by a broken pipe that we do not listen any more: what nobody wants is read and dropped.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from podwright.engines.node.flow import LARGE, SMALL, widen
from podwright.engines.streams import Sink
from podwright.linux import trees
from podwright.linux.readiness import readable

MOST_AFTER = 4 << 20
"""Bytes that are still on the way when the program has ended, at most: what comes beyond is others'."""
_READER_COMES, _READER_WAIT = 0.01, 5.0
"""Seconds between two looks whether the shim has opened a stdin, which it does on its own time, and until it
is taken for nobody's."""


class Fifos:
    """The FIFOs of one program in a directory of their own, which is there from `make` to `remove`."""

    def __init__(self, directory: Path, outputs: Sequence[str], *, stdin: bool) -> None:
        self.directory = directory
        self._outputs = outputs
        self._names = [*(["stdin"] if stdin else []), *outputs]
        self._open: list[FileIO] = []

    def make(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True)
        for name in self._names:
            os.mkfifo(self.directory / name, 0o600)

    def path(self, name: str) -> str:
        """As the daemon is told it; "" for a stream that nobody wants."""
        return str(self.directory / name) if name in self._names else ""

    def outputs(self) -> dict[str, FileIO]:
        """Those that are read, by name, open: before the shim opens them, so that nothing is missed."""
        files = {}
        for name in self._outputs:
            fd = os.open(self.directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            widen(fd)
            files[name] = FileIO(fd, "r")
        self._open += files.values()
        return files

    async def stdin(self, ended: asyncio.Future[int]) -> FileIO | None:
        """To write to, once the shim reads it; None when the program ends before."""
        file = await writing(self.directory / "stdin", ended)
        if file is not None:
            self._open.append(file)
        return file

    def close(self) -> None:
        for each in self._open:
            each.close()

    def remove(self) -> None:
        trees.remove(self.directory)


async def writing(fifo: Path, ended: asyncio.Future[Any]) -> FileIO | None:
    """The end of `fifo` that is written, once somebody reads it; None when nobody does, or it has `ended`."""
    give_up = asyncio.get_running_loop().time() + _READER_WAIT
    while True:
        try:
            return FileIO(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), "w")
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        if ended.done() or asyncio.get_running_loop().time() > give_up:
            return None
        await asyncio.wait([ended], timeout=_READER_COMES)


async def outward(file: FileIO, sink: Sink | None, ended: asyncio.Future[int], grace: float) -> None:
    """Hand on what comes out of `file` up to its end, and close the sink then. Somebody must have opened it
    for writing before.

    Once the program has `ended`, what it wrote may still be on its way through the shim. Others may have its
    output as well: theirs is waited for `grace` seconds in all, a client that reads slowly not counted.
    A client that reads this stream no more does not stop it.
    """
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(SMALL))
    listening, left = sink, MOST_AFTER
    while left > 0:
        over = ended.done()
        count = file.readinto(buffer)
        if count == 0:
            break
        if count is None and over:
            if grace <= 0:
                break
            began = loop.time()
            await readable(file.fileno(), timeout=grace)
            grace -= loop.time() - began
        elif count is None:
            await readable(file.fileno(), until=ended)
        else:
            if listening is not None:
                try:
                    await listening.write(buffer[:count])
                except BrokenPipeError:
                    listening = None
            if over:
                left -= count
            if count == len(buffer):
                if count < LARGE:
                    buffer = memoryview(bytearray(LARGE))
                await asyncio.sleep(0)  # others want their turn, too
    if sink is not None:
        await sink.close()
