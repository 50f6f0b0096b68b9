"""HTTP/1.1 for a server: h11 is the protocol, an asyncio transport carries it, a function is the answer.

A request is read whole before it is answered. An answer may be to speak another protocol from then on: then
bytes go past h11 to that protocol. No routing, no sockets: those are the callers'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

HEAD_LIMIT = 16 << 10
"""Bytes of a request's line and headers."""

LINGER = 2.0
"""Seconds for a client to take the last answer, while what it still sends is thrown away: closing at once
would make the kernel reset the connection, and the answer would be lost."""

Headers = tuple[tuple[str, str], ...]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Decoded: "%2F" is a slash here."""
    query: dict[str, str]
    body: bytes = b""
    headers: Headers = ()
    """In their order; names in lower case."""
    peer: str = ""
    """Who asks: "127.0.0.1:40112"."""

    def values(self, name: str) -> list[str]:
        """The comma-separated values of all headers `name` (in lower case)."""
        return [
            value
            for key, values in self.headers
            if key == name
            for each in values.split(",")
            if (value := each.strip())
        ]

    @property
    def upgrade(self) -> str:
        """The protocol that the client asks to go on in, in lower case; "" when it asks for none."""
        if "upgrade" not in {value.lower() for value in self.values("connection")}:
            return ""
        return next(iter(self.values("upgrade")), "").lower()


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    headers: Headers = (("content-type", "application/json"),)

    @classmethod
    def words(cls, status: int, words: str, *headers: tuple[str, str]) -> Response:
        """An answer for people."""
        return cls(status, words.encode() + b"\n", (("content-type", "text/plain; charset=utf-8"), *headers))


class Inner(Protocol):
    """What is spoken after an upgrade: an asyncio.Protocol that knows when it was last used."""

    last_active: float
    """The loop's time of the last byte in either direction."""

    def connection_made(self, transport: asyncio.Transport, /) -> None: ...

    def data_received(self, data: bytes, /) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Go on in another protocol."""

    headers: Headers
    """Of the answer 101, besides Connection."""
    protocol: Inner
    run: Callable[[], Awaitable[None]]
    """The session; the connection is closed after it. Cancelled when the server stops."""


Answer = Callable[[Request], Awaitable[Response | Upgrade]]


@dataclass(frozen=True, slots=True)
class Limits:
    head: float | None = 10.0
    """Seconds within which a whole request must have arrived, since the connection or the last answer."""
    body: int = 0
    """Bytes of a request's body."""


