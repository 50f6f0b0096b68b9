"""One HTTP GET, as a kubelet's probes and hooks make it: no certificate is verified, redirects are followed
within limits, little of the body is read. The words of errors are those of Go's client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from podwright.kube.probes.answers import KEPT
from podwright.kube.probes.dial import DialError, address, connected

REDIRECTS = 10
REDIRECT_CODES = (301, 302, 303, 307, 308)
CHUNK = 16 << 10


class GetError(Exception):
    """No response; the text is Go's ("Get \\"http://10.0.0.1:80/\\": EOF")."""


class PlainAnswerError(GetError):
    """The server does not speak TLS."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    """The first KEPT bytes."""
    location: str = ""


def url(scheme: str, host: str, port: int, path: str) -> str:
    """`path` may have a query; "" is the root."""
    return f"{scheme.lower()}://{address(host, port)}{path if path.startswith('/') else '/' + path}"


async def get(target: str, headers: Sequence[tuple[str, str]], *, only_host: bool) -> Response:
    """Follows redirects, at most REDIRECTS of them; with `only_host` not to another host: then the redirect
    itself is the response. Takes as long as it takes: time limits are the caller's."""
    first = urlsplit(target)
    current = target
    for _ in range(REDIRECTS):
        response = await _once(current, headers)
        if response.status not in REDIRECT_CODES or not response.location:
            return response
        following = urljoin(current, response.location)
        parts = urlsplit(following)
        if parts.scheme not in ("http", "https"):
            raise GetError(f'Get "{following}": unsupported protocol scheme "{parts.scheme}"')
        if only_host and parts.hostname != first.hostname:
            return response
        if parts.hostname != first.hostname:
            # The Host header was meant for the first one.
            headers = [(name, value) for name, value in headers if name.lower() != "host"]
        current = following
    raise GetError(f'Get "{current}": stopped after {REDIRECTS} redirects')


async def _once(target: str, headers: Sequence[tuple[str, str]]) -> Response:
    parts = urlsplit(target)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    tls = _no_verification() if parts.scheme == "https" else None
    try:
        async with connected(parts.hostname or "", port, tls) as (reader, writer):
            connection = h11.Connection(h11.CLIENT)
            request = h11.Request(method="GET", target=_origin_form(parts), headers=_headers(parts, headers))
            writer.write(connection.send(request) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            return await _response(connection, reader)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            raise PlainAnswerError(
                f'Get "{target}": http: server gave HTTP response to HTTPS client'
            ) from error
        raise GetError(f'Get "{target}": tls: {error.reason or error}') from error
    except DialError as error:
        raise GetError(f'Get "{target}": {error}') from error
    except (h11.LocalProtocolError, ValueError) as error:
        raise GetError(f'Get "{target}": net/http: invalid request: {error}') from error
    except h11.RemoteProtocolError as error:
        raise GetError(
            f'Get "{target}": net/http: HTTP/1.x transport connection broken:'
            f" malformed HTTP response: {error}"
        ) from error
    except EOFError as error:
        raise GetError(f'Get "{target}": EOF') from error
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise GetError(f'Get "{target}": read tcp {address(parts.hostname or "", port)}: {words}') from error


async def _response(connection: h11.Connection, reader: asyncio.StreamReader) -> Response:
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(CHUNK)
            if not data and head is None:
                raise EOFError
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        if head is not None and (isinstance(event, h11.EndOfMessage) or len(body) >= KEPT):
            location = next((value for name, value in head.headers if name == b"location"), b"")
            return Response(head.status_code, bytes(body[:KEPT]), location.decode("latin-1"))


def _headers(parts: SplitResult, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    names = {name.lower() for name, _ in headers}
    default = [] if "host" in names else [("Host", parts.netloc)]
    return [*default, *headers, ("Connection", "close")]


def _origin_form(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _no_verification() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
