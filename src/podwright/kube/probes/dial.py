"""Opening a TCP connection, and saying as Go does why there is none."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CONNECT = {
    errno.ECONNREFUSED: "connect: connection refused",
    errno.EHOSTUNREACH: "connect: no route to host",
    errno.ENETUNREACH: "connect: network is unreachable",
    errno.ECONNRESET: "connect: connection reset by peer",
    errno.EACCES: "connect: permission denied",
    errno.EADDRNOTAVAIL: "connect: cannot assign requested address",
    errno.ETIMEDOUT: "connect: connection timed out",
}


class DialError(Exception):
    """There is no connection; the text is Go's ("dial tcp 10.0.0.1:80: connect: connection refused")."""


def address(host: str, port: int) -> str:
    """ "10.0.0.1:80", "[fd00::1]:80"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def connected(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection for as long as the block lasts; nothing of it is left afterwards, also when the block is
    cancelled. DialError when nobody answers; ssl.SSLError when TLS is not spoken."""
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    except ssl.SSLError:
        raise
    except socket.gaierror as error:
        raise DialError(f"dial tcp: lookup {host}: no such host") from error
    except OSError as error:
        words = _CONNECT.get(error.errno or 0, f"connect: {(error.strerror or str(error)).lower()}")
        raise DialError(f"dial tcp {address(host, port)}: {words}") from error
    try:
        yield reader, writer
    finally:
        # Not close(): a peer that reads nothing more would keep what is unsent, and TLS would wait for it.
        writer.transport.abort()