@dataclass(eq=False, slots=True)
class Connections:
    """The connections of one server."""

    answer: Answer
    refusal: Callable[[int, str], Response] = Response.words
    """Makes an answer of a status and why it has that."""
    limits: Limits = Limits()
    made: Callable[[asyncio.Transport], None] = lambda _: None
    """Is told of each."""
    all: set[Http] = field(default_factory=set)

    def __call__(self) -> Http:
        """A protocol for a connection that has just been made."""
        return Http(self)

    async def close(self) -> None:
        """Cancel what is under way, wait until it has ended, and leave."""
        tasks = [connection.task for connection in self.all if connection.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for connection in list(self.all):
            connection.abort()


class Http(asyncio.Protocol):
    """One connection."""

    def __init__(self, connections: Connections) -> None:
        self.task: asyncio.Task[None] | None = None
        """The answer, or the session after an upgrade."""
        self.transport: asyncio.Transport
        self.inner: Inner | None = None
        """After an upgrade."""
        self._connections = connections
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._leaving = False

    def abort(self) -> None:
        """Break the connection now; what was not sent is lost."""
        self.transport.abort()

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections.all.add(self)
        self._connections.made(self.transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        if self.inner is not None:
            self.inner.data_received(data)
        elif not self._leaving:
            self._http.receive_data(data)
            self._go_on()

    def eof_received(self) -> bool | None:
        if self.inner is not None:
            return self.inner.eof_received()
        if self._leaving:
            return False
        self._http.receive_data(b"")
        self._go_on()
        # A client that asks no more may still be waiting. TLS has no such half.
        return self.transport.can_write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.all.discard(self)
        self._stop_timer()
        if self.inner is not None:
            self.inner.connection_lost(error)
        elif self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    # Requests

    def _go_on(self) -> None:
        try:
            while self.task is None and not self.transport.is_closing():
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, f"this is no HTTP request: {error}")

    def _take(self, event: object) -> None:
        match event:
            case h11.Request():
                self._head = event
                self._body.clear()
            case h11.Data():
                self._body += event.data
                if len(self._body) > self._connections.limits.body:
                    raise h11.RemoteProtocolError(
                        f"a body of more than {self._connections.limits.body} bytes", 413
                    )
            case h11.EndOfMessage():
                self._stop_timer()
                # Not more than one request at a time: what comes after it waits in the kernel.
                self.transport.pause_reading()
                self.task = asyncio.get_running_loop().create_task(self._answer())
            case _:
                self.transport.close()

    async def _answer(self) -> None:
        try:
            answer = await self._answered()
            if isinstance(answer, Upgrade):
                await self._switch(answer)
            else:
                self._respond(answer)
        except asyncio.CancelledError:
            if self.inner is None:
                self.transport.abort()  # the client has left, or we do
        finally:
            self.task = None
        if self.inner is None and not self._leaving and not self.transport.is_closing():
            self.transport.resume_reading()
            self._go_on()

    async def _answered(self) -> Response | Upgrade:
        try:
            request = self._request()
        except ValueError as error:
            # h11 lets pass what urllib takes for the beginning of an IPv6 address.
            return self._connections.refusal(400, f"this is no target of a request: {error}")
        try:
            return await self._connections.answer(request)
        except Exception as error:
            log.exception("%s: a defect", request.method)
            return self._connections.refusal(500, f"{type(error).__name__}: {error}")

    def _request(self) -> Request:
        head = self._head
        assert head is not None
        url = urlsplit(head.target.decode("ascii"))
        peer = self.transport.get_extra_info("peername")
        return Request(
            head.method.decode("ascii"),
            unquote(url.path),
            dict(parse_qsl(url.query, keep_blank_values=True)),
            bytes(self._body),
            tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers),
            f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "",
        )

    # Answers

    def _respond(self, response: Response) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return  # nobody reads an answer any more
        headers = [*response.headers, ("content-length", str(len(response.body)))]
        self._send(h11.Response(status_code=response.status, headers=headers))
        if self._head is None or self._head.method != b"HEAD":
            self._send(h11.Data(data=response.body))
        self._send(h11.EndOfMessage())
        if set(self._http.states.values()) == {h11.DONE}:
            self._http.start_next_cycle()
            self._head = None
            self._expect()
        else:
            self._leave()

    def _refuse(self, status: int, words: str) -> None:
        if self.transport.is_closing():
            return
        self._stop_timer()
        self._respond(self._connections.refusal(status, words))

    def _leave(self) -> None:
        self._leaving = True
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self.transport.close)

    async def _switch(self, upgrade: Upgrade) -> None:
        headers = [("connection", "Upgrade"), *upgrade.headers]
        self._send(h11.InformationalResponse(status_code=101, headers=headers, reason=_REASON_101))
        early, _ = self._http.trailing_data
        self.inner = inner = upgrade.protocol
        inner.connection_made(self.transport)
        # Not before the session has begun, which knows what to do with it.
        asyncio.get_running_loop().call_soon(self._go_on_inside, inner, early)
        try:
            await upgrade.run()
        finally:
            self.transport.close()

    def _go_on_inside(self, inner: Inner, early: bytes) -> None:
        """`early` came right behind the request."""
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        if early:
            inner.data_received(early)

    def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self.transport.write(data)

    # Clients that are slow to ask

    def _expect(self) -> None:
        self._stop_timer()
        if (seconds := self._connections.limits.head) is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._head is None and not self._http.trailing_data[0]:
            self.transport.close()  # it never asked for anything
        else:
            seconds = self._connections.limits.head
            self._leaving = True
            self._refuse(408, f"the request did not arrive within {seconds:g} s")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_REASON_101 = HTTPStatus.SWITCHING_PROTOCOLS.phrase.encode()
