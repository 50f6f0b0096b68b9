"""Sockets at places that need more than an address: in another network namespace, below a long path."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from podwright.linux import namespaces
from podwright.linux.readiness import writable

LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def dial_localhost(port: int, namespace: Path | None) -> socket.socket:
    """A non-blocking connection to `port` on this host's loopback, or that of the network `namespace`; first
    by IPv4, then by IPv6.

    Raises OSError of the second try, with both reasons in its text, and of entering the namespace.
    """
    tries: dict[str, str] = {}
    failure = OSError()
    for family, address in LOCALHOST:
        try:
            return await _dial(family, (address, port), namespace)
        except OSError as error:
            failure = error
            tries[address] = os.strerror(error.errno) if error.errno else str(error)
            if error.filename is not None:
                raise  # the namespace, not the connection
    raise OSError(
        failure.errno, "; ".join(f"{address}: {why}" for address, why in tries.items())
    ) from failure


async def connect_unix(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking connection to the Unix socket `path`, however long. Raises OSError."""
    # An address has room for 107 bytes only (unix(7)): the directory is named by a descriptor.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection = socket.socket(socket.AF_UNIX, kind)
        try:
            connection.setblocking(False)
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(directory)


async def _dial(family: int, address: tuple[str, int], namespace: Path | None) -> socket.socket:
    def make() -> socket.socket:
        return socket.socket(family, socket.SOCK_STREAM)

    # A socket stays in the namespace that it was made in, whoever uses it.
    connection = make() if namespace is None else await _made(make, namespace)
    try:
        connection.setblocking(False)
        try:
            connection.connect(address)
        except BlockingIOError:
            await writable(connection.fileno())
            if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, os.strerror(number)) from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


async def _made(make: Callable[[], socket.socket], namespace: Path) -> socket.socket:
    making = asyncio.ensure_future(namespaces.inside(namespace, "net", make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_drop)
        raise


def _drop(making: asyncio.Future[socket.socket]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()
