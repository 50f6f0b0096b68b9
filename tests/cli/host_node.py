"""A server whose containers' programs are this host's own, run with the test's rights: for commands that need
real programs (tar, sh) and no container. And a terminal to run commands in."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import sys
import termios
import tty
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from podwright.clock import SYSTEM
from podwright.config import Config
from podwright.core.runtime import Runtime
from podwright.engines.base import Container
from podwright.engines.fake.scenario import Scenario
from podwright.engines.fake.world import World
from podwright.engines.streams import Sink, Source, Streams
from podwright.errors import PodwrightError
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.state.database import Database
from podwright.streaming.server import Server
from tests.streaming import stand_in

LIMIT = 60
PROGRAMS = ("sh", "tar")


class HostEngine(stand_in.Engine):
    """Runs sh and tar of the host; all else is the stand-in's."""

    missing: Sequence[str] = ()
    """Programs that the container does not have."""

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        if argv[0] in self.missing:
            raise PodwrightError(f'exec: "{argv[0]}": executable file not found in $PATH: unknown')
        if argv[0] not in PROGRAMS or streams.tty:
            return await super().exec(container, argv, streams)
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        feeding = asyncio.ensure_future(_feed(streams.stdin, child.stdin))
        try:
            await asyncio.gather(_drain(child.stdout, streams.stdout), _drain(child.stderr, streams.stderr))
            return await child.wait()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            if child.returncode is None:
                child.kill()
                await child.wait()


async def _feed(source: Source | None, pipe: asyncio.StreamWriter) -> None:
    try:
        while source is not None and (data := await source.read()):
            pipe.write(data)
            await pipe.drain()
        pipe.close()
    except ConnectionError:
        pass  # the program reads no more


async def _drain(pipe: asyncio.StreamReader, sink: Sink | None) -> None:
    while data := await pipe.read(1 << 16):
        if sink is not None:
            await sink.write(data)


class HostNode(stand_in.Node):
    def __init__(self, root: Path) -> None:
        self.config = Config(root=str(root / "root"), run=str(root / "run"), engine="fake")
        (root / "root").mkdir()
        self.engine = self.host = HostEngine(World(SYSTEM, Scenario()))
        self.database = Database.open(root / "root" / "podwright.db")
        self.runtime = Runtime(self.config, self.engine, self.database)
        self.server = Server(self.config.streaming, self.runtime.streaming)
        self.runtime.streaming.giver = self.server
        self.pod = self.container = ""


@asynccontextmanager
async def host_node(root: Path) -> AsyncIterator[HostNode]:
    """One pod, "pod", with one container, "main", behind the socket `root`/podwright.sock."""
    made = HostNode(root)
    await made.start()
    gate = Gate()
    gate.open(made.runtime)
    try:
        async with listening(str(root / "podwright.sock"), gate):
            yield made
    finally:
        await made.stop()


def command(root: Path, *arguments: str) -> list[str]:
    """podwright with `arguments` at the socket of `root`."""
    program = (sys.executable, "-c", "from podwright.cli.main import main; main()")
    return [*program, "--root", str(root / "none"), "--run", str(root), *arguments]


class Terminal:
    """A terminal in which a program runs."""

    def __init__(self, columns: int, rows: int) -> None:
        self.master, self.slave = os.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        self.child: asyncio.subprocess.Process
        self.shown = bytearray()
        self._came = asyncio.Event()
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    async def run(self, argv: Sequence[str], **streams: Any) -> None:
        ends = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **streams}
        self.child = await asyncio.create_subprocess_exec("setsid", "--ctty", *argv, **ends)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    async def until(self, text: bytes) -> None:
        """Until `text` has been shown, after what was waited for before."""
        async with asyncio.timeout(LIMIT):
            while text not in self.shown:
                self._came.clear()
                await self._came.wait()
        del self.shown[: self.shown.index(text) + len(text)]

    async def until_raw(self) -> None:
        """Until the program has taken the terminal. Nobody tells it."""
        async with asyncio.timeout(LIMIT):
            while termios.tcgetattr(self.slave)[tty.LFLAG] & (termios.ICANON | termios.ECHO):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def ended(self) -> int:
        return await asyncio.wait_for(self.child.wait(), LIMIT)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    async def close(self) -> None:
        if self.child.returncode is None:
            self.child.kill()
            await self.child.wait()
        asyncio.get_running_loop().remove_reader(self.master)
        for fd in (self.master, self.slave):
            os.close(fd)

    def _read(self) -> None:
        try:
            self.shown += os.read(self.master, 1 << 16)
        except OSError:
            pass  # nobody has the other side open
        self._came.set()
