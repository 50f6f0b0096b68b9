"""Peers for the SPDY tests: a pair of connections that talk, and one that says what a test tells it."""

from __future__ import annotations

from podwright.streaming.spdy import events, frames
from podwright.streaming.spdy.connection import Connection
from podwright.streaming.spdy.headers import Compressor, Decompressor, decode_block
from podwright.streaming.spdy.limits import DEFAULTS, Limits


def exchange(one: Connection, other: Connection) -> tuple[list[events.Event], list[events.Event]]:
    """Carry bytes between the two until neither has any; what each was told."""
    told: tuple[list[events.Event], list[events.Event]] = ([], [])
    while True:
        to_other, to_one = b"".join(one.output()), b"".join(other.output())
        if not to_other and not to_one:
            return told
        told[1].extend(other.receive(to_other))
        told[0].extend(one.receive(to_one))


def pair(client: Limits = DEFAULTS, server: Limits = DEFAULTS) -> tuple[Connection, Connection]:
    """A client and a server that have told each other their settings."""
    ends = Connection(True, client), Connection(False, server)
    exchange(*ends)
    return ends


class Raw:
    """The other end of a connection, frame by frame: what a test says, and nothing by itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._compressor = Compressor()
        self._decompressor = Decompressor(1 << 20)
        self._decoder = frames.Decoder(1 << 20)

    def block(self, **headers: str) -> bytes:
        return self._compressor.block(headers)

    def plain_block(self, plain: bytes) -> bytes:
        """Any bytes, compressed as a block."""
        return self._compressor.compress(plain)

    def say(self, *said: frames.Frame) -> list[events.Event]:
        return self._connection.receive(b"".join(map(frames.encode, said)))

    def heard(self) -> list[frames.Frame]:
        """What the connection has sent since the last time; DATA in pieces."""
        return list(self._decoder.feed(b"".join(self._connection.output())))

    def headers(self, block: bytes) -> dict[str, str]:
        return decode_block(self._decompressor.block(block))
