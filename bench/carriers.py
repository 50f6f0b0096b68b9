"""The sides of `streams`, each able to carry the same bytes: a daemon over one protocol, or the floor."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from bench.daemons import Daemon, cpu_seconds
from bench.ends import CHUNK, Counted, Discard, Until, Words, zeros
from bench.floor import Floor
from podwright.api import Cri
from podwright.client import connect
from podwright.engines.streams import Connection, Streams
from podwright.errors import PodwrightError
from podwright.linux import sockets
from podwright.streaming import client
from podwright.streaming.client import Options, Transport
from podwright.wire import cri_pb2 as cri

BLOCK = 1 << 16
"""What the programs in pods read and write at a time."""
SENDING, RECEIVING = 7000, 7001
"""Ports of the pods; who connects says first how many blocks it shall be."""
START_SECONDS = 10.0

_READER = ["dd", "of=/dev/null", f"bs={BLOCK}", "iflag=fullblock"]


class Carrier(Protocol):
    """One side over one protocol. Its methods raise RuntimeError when other than all has arrived."""

    name: str
    suffix: str

    async def exec_stdout(self, size: int) -> None: ...
    async def exec_stdin(self, size: int) -> None: ...
    async def port_forward(self, size: int) -> None: ...
    async def port_forward_in(self, size: int) -> None: ...
    async def exec_true(self) -> None: ...


@asynccontextmanager
async def remotes(daemon: Daemon) -> AsyncIterator[list[Remote]]:
    sandbox = daemon.run_sandbox("streams")
    container = daemon.create(sandbox, "streams")
    daemon.start(container)
    for port, script in _SCRIPTS.items():
        server = f"{shlex.join(_server(port, script))} </dev/null >/dev/null 2>&1 &"
        daemon.runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["sh", "-c", server]))
    async with connect(str(daemon.socket)) as runtime:
        ways = [(Transport.SPDY, "")]
        if daemon.name == "podwright":
            ways.append((Transport.WEBSOCKET, "_websocket"))
        made = [Remote(daemon, runtime, sandbox, container, Options(way), suffix) for way, suffix in ways]
        await _answering(made[0])
        yield made


class Remote:
    """A daemon over one protocol."""

    def __init__(
        self, daemon: Daemon, runtime: Cri, sandbox: str, container: str, options: Options, suffix: str
    ) -> None:
        self.name = daemon.name
        self.suffix = suffix
        self.pid = daemon.process.pid
        self._runtime = runtime
        self._sandbox = sandbox
        self._container = container
        self._options = options

    def cpu(self) -> float:
        return cpu_seconds(self.pid)

    async def exec_stdout(self, size: int) -> None:
        sink = Discard()
        await self._exec(_writer(size), Streams(stdout=sink, stderr=Discard()))
        _check(self.name, sink.count, size)

    async def exec_stdin(self, size: int) -> None:
        words = Words()
        # Not dd itself: it closes its standard output, at which containerd 1.6 ends the input.
        await self._exec(
            ["sh", "-c", f"{shlex.join(_READER)}; exit $?"], Streams(Until(zeros(size)), Discard(), words)
        )
        _check(self.name, _blocks(words.text), size)

    async def port_forward(self, size: int) -> None:
        all_there = asyncio.Event()
        sink = Counted(size, all_there.set)
        await self._connect(SENDING, Connection(Until([_question(size)], all_there), sink))
        _check(self.name, sink.count, size)

    async def port_forward_in(self, size: int) -> None:
        answered = asyncio.Event()
        words = Words(answered.set)
        await self._connect(RECEIVING, Connection(Until(zeros(size, _question(size)), answered), words))
        _check(self.name, _blocks(words.text), size)

    async def exec_true(self) -> None:
        await self._exec(["true"], Streams(stdout=Discard(), stderr=Discard()))

    async def together(self, count: int) -> None:
        """So many sessions that all answer before the first of them ends."""
        answered, all_there = 0, asyncio.Event()

        def answer() -> None:
            nonlocal answered
            answered += 1
            if answered == count:
                all_there.set()

        async def one() -> None:
            await self._exec(["cat"], Streams(Until([b"x"], all_there), Counted(1, answer), Discard()))

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())

    async def _exec(self, argv: Sequence[str], streams: Streams) -> None:
        code = await client.exec(self._runtime, self._container, argv, streams, self._options)
        if code != 0:
            raise RuntimeError(f"{self.name}: {argv} ended with {code}")

    async def _connect(self, port: int, connection: Connection) -> None:
        async with client.forwarding(self._runtime, self._sandbox, [port], self._options) as forwarding:
            await forwarding.connect(port, connection)


class Bare:
    """No server: this process at one end, the program at the other."""

    name = Floor.name
    suffix = ""

    def __init__(self, floor: Floor, pod: str) -> None:
        self._floor = floor
        self._pod = pod

    async def exec_stdout(self, size: int) -> None:
        await asyncio.to_thread(self._read_pipe, size)

    async def exec_stdin(self, size: int) -> None:
        await asyncio.to_thread(self._write_pipe, size)

    async def port_forward(self, size: int) -> None:
        with await self._dialled(SENDING) as connection:
            await asyncio.to_thread(self._receive, connection, size)

    async def port_forward_in(self, size: int) -> None:
        with await self._dialled(RECEIVING) as connection:
            await asyncio.to_thread(self._send, connection, size)

    async def exec_true(self) -> None:
        self._floor.exec(self._pod)

    def _read_pipe(self, size: int) -> None:
        program = ["busybox", *_writer(size)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            assert running.stdout is not None
            fd, count, buffer = running.stdout.fileno(), 0, bytearray(CHUNK)
            while got := os.readv(fd, [buffer]):
                count += got
        _check(self.name, count, size)

    def _write_pipe(self, size: int) -> None:
        program = ["busybox", *_READER]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stdin is not None and running.stderr is not None
            for chunk in zeros(size):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(running.stdin.fileno(), rest) :]
            running.stdin.close()
            _check(self.name, _blocks(running.stderr.read()), size)

    def _receive(self, connection: socket.socket, size: int) -> None:
        connection.sendall(_question(size))
        count, buffer = 0, bytearray(CHUNK)
        while got := connection.recv_into(buffer):
            count += got
        _check(self.name, count, size)

    def _send(self, connection: socket.socket, size: int) -> None:
        for chunk in zeros(size, _question(size)):
            connection.sendall(chunk)
        _check(self.name, _blocks(b"".join(iter(lambda: connection.recv(CHUNK), b""))), size)

    async def _dialled(self, port: int) -> socket.socket:
        connection = await sockets.dial_localhost(port, self._floor.namespace(self._pod))
        connection.setblocking(True)
        return connection


@asynccontextmanager
async def bare(floor: Floor) -> AsyncIterator[Bare]:
    """The floor, with a pod."""
    pod = floor.run_sandbox("streams")
    floor.start(floor.create(pod, "streams"))
    servers = [
        _spawned(["nsenter", f"--net={floor.namespace(pod)}", *_server(port, script)])
        for port, script in _SCRIPTS.items()
    ]
    made = Bare(floor, pod)
    try:
        await _answering(made)
        yield made
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def _spawned(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL)


# The programs at the other end

_SCRIPTS = {
    SENDING: f"read n; exec busybox dd if=/dev/zero bs={BLOCK} count=$n 2>/dev/null",
    RECEIVING: f"read n; exec busybox dd of=/dev/null bs={BLOCK} count=$n iflag=fullblock 2>&1",
}
"""Not told by ends of directions: containerd 1.6 passes none on into the pod, and cuts a second later."""


def _server(port: int, script: str) -> list[str]:
    return ["busybox", "nc", "-ll", "-p", str(port), "-e", "sh", "-c", script]


def _writer(size: int) -> list[str]:
    return ["dd", "if=/dev/zero", f"bs={BLOCK}", f"count={size // BLOCK}"]


def _question(size: int) -> bytes:
    return b"%d\n" % (size // BLOCK)


def _blocks(words: bytes) -> int:
    """The bytes of which dd says that they have come."""
    found = words.split(b"+", 1)[0]
    if not found.isdigit():
        raise RuntimeError(f"dd said {words!r}")
    return int(found) * BLOCK


def _check(name: str, count: int, size: int) -> None:
    if count != size:
        raise RuntimeError(f"{name}: {count} of {size} bytes arrived")


async def _answering(carrier: Carrier) -> None:
    """The servers have been started, but nobody says when they listen."""
    deadline = time.monotonic() + START_SECONDS
    for attempt in (carrier.port_forward, carrier.port_forward_in):
        while True:
            try:
                await attempt(BLOCK)
                break
            except (PodwrightError, OSError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
