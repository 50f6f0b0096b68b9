"""HTTP/1.1 on a Unix socket: h11 is the protocol, asyncio the transport, a function the answer.

No routing, no JSON: that is `control`'s. A request is read whole before it is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from podwright.errors import FailedPrecondition
from podwright.server.endpoint import claimed, private_umask

BODY_LIMIT = 16 << 20
"""Bytes of a request's body."""

CHUNK = 64 << 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Decoded: "%2F" is a slash here."""
    query: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)


Answer = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def listening(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Answer requests at the socket `path`, which only its owner and group may open, until the block is left.

    FailedPrecondition when another server listens there or the socket cannot be made.
    """
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _Connection(reader, writer, answer).serve()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has left, or we do
        finally:
            connections.discard(task)
            writer.close()

    with claimed(path, "--control"):
        try:
            with private_umask():
                server = await asyncio.start_unix_server(connected, os.fspath(path))
        except OSError as error:
            raise FailedPrecondition(f"cannot listen at {path}: {error.strerror}") from error
        try:
            yield
        finally:
            server.close()
            for task in connections:
                task.cancel()
            if connections:
                await asyncio.wait(connections)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._protocol = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        """Request after request, until one of the two sides closes."""
        while True:
            try:
                request = await self._request()
                if request is None:
                    return
                response = await self._answered(request)
            except h11.RemoteProtocolError as error:
                response = Response(error.error_status_hint, _words(f"this is no HTTP request: {error}"))
            await self._respond(response)
            if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    async def _request(self) -> Request | None:
        """The next one, None when the client has left."""
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        body = bytearray()
        while isinstance(part := await self._event(), h11.Data):
            body += part.data
            if len(body) > BODY_LIMIT:
                raise h11.RemoteProtocolError(f"a body of more than {BODY_LIMIT} bytes", 413)
        url = urlsplit(event.target.decode("ascii"))
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        return Request(event.method.decode("ascii"), unquote(url.path), query, bytes(body))

    async def _event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            if self._protocol.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._protocol.receive_data(await self._reader.read(CHUNK))
        return event

    async def _answered(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Exception as error:
            log.exception("%s %s: a defect", request.method, request.path)
            return Response(500, _words(f"{type(error).__name__}: {error}"))

    async def _respond(self, response: Response) -> None:
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return  # nobody reads an answer any more
        headers = [*response.headers, ("content-length", str(len(response.body)))]
        await self._send(h11.Response(status_code=response.status, headers=headers))
        await self._send(h11.Data(data=response.body))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        if data := self._protocol.send(event):
            self._writer.write(data)
            await self._writer.drain()


def _words(message: str) -> bytes:
    import msgspec

    return msgspec.json.encode({"error": message}) + b"\n"
