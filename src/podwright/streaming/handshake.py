"""Which protocol a client and this server go on in: the answer to the request for an upgrade.

X-Stream-Protocol-Version for SPDY, Sec-WebSocket-Protocol for WebSocket; the client's first choice that is
known here is taken.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from podwright.streaming import channels, forward, remotecommand, tunnel, websocket
from podwright.streaming.channels import Channels
from podwright.streaming.http import Headers, Inner, Request, Response
from podwright.streaming.spdy import Session
from podwright.streaming.tunnel import Tunnel
from podwright.streaming.websocket import WebSocket

TUNNELLED = tunnel.PREFIX + forward.PROTOCOL


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the session is spoken: over SPDY, tunnelled or not, or in channels."""

    name: str
    """ "SPDY v4.channel.k8s.io", for the log."""
    version: str
    """ "v4.channel.k8s.io"."""
    headers: Headers
    """Of the answer."""
    protocol: Inner
    """What gets the connection's bytes."""
    session: Session | None = None
    channels: Channels | None = None
    socket: WebSocket | None = None
    """Below the other two, unless SPDY has the connection itself."""


def choose(request: Request, kind: str) -> Chosen | Response:
    """What to speak with who asks for "exec", "attach" or "portforward"; or the refusal, in words."""
    match request.upgrade:
        case "spdy/3.1":
            return _spdy(request, kind)
        case "websocket":
            return _websocket(request, kind)
    return Response.words(
        426,
        "streams go over SPDY/3.1 or WebSocket: ask for one of them (Connection: Upgrade, and Upgrade:"
        " SPDY/3.1 or websocket)",
        ("connection", "upgrade"),
        ("upgrade", "SPDY/3.1, websocket"),
    )


def _spdy(request: Request, kind: str) -> Chosen | Response:
    known = (forward.PROTOCOL,) if kind == "portforward" else remotecommand.PROTOCOLS
    offered = request.values("x-stream-protocol-version")
    version = _first(offered, known)
    if version is None:
        return Response.words(
            403,
            f"none of these protocols is known: {', '.join(offered)}; {', '.join(known)} are",
            *(("x-accepted-stream-protocol-versions", each) for each in known),
        )
    headers: Headers = (("upgrade", "SPDY/3.1"),)
    if offered:
        headers = (*headers, ("x-stream-protocol-version", version))
    session = Session(client=False)
    return Chosen(f"SPDY {version}", version, headers, session, session=session)


def _websocket(request: Request, kind: str) -> Chosen | Response:
    if request.method != "GET":
        return Response.words(405, "a WebSocket is asked for with GET", ("allow", "GET"))
    if request.values("sec-websocket-version") != [websocket.VERSION]:
        return Response.words(
            426,
            f"WebSocket is spoken in version {websocket.VERSION} (RFC 6455) only",
            ("sec-websocket-version", websocket.VERSION),
        )
    key = "".join(request.values("sec-websocket-key"))
    if not _is_key(key):
        return Response.words(400, "Sec-WebSocket-Key is missing, or not 16 bytes in base64")
    known = (TUNNELLED, *channels.PORT_FORWARD) if kind == "portforward" else channels.REMOTE_COMMAND
    offered = request.values("sec-websocket-protocol")
    version = _first(
        offered, known, default="v4.channel.k8s.io" if kind == "portforward" else "channel.k8s.io"
    )
    if version is None:
        return Response.words(
            403, f"none of these subprotocols is known: {', '.join(offered)}; {', '.join(known)} are"
        )
    headers = websocket.accept_headers(key, version if offered else "")
    name = f"WebSocket {version}"
    if version == TUNNELLED:
        session = Session(client=False)
        socket = Tunnel(session).socket
        return Chosen(name, version, headers, socket, session=session, socket=socket)
    made = Channels(version)
    return Chosen(name, version, headers, made.socket, channels=made, socket=made.socket)


def _first(offered: Sequence[str], known: Sequence[str], default: str = "") -> str | None:
    """The first that is known of those offered; without an offer `default`, or the oldest."""
    if not offered:
        return default or known[-1]
    return next((each for each in offered if each in known), None)


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
