"""WebSocket connections and their channels: messages in parts, control frames, goodbyes, the limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import wsproto
from wsproto import events
from wsproto.connection import Connection

from podwright.streaming import websocket
from podwright.streaming.channels import CHUNK, KEPT, PORT_FORWARD, REMOTE_COMMAND, Channels, Inlet
from podwright.streaming.spdy import Session
from podwright.streaming.tunnel import Tunnel
from podwright.streaming.websocket import FAREWELL, WebSocket
from tests.streaming.stand_in import everything


@dataclass
class Heard:
    """A receiver that remembers."""

    messages: list[tuple[Any, bool]] = field(default_factory=list)
    ends: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self) -> None:
        pass

    def message(self, data: bytes | bytearray | str, last: bool) -> None:
        self.messages.append((bytes(data) if isinstance(data, bytearray) else data, last))
        self.changed.set()

    def ended(self) -> None:
        self.ends += 1
        self.changed.set()

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Peer:
    """The client's end, by hand: any bytes may be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = Connection(wsproto.ConnectionType.CLIENT)
        self.seen: list[events.Event] = []

    def send(self, *sent: events.Event) -> None:
        for event in sent:
            self.writer.write(self.frames.send(event))

    async def next(self) -> events.Event:
        async with asyncio.timeout(20):
            while not self.seen:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self.frames.receive_data(data)
                self.seen += list(self.frames.events())
        return self.seen.pop(0)


