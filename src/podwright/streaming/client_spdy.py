"""Exec, attach and port-forward over SPDY/3.1, from the client's side (`v4.channel.k8s.io`,
`portforward.k8s.io`)."""

from __future__ import annotations

import asyncio

import msgspec

from podwright.engines.streams import Size, Streams
from podwright.errors import Unavailable
from podwright.streaming import client_http
from podwright.streaming.client_http import Tls
from podwright.streaming.spdy import Session, Stream

REMOTE_COMMAND = "v4.channel.k8s.io"
PORT_FORWARD = "portforward.k8s.io"

_HEADER = "X-Stream-Protocol-Version"
_CREATE_SECONDS = 30.0
_FAREWELL_SECONDS = 5.0


async def session(url: str, tls: Tls, protocol: str) -> Session:
    """A session in which `protocol` is spoken. Raises Refused, Unavailable."""
    headers = (("Upgrade", "SPDY/3.1"), (_HEADER, protocol), ("Content-Length", "0"))
    answer, transport, rest = await client_http.upgrade(url, tls, "POST", headers)
    if answer.get(_HEADER.lower(), protocol) != protocol:
        transport.abort()
        raise Unavailable(f"the streaming server speaks {answer[_HEADER.lower()]!r}, not {protocol!r}")
    made = Session(client=True)
    made.take_over(transport, rest)
    return made


async def wire(streams: Streams, tls: Tls, url: str) -> SpdyWire:
    """The streams of an exec or attach, as many as `streams` has. Raises Refused, Unavailable."""
    made = SpdyWire(await session(url, tls, REMOTE_COMMAND))
    try:
        async with asyncio.timeout(_CREATE_SECONDS):
            await made.open(streams)
    except TimeoutError:
        made.abort()
        raise Unavailable("the streaming server does not take the streams") from None
    except ConnectionError as error:
        made.abort()
        raise Unavailable(f"the streaming server does not take the streams: {error}") from None
    except BaseException:
        made.abort()
        raise
    return made


class SpdyWire:
    """A `client.Wire`: one SPDY stream a channel."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._streams: dict[str, Stream] = {}

    async def open(self, streams: Streams) -> None:
        wanted = {
            "error": True,
            "stdin": streams.stdin is not None,
            "stdout": streams.stdout is not None,
            "stderr": streams.stderr is not None,
            "resize": streams.tty,
        }
        for name in (name for name, is_wanted in wanted.items() if is_wanted):
            self._streams[name] = await self._session.open({"streamtype": name})
        # Nothing is ever written there; servers wait for nothing on it.
        await self._streams["error"].close()

    async def send(self, data: bytes) -> None:
        await self._streams["stdin"].write(data)

    async def end_input(self) -> None:
        await self._streams["stdin"].close()

    async def resize(self, size: Size) -> None:
        await self._streams["resize"].write(size_document(size))

    async def read(self, channel: str) -> bytes:
        return await self._streams[channel].read()

    async def leave(self, channel: str) -> None:
        await self._streams[channel].reset()

    async def close(self, *, clean: bool) -> None:
        if clean:
            await farewell(self._session)
        else:
            self._session.abort()

    def abort(self) -> None:
        self._session.abort()


async def farewell(session: Session) -> None:
    """End a session whose work is done; the peer gets a moment to take the last bytes."""
    try:
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await session.close()
    except TimeoutError:
        pass  # aborted by then


def size_document(size: Size) -> bytes:
    return msgspec.json.encode({"Width": size.width, "Height": size.height}) + b"\n"


async def tunnel(tls: Tls, url: str) -> Session:
    """A session for the connections of a port-forward. Raises Refused, Unavailable."""
    return await session(url, tls, PORT_FORWARD)
