"""Kubernetes' channels: several byte streams over one WebSocket, told apart by the first byte of a message.

The subprotocols are [v5.|v4.]channel.k8s.io, raw bytes, and [v4.]base64.channel.k8s.io, text. In v5 a message
of 255 and a channel's number ends that channel; before, only the end of the connection does. There are no
windows: while a stream has more than it may keep, nothing at all is read from the connection.
"""

from __future__ import annotations

import base64
import binascii
from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import Callable
from typing import Literal

from podwright.streaming.websocket import WebSocket

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)

REMOTE_COMMAND = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
"""What exec and attach are spoken in, the best first. A client that names none means channel.k8s.io."""

PORT_FORWARD = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")

END = 255

CHUNK = 128 << 10
"""Bytes of one message that is sent. Some clients refuse those of more than a megabyte."""

TEXT_LIMIT = 4 << 20
"""Characters of one base64 message: it must be there as a whole before it can be read."""

KEPT = 256 << 10
"""Bytes of one stream that are kept for its reader before the connection waits."""


class Inlet:
    """What comes on one channel: a `Source`. ConnectionResetError once the connection has ended without an
    end of this stream."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._chunks: deque[bytes | bytearray] = deque()
        self._size = 0
        self._state: Literal["open", "ended", "broken"] = "open"
        self._reader: Future[None] | None = None

    async def read(self) -> bytes:
        while not self._chunks:
            if self._state == "ended":
                return b""
            if self._state == "broken":
                raise ConnectionResetError("the other side has closed the connection")
            self._reader = get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._chunks.popleft()) if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._channels.has_room(self)
        return data

    def feed(self, data: bytes | bytearray) -> None:
        if self._state == "open" and data:
            self._chunks.append(data)
            self._size += len(data)
            if self._size >= KEPT:
                self._channels.is_full(self)
            self._wake()

    def end(self) -> None:
        if self._state == "open":
            self._state = "ended"
            self._wake()

    def break_off(self) -> None:
        if self._state == "open":
            self._state = "broken"
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Outlet:
    """What goes on one channel: a `Sink`."""

    def __init__(self, channels: Channels, number: int) -> None:
        self._channels = channels
        self._number = number
        self._closed = False

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """BrokenPipeError when the peer has gone, or after `close`."""
        if self._closed:
            raise BrokenPipeError("this stream is closed")
        if len(data) <= CHUNK:
            await self._channels.send(self._number, data)
            return
        view = memoryview(data)
        for at in range(0, len(view), CHUNK):
            await self._channels.send(self._number, view[at : at + CHUNK])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._channels.end(self._number)


class Channels:
    """The receiver of a WebSocket's messages. `gone` is done when the peer has left."""

    def __init__(self, subprotocol: str, *, client: bool = False) -> None:
        self.socket = WebSocket(self, client=client)
        self.gone: Future[None] = get_running_loop().create_future()
        self._client = client
        self._base64 = "base64" in subprotocol
        self._ends = subprotocol.startswith("v5.")
        self._inlets: dict[int, Inlet] = {}
        self._ears: dict[int, Callable[[bytes | bytearray], None]] = {}
        self._full: set[Inlet] = set()
        self._channel = -1
        """Of the message that is being received; -1 between messages."""
        self._text: list[str | bytes | bytearray] = []

    def inlet(self, number: int) -> Inlet:
        inlet = self._inlets[number] = Inlet(self)
        self._ears[number] = inlet.feed
        return inlet

    def listen(self, number: int, ear: Callable[[bytes | bytearray], None]) -> None:
        """Let `ear` have what comes on a channel at once. What nobody listens to is thrown away."""
        self._ears[number] = ear

    def outlet(self, number: int) -> Outlet:
        return Outlet(self, number)

    async def send(self, number: int, data: bytes | bytearray | memoryview) -> None:
        """One message on a channel, also an empty one; returns when more may be sent. BrokenPipeError when
        the peer has gone."""
        if self._base64:
            await self.socket.send(f"{number}{base64.b64encode(data).decode('ascii')}")
        else:
            await self.socket.send(b"".join((number.to_bytes(), data)))

    async def end(self, number: int) -> None:
        # Servers do not send it: kubectl does not know what it would mean.
        if self._ends and self._client and not self.gone.done():
            await self.socket.send(bytes((END, number)))

    # The inlets' calls

    def is_full(self, inlet: Inlet) -> None:
        if not self._full:
            self.socket.pause_reading()
        self._full.add(inlet)

    def has_room(self, inlet: Inlet) -> None:
        if inlet in self._full:
            self._full.discard(inlet)
            if not self._full:
                self.socket.resume_reading()

    # The socket's calls

    def opened(self) -> None:
        pass

    def message(self, data: bytes | bytearray | str, last: bool) -> None:
        if self._base64:
            self._message_in_text(data, last)
            return
        if isinstance(data, str):
            data = data.encode()
        if self._channel < 0:
            if not data:
                return  # an empty message, or an empty part at the beginning of one
            self._channel = data[0]
            data = data[1:]
        if self._channel == END and self._ends:
            self._end(data, last)
        elif data and (ear := self._ears.get(self._channel)) is not None:
            ear(data)
        if last:
            self._channel = -1

    def _message_in_text(self, data: bytes | bytearray | str, last: bool) -> None:
        self._text.append(data)
        if sum(map(len, self._text)) > TEXT_LIMIT:
            raise ValueError(f"a base64 message of more than {TEXT_LIMIT} characters")
        if not last:
            return
        text = "".join(part if isinstance(part, str) else part.decode("latin-1") for part in self._text)
        self._text.clear()
        if not text:
            return
        ear = self._ears.get(ord(text[0]) - ord("0"))
        try:
            decoded = base64.b64decode(text[1:], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"a message that is no base64: {error}") from None
        if ear is not None and decoded:
            ear(decoded)

    def _end(self, data: bytes | bytearray, last: bool) -> None:
        if not last or len(data) != 1:
            raise ValueError("an end (255) without the number of the channel that ends")
        if (inlet := self._inlets.get(data[0])) is not None:
            inlet.end()

    def ended(self) -> None:
        for inlet in self._inlets.values():
            inlet.break_off()
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass
