"""The streaming server: gives URLs with one-time tokens, and serves those who come with one.

It listens from when it is first asked for a URL. What a session does is core's and the engine's affair; what
is spoken on its connection is `remotecommand`'s and `forward`'s.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from ipaddress import ip_address
from urllib.parse import urlsplit

from podwright.config import StreamingConfig
from podwright.core.streaming import Asked, Streaming
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.streaming import handshake, presence, status
from podwright.streaming.conversation import Conversation
from podwright.streaming.http import Connections, Request, Response, Upgrade
from podwright.streaming.tokens import Tokens
from podwright.wire import cri_pb2 as cri

BACKLOG = 1024
"""Connections that wait for this process; a crowd of clients may come at once."""

TLS_HANDSHAKE = 10.0
"""Seconds for a client to agree on TLS."""

_KIND = {"ExecRequest": "exec", "AttachRequest": "attach", "PortForwardRequest": "portforward"}

log = logging.getLogger("podwright.streaming")


class Server:
    """Of one runtime: `streaming.giver = Server(config, streaming)`. Close it before the runtime.

    InvalidArgument when the configuration contradicts itself.
    """

    def __init__(
        self, config: StreamingConfig, streaming: Streaming, *, look_every: float = presence.LOOK_EVERY
    ) -> None:
        """Every `look_every` seconds it looks for clients that have vanished or say nothing."""
        self._config = config
        self._base, self._prefix = _base(config)
        self._streaming = streaming
        self._tokens: Tokens[Asked] = Tokens()
        self._connections = Connections(self._answer, made=presence.keep_alive)
        self._watch = presence.Watch(self._connections, config.idle_timeout, look_every)
        self._server: asyncio.Server | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    @property
    def address(self) -> str:
        if self._server is None:
            return ""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def url(self, asked: Asked) -> str:
        await self.listen()
        return f"{self._base or self._own_base()}/{_kind(asked)}/{self._tokens.add(asked)}"

    async def listen(self) -> None:
        """FailedPrecondition when the address or the TLS files cannot be used."""
        async with self._lock:
            if self._closed:
                raise FailedPrecondition("the streaming server is closed")
            if self._server is None:
                self._server = await self._listening()

    async def close(self) -> None:
        """Serve no more: sessions are told that podwright stops, and what they run gets a hang-up."""
        async with self._lock:
            self._closed = True
            self._tokens.clear()
            if self._server is not None:
                self._server.close()
            self._watch.stop()
            await self._connections.close()

    def abort(self) -> None:
        """Break every connection at once; `close` is still to be called."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections.all):
            connection.abort()

    async def _listening(self) -> asyncio.Server:
        config = self._config
        try:
            server = await asyncio.get_running_loop().create_server(
                self._connections,
                config.address,
                config.port,
                # One name may have several addresses; a port that is free on all of them may not exist.
                family=_family(config.address),
                backlog=BACKLOG,
                ssl=_tls(config),
                ssl_handshake_timeout=TLS_HANDSHAKE if config.tls_cert else None,
            )
        except (OSError, OverflowError) as error:
            raise FailedPrecondition(
                f"cannot listen for streams at {config.address} port {config.port}:"
                f" {getattr(error, 'strerror', None) or error}; see [streaming] in the configuration"
            ) from error
        self._watch.start()
        if not config.tls_cert and not _is_loopback(server):
            log.warning(
                "streams are served at %s without TLS: whoever sees a URL on its way there has the container;"
                " see [streaming] in the configuration",
                config.address,
            )
        return server

    def _own_base(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        # Nobody can be spoken to at "any address".
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "https" if self._config.tls_cert else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    # Requests

    async def _answer(self, request: Request) -> Response | Upgrade:
        # A proxy may or may not take off what base_url puts before.
        path = request.path.removeprefix(self._prefix)
        if (found := _PATH.fullmatch(path)) is None:
            return Response.words(
                404, "nothing is here, only at /exec/TOKEN, /attach/TOKEN and /portforward/TOKEN"
            )
        kind, token = found.groups()
        if request.method not in ("GET", "POST"):
            return Response.words(
                405, f"{request.method} is not possible here, only GET and POST", ("allow", "GET, POST")
            )
        asked = self._tokens.look(token)
        if asked is None or _kind(asked) != kind:
            return Response.words(
                404, "this URL is not known: it works once, within a minute after it was made"
            )
        chosen = handshake.choose(request, kind)
        if isinstance(chosen, Response):
            return chosen
        if chosen.channels is not None and isinstance(asked, cri.PortForwardRequest) and not asked.port:
            return Response.words(400, f"{chosen.version} needs ports, and PortForward was asked for none")
        # Nothing awaits between the look and this: of two clients one has it.
        self._tokens.take(token)
        try:
            self._streaming.check(asked)
        except PodwrightError as error:
            return Response.words(status.http_status(error), str(error))
        patience = self._config.creation_timeout
        conversation = Conversation(asked, request.peer, chosen, self._streaming, patience)
        return Upgrade(chosen.headers, chosen.protocol, conversation.run)


_PATH = re.compile(r"/(exec|attach|portforward)/([A-Za-z0-9_-]{8})")


def _kind(asked: Asked) -> str:
    return _KIND[type(asked).__name__]


def _base(config: StreamingConfig) -> tuple[str, str]:
    """The configured beginning of URLs, and the path in it."""
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert")):
        if getattr(config, name) and not getattr(config, other):
            raise InvalidArgument(f"streaming.{name}", f"needs streaming.{other}, too")
    for name in ("idle_timeout", "creation_timeout"):
        if not getattr(config, name) > 0:
            raise InvalidArgument(f"streaming.{name}", "is not a number of seconds above 0")
    base = config.base_url.rstrip("/")
    parts = urlsplit(base)
    if base and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
        raise InvalidArgument(
            "streaming.base_url", f"{config.base_url!r} is not http(s)://HOST[:PORT][/PATH]"
        )
    return base, parts.path


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_loopback(server: asyncio.Server) -> bool:
    return all(ip_address(each.getsockname()[0].partition("%")[0]).is_loopback for each in server.sockets)


def _tls(config: StreamingConfig) -> ssl.SSLContext | None:
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
        if config.tls_client_ca:
            context.load_verify_locations(config.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(
            f"the certificate, key or client CA of [streaming] cannot be used"
            f" ({config.tls_cert}, {config.tls_key}, {config.tls_client_ca or 'no CA'}): {error}"
        ) from error
    return context
