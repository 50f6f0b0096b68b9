"""Servers on loopback for probes and hooks: HTTP that answers from a table, ones that hang, TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Server:
    port: int
    requests: list[str] = field(default_factory=list)
    """Heads of requests."""
    open: int = 0
    """Connections that have not ended."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the last connection has ended."""


@asynccontextmanager
async def http(
    answers: Mapping[str, str | bytes | None], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A server that answers a path with these bytes ("{port}" is its port) and closes; None: never. What is
    no request is a bad one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.open += 1
        try:
            head = (await reader.read(1 << 16)).decode("latin-1")
            server.requests.append(head)
            is_http = head.startswith("GET ")
            answer = answers[head.split(" ")[1]] if is_http else "HTTP/1.1 400 Bad Request\r\n\r\n"
            if answer is None:
                await reader.read()
                return
            if isinstance(answer, str):
                answer = answer.replace("{port}", str(server.port)).encode()
            writer.write(answer)
            await writer.drain()
        except OSError:
            pass  # the client has gone
        finally:
            writer.close()
            server.open -= 1
            if not server.open:
                server.closed.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server = Server(listener.sockets[0].getsockname()[1])
    async with listener:
        yield server


def ok(body: str = "fine") -> str:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"


def redirect(location: str, code: int = 302) -> str:
    return f"HTTP/1.1 {code} Found\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\naway"


def self_signed(directory: Path) -> ssl.SSLContext:
    """Of a server that nobody should trust."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-subj", "/CN=nobody", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
