"""A node whose engine connects streams with programs that are functions here, and a client's bare hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec

from podwright.clock import SYSTEM
from podwright.config import Config, StreamingConfig
from podwright.core.runtime import Runtime
from podwright.engines.base import Container, Sandbox
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.scenario import Scenario
from podwright.engines.fake.world import World
from podwright.engines.streams import Connection, Sink, Source, Streams
from podwright.errors import FailedPrecondition
from podwright.state.database import Database
from podwright.streaming.channels import Channels
from podwright.streaming.server import Server
from podwright.streaming.spdy import Session, Stream
from podwright.streaming.tunnel import Tunnel
from podwright.wire import cri_pb2 as cri

CHUNK = bytes(range(256)) * 256
"""64 KiB with every byte in them."""


class Engine(FakeEngine):
    """Pods are the fake engine's, streams this one's."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.started = asyncio.Event()
        """A program of `hang` runs."""
        self.hung_up = asyncio.Event()
        """… and was cancelled."""
        self.running = 0

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        self.running += 1
        try:
            return await self._run(argv, streams)
        finally:
            self.running -= 1

    async def _run(self, argv: Sequence[str], streams: Streams) -> int:
        match list(argv):
            case ["echo", *words]:
                await _write(streams.stdout, " ".join(words).encode() + b"\n")
            case ["cat"]:
                await _copy(streams.stdin, streams.stdout)
            case ["err", word]:
                await _write(streams.stderr, word.encode())
            case ["exit", code]:
                return int(code)
            case ["pump", length]:
                await pump(streams.stdout, int(length))
            case ["count"]:
                await _write(streams.stdout, str(await _length(streams.stdin)).encode())
            case ["sizes", count]:
                assert streams.sizes is not None
                for _ in range(int(count)):
                    size = await streams.sizes.__anext__()
                    await _write(streams.stdout, f"{size.width}x{size.height} ".encode())
            case ["hang"]:
                await self._hang()
            case ["refuse"]:
                raise FailedPrecondition("the runtime says no")
            case ["defect"]:
                raise RuntimeError("a defect, made for a test")
            case _:
                raise AssertionError(argv)
        return 0

    async def attach(self, container: Container, streams: Streams) -> None:
        self.running += 1
        try:
            await _write(streams.stdout, b"attached\n")
            if streams.stdin is not None:
                await _copy(streams.stdin, streams.stdout)
        finally:
            self.running -= 1

    async def port_forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        self.running += 1
        try:
            match port:
                case 7:
                    await _copy(connection.source, connection.sink)
                    await connection.sink.close()
                case 13:
                    await _write(connection.sink, b"noon\n")
                    await connection.sink.close()
                case 17:
                    await _write(connection.sink, b"word\n")
                    await connection.sink.close()
                    await _length(connection.source)
                case 19:
                    await pump(connection.sink, 1 << 40)
                case 20:
                    await self._hang()
                case _:
                    raise FailedPrecondition(f"nothing listens on localhost:{port} in the pod")
        finally:
            self.running -= 1

    async def _hang(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.hung_up.set()


async def pump(sink: Sink | None, size: int) -> None:
    assert sink is not None
    while size > 0:
        await sink.write(CHUNK if size >= len(CHUNK) else CHUNK[:size])
        size -= len(CHUNK)


async def _write(sink: Sink | None, data: bytes) -> None:
    assert sink is not None
    await sink.write(data)


async def _copy(source: Source | None, sink: Sink | None) -> None:
    assert source is not None and sink is not None
    while data := await source.read():
        await sink.write(data)


async def _length(source: Source | None) -> int:
    assert source is not None
    count = 0
    while data := await source.read():
        count += len(data)
    return count


class Node:
    """A runtime with a pod, a container, and a streaming server."""

    def __init__(self, root: Path, look_every: float, **config: Any) -> None:
        self.config = Config(
            root=str(root), run=str(root / "run"), engine="fake", streaming=StreamingConfig(**config)
        )
        self.engine = Engine(World(SYSTEM, Scenario()))
        self.database = Database.open(root / "podwright.db")
        self.runtime = Runtime(self.config, self.engine, self.database)
        self.server = Server(self.config.streaming, self.runtime.streaming, look_every=look_every)
        self.runtime.streaming.giver = self.server
        self.pod = ""
        self.container = ""

    async def start(self) -> None:
        await self.engine.open()
        await self.runtime.open()
        await self.engine.images.pull("box", None)
        metadata = cri.PodSandboxMetadata(name="pod", namespace="ns", uid="uid")
        made = await self.runtime.run_pod_sandbox(
            cri.RunPodSandboxRequest(config=cri.PodSandboxConfig(metadata=metadata))
        )
        self.pod = made.pod_sandbox_id
        self.container = await self.add("main")
        await self.runtime.start_container(cri.StartContainerRequest(container_id=self.container))

    async def add(self, name: str) -> str:
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image="box"),
            command=["sleep", "1h"],
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=self.pod, config=config)
        return (await self.runtime.create_container(request)).container_id

    async def stop(self) -> None:
        await self.server.close()
        await self.runtime.close()
        await self.engine.close()
        self.database.close()

    async def exec_url(self, *cmd: str, **streams: bool) -> str:
        streams = streams or {"stdout": True}
        request = cri.ExecRequest(container_id=self.container, cmd=cmd, **streams)
        return (await self.runtime.exec(request)).url

    async def attach_url(self, **streams: bool) -> str:
        return (await self.runtime.attach(cri.AttachRequest(container_id=self.container, **streams))).url

    async def forward_url(self, *ports: int) -> str:
        request = cri.PortForwardRequest(pod_sandbox_id=self.pod, port=ports)
        return (await self.runtime.port_forward(request)).url


