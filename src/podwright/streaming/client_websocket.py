"""Exec, attach and port-forward over WebSocket, from the client's side: channels, and SPDY tunnelled."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence

from podwright.engines.streams import Size, Streams
from podwright.errors import Unavailable, Unimplemented
from podwright.streaming import channels, client_http
from podwright.streaming.channels import Channels, Inlet, Outlet
from podwright.streaming.client_http import Tls
from podwright.streaming.client_spdy import PORT_FORWARD, size_document
from podwright.streaming.spdy import Session
from podwright.streaming.tunnel import PREFIX, Tunnel
from podwright.streaming.websocket import VERSION, accept_headers

NEWEST = ("v5.channel.k8s.io",)
ALL = (*NEWEST, "v4.channel.k8s.io")

_NUMBERS = {"stdout": channels.STDOUT, "stderr": channels.STDERR, "error": channels.ERROR}


async def _upgraded(url: str, tls: Tls, subprotocols: Sequence[str]) -> tuple[str, asyncio.Transport, bytes]:
    """The subprotocol that the server has chosen, the transport, and what has come already. Raises Refused,
    Unavailable."""
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    headers = (
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", VERSION),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Protocol", ", ".join(subprotocols)),
    )
    answer, transport, rest = await client_http.upgrade(url, tls, "GET", headers)
    chosen = answer.get("sec-websocket-protocol", "")
    expected = dict(accept_headers(key, chosen))["sec-websocket-accept"]
    if answer.get("sec-websocket-accept") != expected or chosen not in subprotocols:
        transport.abort()
        raise Unavailable(
            f"the streaming server answered the WebSocket handshake wrongly (subprotocol {chosen!r})"
        )
    return chosen, transport, rest


async def wire(streams: Streams, tls: Tls, subprotocols: Sequence[str], url: str) -> WebSocketWire:
    """The channels of an exec or attach. Raises Refused, Unavailable."""
    chosen, transport, rest = await _upgraded(url, tls, subprotocols)
    made = WebSocketWire(chosen, streams)
    socket = made.channels.socket
    transport.set_protocol(socket)
    socket.connection_made(transport)
    if rest:
        socket.data_received(rest)
    socket.resume_reading()
    return made


class WebSocketWire:
    """A `client.Wire`."""

    def __init__(self, subprotocol: str, streams: Streams) -> None:
        self.channels = Channels(subprotocol, client=True)
        self._subprotocol = subprotocol
        self._ends = subprotocol.startswith("v5.")
        wanted = {"stdout": streams.stdout, "stderr": streams.stderr, "error": True}
        self._inlets: dict[str, Inlet] = {
            name: self.channels.inlet(_NUMBERS[name]) for name, each in wanted.items() if each is not None
        }
        self._stdin: Outlet = self.channels.outlet(channels.STDIN)

    async def send(self, data: bytes) -> None:
        await self._stdin.write(data)

    async def end_input(self) -> None:
        if not self._ends:
            raise Unimplemented(
                f"the streaming server speaks {self._subprotocol}, which cannot tell the command that its"
                " input has ended: use SPDY"
            )
        await self._stdin.close()

    async def resize(self, size: Size) -> None:
        await self.channels.send(channels.RESIZE, size_document(size))

    async def read(self, channel: str) -> bytes:
        """Servers end their channels by ending the connection: ConnectionResetError."""
        return await self._inlets[channel].read()

    async def leave(self, channel: str) -> None:
        self.channels.listen(_NUMBERS[channel], lambda data: None)
        self.channels.has_room(self._inlets[channel])

    async def close(self, *, clean: bool) -> None:
        if clean:
            await self.channels.socket.close()
        else:
            self.channels.socket.transport.abort()


async def tunnel(tls: Tls, url: str) -> Session:
    """A SPDY session for the connections of a port-forward, tunnelled. Raises Refused, Unavailable."""
    _, transport, rest = await _upgraded(url, tls, (PREFIX + PORT_FORWARD,))
    session = Session(client=True)
    tunnel = Tunnel(session, client=True)
    transport.set_protocol(tunnel.socket)
    tunnel.socket.connection_made(transport)
    if rest:
        tunnel.socket.data_received(rest)
    tunnel.socket.resume_reading()
    return session
