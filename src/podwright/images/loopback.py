"""A small HTTP/1.1 server on loopback, for skopeo to talk to, as long as a context lasts.

Every process of the host's network can reach it: what it does for whoever asks must be harmless, or stand
behind a path that cannot be guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import h11

MAX_BODY = 4 << 20
"""Bytes of a request's body that are read: manifests are no larger."""
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case; of one that came several times the values, with commas."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Sequence[tuple[str, str]] = ()
    """With a Content-Length if `body` is a stream whose length is known."""
    body: bytes | AsyncIterator[bytes] = b""
    release: AsyncExitStack | None = None
    """Is closed when the response has been sent, or cannot be."""


Handler = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Answer requests by `handler`; the port. When the context ends, so does every connection."""
    connections: set[asyncio.Task[None]] = set()
    open_ = True

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if not open_:  # it was accepted at the last moment
            writer.close()
            return
        connections.add(task)
        try:
            await _converse(handler, reader, writer)
        except (OSError, h11.ProtocolError):
            pass  # it has gone, or is no HTTP client: skopeo tries TLS first
        except asyncio.CancelledError:
            pass  # the context has ended
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        open_ = False
        server.close()
        while connections:
            for task in connections:
                task.cancel()
            await asyncio.wait(connections)


async def _converse(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h11.Connection(h11.SERVER)
    while True:
        request = await _request(connection, reader)
        if request is None:
            return
        response = await handler(request)
        async with response.release or AsyncExitStack():
            await _respond(connection, writer, request.method, response)
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _respond(
    connection: h11.Connection, writer: asyncio.StreamWriter, method: str, response: Response
) -> None:
    headers, body = list(response.headers), response.body
    if isinstance(body, bytes) and not any(name.lower() == "content-length" for name, _ in headers):
        headers.append(("Content-Length", str(len(body))))
    writer.write(_sent(connection, h11.Response(status_code=response.status, headers=headers)))
    if isinstance(body, bytes):
        if body and method != "HEAD":
            writer.write(_sent(connection, h11.Data(data=body)))
    else:
        async for part in body:
            writer.write(_sent(connection, h11.Data(data=part)))
            await writer.drain()
    writer.write(_sent(connection, h11.EndOfMessage()))
    await writer.drain()


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The next request; None when the client has gone or sends too much."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers: dict[str, str] = {}
            for raw_name, raw_value in head.headers:
                name, value = raw_name.decode(), raw_value.decode("latin-1")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            return Request(head.method.decode(), head.target.decode(), headers, bytes(body))
        else:
            return None


def _sent(connection: h11.Connection, event: h11.Event) -> bytes:
    return connection.send(event) or b""
