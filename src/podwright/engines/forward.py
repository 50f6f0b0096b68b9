"""Port-forward: a connection into a pod's network namespace, made here and not by a program inside."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

from podwright.engines.streams import Connection, Sink, Source
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import sockets
from podwright.linux.readiness import readable, writable

CHUNK = 1 << 17
"""Bytes read at a time."""
_LINGER = struct.Struct("ii")


def check_port(port: int) -> None:
    """InvalidArgument for an impossible one."""
    if not 1 <= port <= 65535:
        raise InvalidArgument("port", f"{port} is no port: 1 to 65535")


async def forward(
    pod: str, namespace: Path | None, port: int, connection: Connection, *, hint: str = ""
) -> None:
    """Connect `connection` with `port` on localhost in the network `namespace` (None: the host's) of `pod`.

    Each direction ends by itself; returns when both have. `hint`: what else may be the reason when nobody
    listens. When cancelled or when the client's side fails the
    listener sees a reset, not an end. Raises InvalidArgument, and FailedPrecondition when nobody listens or
    the listener resets.
    """
    check_port(port)
    try:
        peer = await sockets.dial_localhost(port, namespace)
    except OSError as error:
        raise FailedPrecondition(_unreachable(pod, namespace, port, error, hint)) from error
    try:
        directions = [
            asyncio.ensure_future(_send(connection.source, peer)),
            asyncio.ensure_future(_receive(peer, connection.sink)),
        ]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_EXCEPTION)
            for each in done:
                each.result()
        finally:
            for each in directions:
                each.cancel()
            await asyncio.wait(directions)
    except BaseException as error:
        # Without this close(2) would look like the end of what the client had to say.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
        if isinstance(error, _Lost):
            raise FailedPrecondition(f"port {port} of pod {pod}: {error.__cause__}") from error
        raise
    finally:
        peer.close()


class _Lost(Exception):
    """The listener's side of the connection has failed; its cause says how."""


async def _send(source: Source, peer: socket.socket) -> None:
    while data := await source.read():
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[peer.send(rest) :]
            except BlockingIOError:
                await writable(peer.fileno())
            except OSError as error:
                raise _Lost from error
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # reset meanwhile: the other direction tells


async def _receive(peer: socket.socket, sink: Sink) -> None:
    buffer = memoryview(bytearray(CHUNK))
    while True:
        try:
            count = peer.recv_into(buffer)
        except BlockingIOError:
            await readable(peer.fileno())
            continue
        except OSError as error:
            raise _Lost from error
        if not count:
            break
        await sink.write(buffer[:count])
        if count == len(buffer):
            await asyncio.sleep(0)  # others want their turn, too
    await sink.close()


def _unreachable(pod: str, namespace: Path | None, port: int, error: OSError, hint: str) -> str:
    if error.filename is not None:
        return f"pod {pod} has no network any more: {error}"
    where = "on the host, whose network it shares" if namespace is None else "inside"
    words = f"nothing listens on port {port} of pod {pod} {where} ({error.strerror})"
    return f"{words}; {hint}" if hint else words
