"""One connection of a port-forward, carried over a SPDY session: a stream of data and one of errors."""

from __future__ import annotations

import asyncio
import itertools

from podwright.engines.streams import Connection
from podwright.errors import PodwrightError, Unavailable
from podwright.streaming.spdy import Session, Stream

_CREATE_SECONDS = 30.0

_numbers = itertools.count()
"""Which data stream and which error stream belong together."""


async def carry(session: Session, port: int, connection: Connection) -> None:
    """Until the pod's side has ended it; cancelled, it is cut.

    Raises PodwrightError with what the server says of `port`, Unavailable when the session is lost.
    """
    data, error = await _streams(session, port)
    words = bytearray()
    said = asyncio.ensure_future(_collect(error, words))
    up = asyncio.ensure_future(_up(connection, data))
    down = asyncio.ensure_future(_down(connection, data, words))
    tasks = (up, down, said)
    try:
        # The end of the error stream is the server's last word of this connection: what the local side still
        # sends after it would be read by nobody.
        await asyncio.wait([said, down], return_when=asyncio.FIRST_COMPLETED)
        if down.done() and down.exception() is None and not down.result():
            return
        # A server may reset the data before it says why.
        await said
        if words:
            raise PodwrightError(words.decode(errors="replace").strip())
        await down
    except ConnectionError as lost:
        raise Unavailable(f"the connection is lost: {lost}") from None
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await data.reset()
        await error.reset()


async def _streams(session: Session, port: int) -> tuple[Stream, Stream]:
    """The error stream is opened first, and nothing is ever written to it."""
    headers = {"port": str(port), "requestid": str(next(_numbers))}
    error: Stream | None = None
    try:
        async with asyncio.timeout(_CREATE_SECONDS):
            error = await session.open({"streamtype": "error", **headers}, fin=True)
            return await session.open({"streamtype": "data", **headers}), error
    except (TimeoutError, ConnectionError) as failed:
        words = str(failed) or "it does not answer"
        if error is not None:
            await error.reset()
        raise Unavailable(f"the streaming server does not take the connection: {words}") from None


async def _up(connection: Connection, data: Stream) -> None:
    try:
        while chunk := await connection.source.read():
            await data.write(chunk)
        await data.close()
    except ConnectionError:
        pass  # the pod's side reads no more


async def _down(connection: Connection, data: Stream, words: bytearray) -> bool:
    """Whether the local side took all there was. It hears of the end unless that is an error, which `words`
    tell before."""
    while chunk := await data.read():
        try:
            await connection.sink.write(chunk)
        except BrokenPipeError:
            return False
    if not words:
        await connection.sink.close()
    return True


async def _collect(error: Stream, words: bytearray) -> None:
    try:
        while chunk := await error.read():
            words += chunk
    except ConnectionError:
        if not words:
            raise
