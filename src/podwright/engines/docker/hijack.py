"""A connection that Docker gives over after the HTTP exchange: the raw bytes of an exec or an attach."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import h11

_PIECE = 65536


class Hijacked:
    """Bytes both ways. Framed (docs of the Engine API, "Stream format") unless there is a terminal."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._first = first

    async def read(self, size: int = _PIECE) -> bytes:
        """What has come, at most `size` bytes; b"" at the end. Raises OSError when the connection breaks."""
        if self._first:
            piece, self._first = self._first[:size], self._first[size:]
            return piece
        return await self._reader.read(size)

    async def read_exactly(self, size: int) -> bytes:
        """`size` bytes; fewer only when the connection ended before."""
        piece = bytearray()
        while len(piece) < size:
            more = await self.read(size - len(piece))
            if not more:
                break
            piece += more
        return bytes(piece)

    async def read_frame(self) -> tuple[int, bytes] | None:
        """The next frame's stream (1 is stdout, 2 stderr) and bytes, None at the end."""
        head = await self.read_exactly(8)
        if len(head) < 8:
            return None
        return head[0], await self.read_exactly(int.from_bytes(head[4:], "big"))

    async def write(self, data: bytes) -> None:
        """Raises OSError when the connection is broken."""
        self._writer.write(data)
        await self._writer.drain()

    def end_input(self) -> bool:
        """Nothing more is written: the program inside reads the end of its standard input. False when that
        cannot be said, which is so over TLS."""
        if not self._writer.can_write_eof():
            return False
        self._writer.write_eof()
        return True

    def close(self) -> None:
        self._writer.close()


async def take_over(
    endpoint: str, tls: ssl.SSLContext | None, method: str, target: str, body: bytes
) -> tuple[Hijacked | None, int, bytes]:
    """The connection, or None, with the status and what was said instead. Raises OSError."""
    reader, writer = await _connect(endpoint, tls)
    try:
        http = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", "docker"),
            ("Connection", "Upgrade"),
            ("Upgrade", "tcp"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        # h11 returns None for ConnectionClosed only.
        writer.write(http.send(h11.Request(method=method, target=target, headers=headers)) or b"")
        if body:
            writer.write(http.send(h11.Data(data=body)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        status, said = 0, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(_PIECE))
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return Hijacked(reader, writer, http.trailing_data[0]), 101, b""
            elif isinstance(event, h11.Response):
                status = event.status_code
                if status == 200:
                    # So answers who sees no upgrade on its way here; the bytes follow all the same.
                    return Hijacked(reader, writer, http.trailing_data[0]), 200, b""
            elif isinstance(event, h11.Data):
                said += bytes(event.data)
            else:
                writer.close()
                return None, status, said
    except h11.RemoteProtocolError as error:
        writer.close()
        raise OSError(f"not HTTP: {error}") from error
    except BaseException:
        writer.close()
        raise


async def _connect(
    endpoint: str, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.startswith("unix://"):
        return await asyncio.open_unix_connection(endpoint.removeprefix("unix://"))
    parts = urlsplit(endpoint)
    port = parts.port or (2376 if tls else 2375)
    return await asyncio.open_connection(parts.hostname, port, ssl=tls)
