"""One end of a WebSocket connection (RFC 6455) after its handshake: messages in, messages out.

wsproto is the protocol, an asyncio transport carries it. What the messages mean is the receiver's: channels
(`channels`), or the bytes of another protocol that is tunnelled (`tunnel`).
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import wsproto
from wsproto import events
from wsproto.connection import Connection, ConnectionState
from wsproto.utilities import LocalProtocolError, generate_accept_token

VERSION = "13"

WRITE_AHEAD = 256 << 10
"""Bytes that may wait in this process for the peer."""

FAREWELL = 5.0
"""Seconds for the peer to say goodbye, too."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, TOO_BIG = 1000, 1001, 1002, 1009
"""Codes of a goodbye (section 7.4.1)."""


Data = bytes | bytearray | memoryview | str


class Receiver(Protocol):
    def opened(self) -> None:
        """From now on messages may be sent."""

    def message(self, data: bytes | bytearray | str, last: bool) -> None:
        """A message, or a part of one; `last` ends it. ValueError when it is against the rules of the
        protocol: the connection is closed."""

    def ended(self) -> None:
        """Nothing more comes: the peer has said goodbye, or the connection is lost. Called once."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def accept_headers(key: str, subprotocol: str) -> tuple[tuple[str, str], ...]:
    """Of the answer to the handshake with this Sec-WebSocket-Key (section 4.2.2)."""
    accepted = (
        ("upgrade", "websocket"),
        ("sec-websocket-accept", generate_accept_token(key.encode("ascii", "replace")).decode("ascii")),
    )
    return (*accepted, ("sec-websocket-protocol", subprotocol)) if subprotocol else accepted


class WebSocket(asyncio.Protocol):
    """`closed` is done when the connection is gone; `last_active` is the loop's time of the last bytes."""

    def __init__(self, receiver: Receiver, *, client: bool = False) -> None:
        self._receiver = receiver
        self._connection = Connection(
            wsproto.ConnectionType.CLIENT if client else wsproto.ConnectionType.SERVER
        )
        self._transport: asyncio.Transport
        self._waiting: list[asyncio.Future[None]] = []
        self._paused = False
        self._at_once = 0
        """Bytes sent since others had their turn."""
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._farewell: asyncio.TimerHandle | None = None
        self.last_active = self._loop.time()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport

    # Sending

    def put(self, data: Data) -> None:
        """Send a message: text or bytes, which may be used again at once. BrokenPipeError when the
        connection is closed or closing."""
        if self._connection.state is not ConnectionState.OPEN or self._transport.is_closing():
            raise BrokenPipeError("the other side has closed the connection")
        event: events.Event
        event = events.TextMessage(data) if isinstance(data, str) else events.BytesMessage(bytes(data))
        self.last_active = self._loop.time()
        self._transport.write(self._connection.send(event))

    async def send(self, data: Data) -> None:
        """As `put`; returns when more may be sent."""
        self.put(data)
        self._at_once += len(data)
        if self._paused:
            await self.drained()
        elif self._at_once > WRITE_AHEAD:
            # A peer that takes everything must not keep the event loop from others, nor from its own end.
            self._at_once = 0
            await asyncio.sleep(0)

    async def drained(self) -> None:
        """Returns when more may be sent, or the connection is gone."""
        if self._paused and not self.closed.done():
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye and return when the connection is gone. What was sent is still delivered, however
        slowly the peer reads. Twice is fine."""
        if self.closed.done():
            return
        try:
            # From now on a peer that has taken all there is lets `drained` return.
            self._transport.set_write_buffer_limits(high=0)
            self._say_goodbye(code, reason)
            await self.drained()
            self.leave(code)
            await asyncio.wait([self.closed])
        finally:
            self._transport.abort()

    def leave(self, code: int = NORMAL) -> None:
        """Say goodbye; the connection is gone when the peer has done so, too, or takes too long for it."""
        self._say_goodbye(code)
        if not self.closed.done() and self._farewell is None:
            # Its goodbye shall be read, whatever else the receiver has no room for.
            self._end()
            self.resume_reading()
            self._farewell = self._loop.call_later(FAREWELL, self._transport.abort)

    def _say_goodbye(self, code: int, reason: str = "") -> None:
        if self.closed.done():
            return
        try:
            self._transport.write(self._connection.send(events.CloseConnection(code, reason[:120] or None)))
        except LocalProtocolError:
            pass  # it was said before

    # Receiving

    def pause_reading(self) -> None:
        """The receiver has enough for now. Pings wait, too."""
        if not self._ended and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.last_active = self._loop.time()
        try:
            self._connection.receive_data(data)
        except LocalProtocolError:
            return  # after the goodbyes
        try:
            for event in self._connection.events():
                self._take(event)
        except ValueError as error:
            self._say_goodbye(PROTOCOL_ERROR, str(error))
            self._end()

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Message():
                if not self._ended:
                    self._receiver.message(event.data, event.message_finished)
            case events.Ping():
                if self._connection.state is ConnectionState.OPEN:
                    self._transport.write(self._connection.send(event.response()))
            case events.CloseConnection():
                self._say_goodbye(event.code)
                self._end()
                self._transport.close()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._receiver.ended()

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self._receiver.opened()

    def pause_writing(self) -> None:
        self._paused = True
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()
        self._receiver.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self._farewell is not None:
            self._farewell.cancel()
        self._wake()
        self._end()

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
