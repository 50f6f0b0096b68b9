"""Bytes of another protocol in the binary messages of a WebSocket: SPDY/3.1+portforward.k8s.io.

To the protocol that is tunnelled this is its transport; to the WebSocket it is the receiver. Where messages
begin and end means nothing.
"""

from __future__ import annotations

import asyncio
from typing import cast

from podwright.streaming.websocket import WebSocket

PREFIX = "SPDY/3.1+"
"""Of the WebSocket subprotocols that tunnel SPDY; the rest is the protocol that SPDY would be asked for."""


class Tunnel:
    """Give `socket` the connection as its transport; `inner` is told by then."""

    def __init__(self, inner: asyncio.Protocol, *, client: bool = False) -> None:
        self._inner = inner
        self.socket = WebSocket(self, client=client)

    # What the tunnelled protocol calls

    def write(self, data: bytes, /) -> None:
        try:
            self.socket.put(data)
        except BrokenPipeError:
            pass  # as with a socket: it is told by connection_lost

    def pause_reading(self) -> None:
        self.socket.pause_reading()

    def resume_reading(self) -> None:
        self.socket.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.socket.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self.socket.transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("a WebSocket has no half-closed state")

    def close(self) -> None:
        self.socket.leave()

    def abort(self) -> None:
        self.socket.transport.abort()

    # What the WebSocket calls

    def opened(self) -> None:
        # Not a whole transport: as much of one as the protocol that is tunnelled needs.
        self._inner.connection_made(cast(asyncio.Transport, self))

    def message(self, data: bytes | bytearray | str, last: bool) -> None:
        if isinstance(data, str):
            raise ValueError("a text message: what is tunnelled are bytes")
        self._inner.data_received(bytes(data))

    def ended(self) -> None:
        self._inner.connection_lost(None)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