@asynccontextmanager
async def node(root: Path, *, look_every: float = 5.0, **config: Any) -> AsyncIterator[Node]:
    """`config` is that of the streaming server."""
    made = Node(root, look_every, **config)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


# A client, written here so that it shares nothing with podwright's own


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body.decode()


async def ask(url: str, method: str = "POST", headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """What the server answers who does not ask for an upgrade, or is refused."""
    reader, writer, http, answer = await _asked(url, method, headers)
    body = b""
    try:
        while not isinstance(event := await _event(reader, http), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            body += event.data
    finally:
        writer.close()
    return Answer(answer.status_code, _headers(answer), body)


async def upgrade(
    url: str, protocol: asyncio.Protocol, method: str, headers: Sequence[tuple[str, str]], **options: Any
) -> dict[str, str]:
    """Go on in another protocol, which gets the connection; the headers of the 101."""
    reader, writer, http, answer = await _asked(url, method, headers, **options)
    assert answer.status_code == 101, (answer, http.trailing_data)
    transport: Any = writer.transport
    # A writer that nobody has any more closes its transport.
    protocol.writer = writer  # type: ignore[attr-defined]
    transport.pause_reading()
    left = http.trailing_data[0] + bytes(reader._buffer)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if left:
        protocol.data_received(left)
    transport.resume_reading()
    return _headers(answer)


async def _asked(url: str, method: str, headers: Sequence[tuple[str, str]], **options: Any) -> Any:
    _, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    host, _, port = place.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), **options)
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(method=method, target="/" + path, headers=[("host", place), *headers])
    writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    answer = await _event(reader, http)
    return reader, writer, http, answer


async def _event(reader: asyncio.StreamReader, http: h11.Connection) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(1 << 16))
    return event


def _headers(answer: Any) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in answer.headers}


UPGRADE = ("connection", "Upgrade")
SPDY = (UPGRADE, ("upgrade", "SPDY/3.1"))
KEY = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
WEBSOCKET = (UPGRADE, ("upgrade", "websocket"), ("sec-websocket-version", "13"), KEY)


async def spdy(url: str, version: str = "v4.channel.k8s.io", **options: Any) -> Session:
    """A SPDY session at `url`; "" offers no version."""
    session = Session(client=True)
    offer = (("x-stream-protocol-version", version),) if version else ()
    answer = await upgrade(url, session, "POST", (*SPDY, *offer), **options)
    assert answer.get("x-stream-protocol-version", "") == version
    return session


class Client:
    """The client's end of channels: what comes on each is kept from the first byte on."""

    def __init__(self, version: str) -> None:
        self.channels = Channels(version, client=True)
        self.socket = self.channels.socket
        self._inlets = {number: self.channels.inlet(number) for number in range(8)}

    async def all(self, number: int) -> bytes:
        """What comes on a channel until the connection ends."""
        return await everything(self._inlets[number])

    async def read(self, number: int) -> bytes:
        return await self._inlets[number].read()


async def channels(url: str, version: str = "v5.channel.k8s.io", **options: Any) -> Client:
    made = Client(version)
    offer = (("sec-websocket-protocol", version),) if version else ()
    answer = await upgrade(url, made.socket, "GET", (*WEBSOCKET, *offer), **options)
    assert answer.get("sec-websocket-protocol", "") == version
    return made


async def tunnel(url: str) -> Session:
    """SPDY inside a WebSocket."""
    session = Session(client=True)
    made = Tunnel(session, client=True)
    version = "SPDY/3.1+portforward.k8s.io"
    answer = await upgrade(url, made.socket, "GET", (*WEBSOCKET, ("sec-websocket-protocol", version)))
    assert answer["sec-websocket-protocol"] == version
    return session


class Remote:
    """The client's streams of one exec or attach over SPDY."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.streams: dict[str, Stream] = {}

    async def open(self, *names: str) -> Remote:
        for name in names:
            self.streams[name] = await self.session.open({"streamtype": name})
        return self

    async def all(self, name: str) -> bytes:
        """Everything until the end of a stream."""
        return await everything(self.streams[name])

    async def status(self) -> Any:
        return msgspec.json.decode(await self.all("error"))


async def everything(source: Source) -> bytes:
    """Until the end, or until the connection is over."""
    data = b""
    try:
        while part := await source.read():
            data += part
    except ConnectionResetError:
        pass
    return data


async def remote(url: str, *names: str, version: str = "v4.channel.k8s.io") -> Remote:
    return await Remote(await spdy(url, version)).open("error", *names)


async def pair(session: Session, port: int, request: str) -> tuple[Stream, Stream]:
    """The streams for errors and for data of one connection to a port."""
    headers = {"port": str(port), "requestid": request}
    error = await session.open({"streamtype": "error", **headers})
    return error, await session.open({"streamtype": "data", **headers})
