"""A Docker Engine that answers what was recorded, on a unix socket, and remembers what it was asked.

Reads may come more often than recorded, and in another order; what changes something is answered once each.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

READS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    """Without the version."""
    query: Mapping[str, str]
    body: Any

    @property
    def line(self) -> str:
        """ "POST /containers/ID/stop t=10"."""
        words = [self.method, self.path, *(f"{key}={value}" for key, value in sorted(self.query.items()))]
        return " ".join(words)


def asked(method: str, target: str, body: Any) -> Asked:
    parts = urlsplit(target)
    path = unquote(parts.path)
    if path.startswith("/v1."):
        path = "/" + path.split("/", 2)[2]
    return Asked(method, path, dict(parse_qsl(parts.query)), body)


@dataclass
class Double:
    socket: Path
    exchanges: list[dict[str, Any]]
    """Recorded, tokens filled in."""
    root: Path
    log: list[Asked] = field(default_factory=list)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    version: str = "1.41"
    upgrades: bool = False
    """Give connections over to those who ask: what comes goes back in capitals."""
    there: dict[str, Any] = field(default_factory=dict)
    """What Docker says of containers that no exchange shows, by its id."""
    events: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    """What the stream of events tells next."""
    heard: list[bytes] = field(default_factory=list)
    """What came over each connection that was given over as recorded, up to its end."""
    prefixes: set[str] = field(default_factory=set)
    """The versions that requests named: "v1.41"."""
    authorizations: list[dict[str, str]] = field(default_factory=list)
    """The credentials for registries, decoded."""

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def changes(self) -> list[Asked]:
        return [each for each in self.log if each.method not in READS]

    def given_over(self, method: str, target: str, body: bytes) -> dict[str, Any] | None:
        """The recorded exchange of a connection that Docker gives over, when that is what is asked for."""
        request = asked(method, target, None)
        for place, exchange in enumerate(self.exchanges):
            recorded = asked(exchange["method"], exchange["path"], None)
            if exchange.get("upgrade") and (recorded.method, recorded.path) == (request.method, request.path):
                self.log.append(asked(method, target, json.loads(body) if body else None))
                return self.exchanges.pop(place)
        return None

    def answer(self, request: Asked) -> tuple[int, Any]:
        self.log.append(request)
        for place, exchange in enumerate(self.exchanges):
            recorded = asked(exchange["method"], exchange["path"], None)
            if (recorded.method, recorded.path) != (request.method, request.path):
                continue
            if recorded.path == "/containers/json" and "filters" in recorded.query:
                continue  # by filters that podwright has no use for
            if request.method not in READS:
                del self.exchanges[place]
            elif any(
                asked(later["method"], later["path"], None).line == recorded.line
                for later in self.exchanges[place + 1 :]
            ):
                del self.exchanges[place]  # a later state of the same thing comes next
            return exchange["status"], exchange["response"]
        return self._usual(request)

    def _usual(self, request: Asked) -> tuple[int, Any]:
        """What an Engine answers that has nothing but what was recorded."""
        match request.path.split("/")[1:]:
            case ["_ping"]:
                return 200, None
            case ["info"]:
                return 200, {
                    "ServerVersion": "20.10.24",
                    "OSType": "linux",
                    "DockerRootDir": str(self.root),
                    "CgroupDriver": "cgroupfs",
                    "CgroupVersion": "1",
                    "Runtimes": {"runc": {}, "wrapped": {}},
                    "DefaultRuntime": "wrapped",
                    "SecurityOptions": ["name=seccomp,profile=default"],
                }
            case ["containers", "json"]:
                return 200, []
            case ["containers", id, "json"] if id in self.there:
                return 200, self.there[id]
            case ["containers", _, "archive"]:
                return 404, {"message": "Could not find the file"}
        return 404, {"message": f"nothing like {request.line} was recorded"}


async def serve(served: Double, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    served.connections.append(writer)
    try:
        await _serve(served, reader, writer)
    except (ConnectionError, h11.RemoteProtocolError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def double(directory: Path, exchanges: Sequence[dict[str, Any]]) -> AsyncIterator[Double]:
    """Serving inside the block. `directory` is Docker's root, too."""
    socket = directory / "docker.sock"
    served = Double(socket, list(exchanges), directory)

    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(serve(served, reader, writer)))

    server = await asyncio.start_unix_server(accept, socket)
    try:
        yield served
    finally:
        server.close()
        for each in served.connections:
            each.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)


async def _serve(served: Double, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    http = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(1 << 16)
            http.receive_data(data)
        elif isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            method = request.method.decode()
            if request.target.startswith(b"/v"):
                served.prefixes.add(request.target.decode().split("/")[1])
            if any(name == b"upgrade" for name, _ in request.headers):
                if served.upgrades:
                    await _hand_over(http, reader, writer)
                    return
                if (exchange := served.given_over(method, request.target.decode(), body)) is not None:
                    await _replay(served, exchange, http, reader, writer)
                    return
            if asked(method, request.target.decode(), None).path == "/events":
                await _events(served, http, writer)
                return
            said = json.loads(body) if body else None
            status, answer = served.answer(asked(method, request.target.decode(), said))
            served.authorizations += [
                json.loads(base64.urlsafe_b64decode(value))
                for key, value in request.headers
                if key == b"x-registry-auth"
            ]
            raw = b"" if answer is None or method == "HEAD" else json.dumps(answer).encode()
            if isinstance(answer, list) and "/images/create" in request.target.decode():
                raw = b"".join(json.dumps(each).encode() + b"\n" for each in answer)  # told one by one
            headers = [("Api-Version", served.version), ("Content-Type", "application/json")]
            if status not in (204, 304):
                headers.append(("Content-Length", str(len(raw))))
            writer.write(http.send(h11.Response(status_code=status, headers=headers)) or b"")
            if raw:
                writer.write(http.send(h11.Data(data=raw)) or b"")
            writer.write(http.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            http.start_next_cycle()
        else:
            return


async def _replay(
    served: Double,
    exchange: dict[str, Any],
    http: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """A connection as recorded: all that went up is awaited, then what came down is sent, and it ends, unless
    the exchange "stays"; the other end is awaited."""
    _take_over(http, writer)
    up, down = (exchange[each].encode("latin-1") for each in ("stream_up", "stream_down"))
    served.heard.append(b"")
    while len(served.heard[-1]) < len(up) and (data := await reader.read(1000)):
        served.heard[-1] += data
    writer.write(down)
    if not exchange.get("stays"):
        writer.write_eof()
    while data := await reader.read(1000):
        served.heard[-1] += data


async def _events(served: Double, http: h11.Connection, writer: asyncio.StreamWriter) -> None:
    headers = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    writer.write(http.send(h11.Response(status_code=200, headers=headers)) or b"")
    while not writer.is_closing():
        await writer.drain()
        line = json.dumps(await served.events.get()).encode() + b"\n"
        writer.write(http.send(h11.Data(data=line)) or b"")


def _take_over(http: h11.Connection, writer: asyncio.StreamWriter) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "tcp")]
    writer.write(http.send(h11.InformationalResponse(status_code=101, headers=headers)) or b"")


async def _hand_over(
    http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    _take_over(http, writer)
    writer.write(b"HI ")  # its first bytes come with the answer
    while data := await reader.read(100):
        writer.write(data.upper())
        await writer.drain()
