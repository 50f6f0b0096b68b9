"""The client's way to a streaming server: a connection, with TLS where the URL says so, and its upgrade."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import h11

from podwright.errors import InvalidArgument, PodwrightError, Unavailable
from podwright.streaming.client_status import error_of
from podwright.tls import client_context

ANSWER_TIMEOUT = 30.0
"""Seconds for the connection and for the answer to the upgrade, as long as servers wait for the streams."""

BODY_LIMIT = 1 << 16
"""Bytes of a refusal that are read."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How https servers are believed, and how they shall believe this client. Files are PEM."""

    ca: Path | None = None
    """Who must have signed the server's certificate; None: whoever the host trusts."""
    insecure: bool = False
    """Believe any certificate: whoever sits between can read and write everything."""
    cert: Path | None = None
    key: Path | None = None


class Refused(Exception):
    """The server answered the upgrade with something else; `error` is what it said."""

    def __init__(self, error: PodwrightError) -> None:
        super().__init__(str(error))
        self.error = error


async def upgrade(
    url: str, tls: Tls, method: str, headers: Sequence[tuple[str, str]]
) -> tuple[dict[str, str], asyncio.Transport, bytes]:
    """Connect to `url` and ask for an upgrade: the headers of the 101, by lower-case names; the transport,
    which does not read until its next protocol lets it; what has come beyond the answer.

    Raises InvalidArgument for a URL that is none, Refused for any other answer, Unavailable without one.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError):
        raise InvalidArgument("url", f"{url!r} is no address of a streaming server") from None
    if not parts.hostname:
        raise InvalidArgument("url", f"{url!r} names no host")
    server = f"the streaming server {parts.hostname}:{port}"
    request = h11.Request(
        method=method,
        target=f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}",
        headers=[("Host", parts.netloc.rpartition("@")[2]), ("Connection", "Upgrade"), *headers],
    )
    context = _context(tls) if parts.scheme == "https" else None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            loop = asyncio.get_running_loop()
            _, asked = await loop.create_connection(
                lambda: _Asked(request), parts.hostname, port, ssl=context
            )
            return await asked.upgraded()
    except TimeoutError:
        raise Unavailable(f"{server} does not answer") from None
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"{server} is not believed: {error.verify_message}; name who signs its certificate (--ca)"
        ) from None
    except h11.RemoteProtocolError as error:
        raise Unavailable(f"{server} speaks no HTTP: {error}") from None
    except OSError as error:
        # Who wants a certificate need not say so: since TLS 1.3 it just leaves after the handshake.
        wanted = (
            context is not None and tls.cert is None and isinstance(error, ConnectionError | ssl.SSLError)
        )
        hint = "; it may want a certificate of its clients (--cert, --key)" if wanted else ""
        raise Unavailable(f"{server} cannot be reached: {error.strerror or error}{hint}") from None


class _Asked(asyncio.Protocol):
    """One request; its answer is an upgrade or a refusal."""

    def __init__(self, request: h11.Request) -> None:
        self._request = request
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport
        self._answer: h11.Response | None = None
        self._body = bytearray()
        self._done: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def upgraded(self) -> tuple[dict[str, str], asyncio.Transport, bytes]:
        try:
            headers = await self._done
        except BaseException:
            self._transport.abort()
            raise
        return headers, self._transport, self._http.trailing_data[0]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        for event in (self._request, h11.EndOfMessage()):
            self._transport.write(self._http.send(event) or b"")

    def data_received(self, data: bytes) -> None:
        if self._done.done():
            return
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if self._take(event):
                    return
        except h11.RemoteProtocolError as error:
            self._fail(error)

    def _take(self, event: object) -> bool:
        """Whether it was the last of the answer."""
        match event:
            case h11.InformationalResponse(status_code=101):
                self._transport.pause_reading()
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                self._done.set_result(headers)
                return True
            case h11.Response():
                self._answer = event
            case h11.Data():
                self._body += event.data
                if len(self._body) > BODY_LIMIT:
                    self._refused()
                    return True
            case h11.EndOfMessage() | h11.ConnectionClosed():
                self._refused()
                return True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None:
            self._refused()
        self._fail(error or ConnectionResetError("it closed the connection without an answer"))

    def _refused(self) -> None:
        if self._answer is None:
            self._fail(ConnectionResetError("it closed the connection without an answer"))
            return
        code, reason = self._answer.status_code, bytes(self._answer.reason).decode("latin-1")
        words = self._body.decode(errors="replace").strip() or reason
        self._fail(Refused(error_of(code, f"the streaming server refused ({code}): {words}")))

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # who asked may have been cancelled: then nobody wants to know


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = client_context(tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument("TLS", f"certificates cannot be loaded: {error}") from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
