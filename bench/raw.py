"""Servers at sockets, and a client that sends and gets bytes: decoding is a client's own cost.

`Ours` is podwright with the fake engine, `Bare` a server that only sends what it was given.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import grpc.aio
from google.protobuf.message import Message

from bench import bare
from podwright.wire import cri_pb2 as cri

PATIENCE = 120.0
"""Seconds that a server may take to start or to end."""

_PATHS = {
    method.name: f"/{service.full_name}/{method.name}"
    for service in cri.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
_OPTIONS = (("grpc.max_receive_message_length", bare.LIMIT), ("grpc.default_authority", "localhost"))

M = TypeVar("M", bound=Message)


class Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._calls: dict[str, Any] = {rpc: channel.unary_unary(path) for rpc, path in _PATHS.items()}
        self._events: Any = channel.unary_stream(_PATHS["GetContainerEvents"])

    def ask(self, rpc: str, request: Message) -> Awaitable[bytes]:
        return cast("Awaitable[bytes]", self._calls[rpc](request.SerializeToString()))

    async def get(self, rpc: str, request: Message, answer: type[M]) -> M:
        """The response as a message."""
        return answer.FromString(await self.ask(rpc, request))

    async def listen(self) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        """The events from now on."""
        stream = self._events(b"")
        await stream.initial_metadata()  # it listens
        return cast("grpc.aio.UnaryStreamCall[bytes, bytes]", stream)


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(f"unix:{server.socket}", options=_OPTIONS) as channel:
        yield Client(channel)


class Server(Protocol):
    socket: Path


class Ours:
    def __init__(self, root: Path) -> None:
        self.socket = root / "ours.sock"
        self._log = root / "log"
        self._config = root / "config.toml"
        self._config.write_text(
            f'root = "{root}/lib"\nrun = "{root}/run"\nlisten = "{self.socket}"\nengine = "fake"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Returns when it serves; the seconds that it took."""
        program = str(Path(sys.executable).with_name("podwright"))
        began = time.perf_counter()
        self.process, said = _spawn([program, "--config", str(self._config), "serve"], self._log)
        if not said:
            raise RuntimeError(f"podwright did not start; its log:\n{self._log.read_text()[-4000:]}")
        return time.perf_counter() - began

    def kill(self) -> None:
        _end(self.process)


class Bare:
    def __init__(self, root: Path, answers: Mapping[str, bytes]) -> None:
        self.socket = root / "bare.sock"
        folder = root / "answers"
        folder.mkdir()
        for rpc, answer in answers.items():
            (folder / rpc).write_bytes(answer)
        command = [sys.executable, "-m", "bench.bare", str(self.socket), str(folder)]
        self.process, said = _spawn(command, root / "log")
        if not said:
            raise RuntimeError(f"the bare server did not start:\n{(root / 'log').read_text()[-4000:]}")

    def kill(self) -> None:
        _end(self.process)


def _spawn(command: Sequence[str], log: Path) -> tuple[subprocess.Popen[bytes], bytes]:
    """Start a server and wait for its first line."""
    with log.open("ab") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout is not None
    return process, process.stdout.readline()


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(PATIENCE)