Connect = Callable[[WebSocket], Any]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Gives a WebSocket the server's end of a connection."""
    waiting: list[WebSocket] = []
    peers: list[Peer] = []
    server = await asyncio.get_running_loop().create_server(lambda: waiting.pop(), "127.0.0.1", 0)

    async def connect(socket: WebSocket) -> Peer:
        waiting.append(socket)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        peers.append(Peer(reader, writer))
        while not hasattr(socket, "_transport"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        return peers[-1]

    yield connect
    for peer in peers:
        peer.writer.transport.abort()
    server.close()


async def test_messages_both_ways(connect: Connect) -> None:
    heard = Heard()
    socket = WebSocket(heard)
    peer = await connect(socket)
    peer.send(events.BytesMessage(b"bytes"), events.TextMessage("ünï"))
    await heard.until(lambda: len(heard.messages) == 2)
    assert heard.messages == [(b"bytes", True), ("ünï", True)]
    await socket.send(b"\x00\xff")
    await socket.send("text")
    await socket.send(memoryview(b"view"))
    assert (await peer.next()).data == b"\x00\xff"
    assert (await peer.next()).data == "text"
    assert (await peer.next()).data == b"view"


async def test_a_ping_is_answered_with_what_it_says(connect: Connect) -> None:
    peer = await connect(WebSocket(Heard()))
    peer.send(events.Ping(b"42"))
    assert await peer.next() == events.Pong(b"42")


async def test_the_peers_goodbye_is_answered(connect: Connect) -> None:
    heard = Heard()
    socket = WebSocket(heard)
    peer = await connect(socket)
    peer.send(events.CloseConnection(1001, "going"))
    goodbye = await peer.next()
    assert isinstance(goodbye, events.CloseConnection)
    assert goodbye.code == 1001
    await socket.closed
    assert heard.ends == 1
    with pytest.raises(BrokenPipeError):
        await socket.send(b"late")
    await socket.close()


async def test_our_goodbye_comes_after_all_that_was_sent_and_waits_for_the_peers(connect: Connect) -> None:
    heard = Heard()
    socket = WebSocket(heard)
    peer = await connect(socket)
    for _ in range(40):
        socket.put(bytes(CHUNK))
    closing = asyncio.ensure_future(socket.close())
    size = 0
    while isinstance(event := await peer.next(), events.BytesMessage):
        size += len(event.data)
        assert not closing.done()
    assert (size, type(event), event.code) == (40 * CHUNK, events.CloseConnection, 1000)
    peer.send(event.response())
    await closing
    assert heard.ends == 1


async def test_a_peer_that_reads_slowly_has_all_the_time_for_what_was_sent(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "FAREWELL", 0.2)
    socket = WebSocket(Heard())
    peer = await connect(socket)
    peer.writer.transport.pause_reading()
    for _ in range(400):
        socket.put(bytes(CHUNK))
    closing = asyncio.ensure_future(socket.close())
    await asyncio.wait([closing], timeout=1)
    assert not socket.closed.done()
    peer.writer.transport.resume_reading()
    size = 0
    while isinstance(event := await peer.next(), events.BytesMessage):
        size += len(event.data)
    assert size == 400 * CHUNK
    await closing


async def test_a_peer_that_says_no_goodbye_is_left(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FAREWELL == 5.0
    monkeypatch.setattr(websocket, "FAREWELL", 0.1)
    socket = WebSocket(Heard())
    peer = await connect(socket)
    async with asyncio.timeout(20):
        await socket.close()
    assert isinstance(await peer.next(), events.CloseConnection)
    assert socket.closed.done()


async def test_what_is_no_frame_ends_the_connection(connect: Connect) -> None:
    heard = Heard()
    socket = WebSocket(heard)
    peer = await connect(socket)
    # Reserved bits, and no mask, which clients must have.
    peer.writer.write(b"\xf2\x01x")
    goodbye = await peer.next()
    assert isinstance(goodbye, events.CloseConnection)
    assert goodbye.code == 1002
    await heard.until(lambda: heard.ends)
    await socket.closed


async def test_a_lost_connection_is_told_once_and_wakes_writers(connect: Connect) -> None:
    heard = Heard()
    socket = WebSocket(heard)
    peer = await connect(socket)

    async def pump() -> None:
        while True:
            await socket.send(bytes(CHUNK))

    writing = asyncio.ensure_future(pump())
    while not socket._paused:  # noqa: ASYNC110
        await asyncio.sleep(0)
    peer.writer.transport.abort()
    with pytest.raises(BrokenPipeError):
        await writing
    assert socket.closed.done()
    assert heard.ends == 1


# Channels


def fed(version: str, *messages: tuple[Any, bool], numbers: tuple[int, ...] = (0, 1)) -> list[bytes]:
    channels = Channels(version)
    heard: list[bytes] = [b"" for _ in range(8)]
    for number in numbers:

        def ear(data: bytes | bytearray, number: int = number) -> None:
            heard[number] += data

        channels.listen(number, ear)
    for data, last in messages:
        channels.message(data, last)
    return [heard[number] for number in numbers]


async def test_a_message_in_any_parts_is_one_message() -> None:
    message = b"\x01" + bytes(range(256))
    for cuts in range(200):
        at = sorted(random.Random(cuts).choices(range(len(message) + 1), k=cuts % 7))
        parts = [message[a:b] for a, b in zip([0, *at], [*at, len(message)], strict=True)]
        told = [(part, False) for part in parts[:-1]] + [(parts[-1], True)]
        assert fed("v4.channel.k8s.io", *told, (b"\x00x", True)) == [b"x", message[1:]]


async def test_base64_in_any_parts() -> None:
    told = [("1aGVs", False), ("", False), ("bG8=", True), ("", True), ("0eA==", True), ("7eA==", True)]
    assert fed("base64.channel.k8s.io", *told) == [b"x", b"hello"]
    assert fed("v4.base64.channel.k8s.io", (b"1aGk=", True)) == [b"", b"hi"]


@pytest.mark.parametrize("text", ["1a", "1a b=", "1\xff", "1aGk=aGk="])
async def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no base64"):
        fed("base64.channel.k8s.io", (text, True))


async def test_a_base64_message_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        fed("base64.channel.k8s.io", *[("A" * (1 << 20), False)] * 5)


async def test_only_v5_has_ends() -> None:
    for version in (*REMOTE_COMMAND, *PORT_FORWARD):
        if "base64" in version:
            continue
        channels = Channels(version)
        inlet = channels.inlet(0)
        channels.message(b"\x00x\xff", True)
        channels.message(b"\xff\x00", True)
        channels.ended()
        assert await inlet.read() == b"x\xff"
        if version == "v5.channel.k8s.io":
            assert await inlet.read() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await inlet.read()


async def test_a_full_stream_stops_the_connection_until_it_is_read() -> None:
    told: list[str] = []

    class Listening(Channels):
        def is_full(self, inlet: Inlet) -> None:
            told.append("full")
            super().is_full(inlet)

        def has_room(self, inlet: Inlet) -> None:
            super().has_room(inlet)
            told.append(f"{len(self._full)} full")

    channels = Listening("v4.channel.k8s.io")
    channels.socket.pause_reading = lambda: told.append("pause")  # type: ignore[method-assign]
    channels.socket.resume_reading = lambda: told.append("resume")  # type: ignore[method-assign]
    first, second = channels.inlet(0), channels.inlet(1)
    channels.message(b"\x00" + bytes(KEPT), True)
    channels.message(b"\x01" + bytes(KEPT), True)
    assert told == ["full", "pause", "full"]
    assert len(await first.read()) == KEPT
    assert told[3:] == ["1 full"]
    assert len(await second.read()) == KEPT
    assert told[4:] == ["resume", "0 full"]


async def test_large_writes_are_cut_into_messages(connect: Connect) -> None:
    channels = Channels("v4.channel.k8s.io")
    peer = await connect(channels.socket)
    data = random.Random(1).randbytes(3 * CHUNK + 5)
    writing = asyncio.ensure_future(channels.outlet(1).write(memoryview(data)))
    seen, most, part = b"", 0, b""
    while len(seen) < len(data):
        event = await peer.next()
        assert isinstance(event, events.BytesMessage)
        part += event.data
        if event.message_finished:
            assert part[0] == 1
            most, seen, part = max(most, len(part)), seen + part[1:], b""
    await writing
    assert seen == data
    assert most == CHUNK + 1


async def test_a_closed_outlet_takes_nothing(connect: Connect) -> None:
    channels = Channels("v5.channel.k8s.io")
    peer = await connect(channels.socket)
    outlet = channels.outlet(1)
    await outlet.write(b"x")
    await outlet.close()
    await outlet.close()
    with pytest.raises(BrokenPipeError):
        await outlet.write(b"y")
    await channels.send(2, b"z")
    # Servers do not send ends.
    assert [(await peer.next()).data, (await peer.next()).data] == [b"\x01x", b"\x02z"]


# Tunnels


async def test_spdy_through_messages_of_any_size(connect: Connect) -> None:
    """The other end cuts its bytes into messages as it likes."""
    inner = Session(client=False)
    socket = Tunnel(inner).socket
    peer = await connect(socket)
    client = Session(client=True)

    class Pipe:
        def write(self, data: bytes) -> None:
            for at in range(0, len(data), 7):
                peer.send(events.BytesMessage(data[at : at + 7]))

        def __getattr__(self, name: str) -> Any:
            return getattr(peer.writer.transport, name)

    client.connection_made(Pipe())

    async def listen() -> None:
        while isinstance(event := await peer.next(), events.BytesMessage):
            client.data_received(bytes(event.data))

    listening = asyncio.ensure_future(listening_to(listen))
    opening = asyncio.ensure_future(client.open({"streamtype": "data"}))
    async for stream in inner.accept():
        await stream.write(b"served")
        await stream.close()
        break
    assert await everything(await opening) == b"served"
    listening.cancel()


async def listening_to(listen: Callable[[], Any]) -> None:
    try:
        await listen()
    except EOFError:
        pass


async def test_text_is_nothing_that_can_be_tunnelled(connect: Connect) -> None:
    inner = Session(client=False)
    peer = await connect(Tunnel(inner).socket)
    peer.send(events.TextMessage("hello"))
    goodbye = await peer.next()
    assert isinstance(goodbye, events.CloseConnection)
    assert goodbye.code == 1002
    await asyncio.wait([inner.closed], timeout=20)
    assert inner.closed.done()
