"""One HTTP/1.1 request to a registry, its answer as a stream: with TLS and proxies as the host has them."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import h11

from podwright.tls import client_context

CONNECTING = 30.0
"""Seconds until a connection stands, TLS included."""
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe."""

    insecure: bool
    """Any certificate, or none at all."""
    certificates: Path | None
    """A directory with *.crt (authorities), and *.cert with *.key (who we are); for `host` only."""
    host: str

    def context(self, host: str) -> ssl.SSLContext:
        """Raises OSError for certificates that cannot be read."""
        context = client_context()
        context.set_alpn_protocols(["http/1.1"])
        if self.certificates is not None and host == self.host:
            for file in sorted(self.certificates.glob("*.crt")):
                context.load_verify_locations(file)
            for file in sorted(self.certificates.glob("*.cert")):
                context.load_cert_chain(file, file.with_suffix(".key"))
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Answer:
    """See `asked`."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, head: h11.Response) -> None:
        self.status = head.status_code
        self.headers: Mapping[str, str] = {
            name.decode(): value.decode("latin-1") for name, value in head.headers
        }
        self._connection = connection
        self._reader = reader

    async def body(self) -> AsyncIterator[bytes]:
        """Its parts as they come. Raises h11.ProtocolError when it is cut short."""
        while True:
            event = await _event(self._connection, self._reader)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return


@asynccontextmanager
async def asked(
    method: str, url: str, headers: Sequence[tuple[str, str]], trust: Trust
) -> AsyncIterator[Answer]:
    """Ask `url` without a body. Raises OSError (ssl.SSLError too) and h11.ProtocolError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    async with asyncio.timeout(CONNECTING):
        reader, writer = await _connected(parts.scheme, host, parts.port, parts.netloc, trust)
    try:
        connection = h11.Connection(h11.CLIENT)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = h11.Request(
            method=method, target=target, headers=[("Host", parts.netloc), ("Connection", "close"), *headers]
        )
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        event = await _event(connection, reader)
        while isinstance(event, h11.InformationalResponse):
            event = await _event(connection, reader)
        if not isinstance(event, h11.Response):
            raise ConnectionResetError("the connection was closed instead of an answer: EOF")
        yield Answer(connection, reader, event)
    finally:
        writer.transport.abort()


def registry_host(domain: str) -> str:
    """Where the registry `domain` is asked: Docker's has another name than its images."""
    return "registry-1.docker.io" if domain == "docker.io" else domain


def words(error: BaseException) -> str:
    """What `error` says, in the words by which such failures are known."""
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


async def _connected(
    scheme: str, host: str, port: int | None, netloc: str, trust: Trust
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = port or (443 if scheme == "https" else 80)
    proxy = getproxies_environment().get(scheme)
    loopback = host == "localhost" or host.startswith("127.") or host == "::1"
    if proxy is None or loopback or proxy_bypass(f"{host}:{port}"):
        reader, writer = await asyncio.open_connection(host, port)
    else:
        way = urlsplit(proxy)
        reader, writer = await asyncio.open_connection(way.hostname or "", way.port or 8080)
        credentials = f"{unquote(way.username or '')}:{unquote(way.password or '')}"
        try:
            await _tunnel(reader, writer, f"{host}:{port}", credentials if way.username else "")
        except BaseException:
            writer.transport.abort()
            raise
    if scheme == "https":
        try:
            await writer.start_tls(trust.context(netloc), server_hostname=host)
        except BaseException:
            writer.transport.abort()
            raise
    return reader, writer


async def _tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, credentials: str
) -> None:
    """Ask the proxy at the other end for a connection to `target`."""
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if credentials:
        head += f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"
    writer.write(f"{head}\r\n".encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionError("the proxy gives no answer") from error
    if answer.split(b" ", 2)[1:2] != [b"200"]:
        raise ConnectionError(f"the proxy says {answer.splitlines()[0].decode(errors='replace')}")


async def _event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(CHUNK))
    return event
