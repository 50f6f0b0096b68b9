"""Whether a client is still there: connections that nobody uses, and clients that have vanished unseen.

A connection that is not read, because a command does not take its input, does not notice that its client has
gone. So once in a while all are looked at.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket

from podwright.streaming.http import Connections, Http

LOOK_EVERY = 5.0
"""Seconds between two looks at all connections."""

KEEPALIVE = (15, 15, 4)
"""Seconds of silence before the kernel asks whether the other host is still there, seconds between its
questions, and how many of them may stay unanswered (tcp(7))."""

log = logging.getLogger("podwright.streaming")


class Watch:
    """Breaks connections that were silent for `idle` seconds, and those whose client has gone."""

    def __init__(self, connections: Connections, idle: float, every: float) -> None:
        self._connections = connections
        self._idle = idle
        self._every = min(every, idle / 4)
        self._suspects: set[Http] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.start()
        now = asyncio.get_running_loop().time()
        suspects: set[Http] = set()
        for connection in list(self._connections.all):
            if connection.inner is None:
                continue
            if now - connection.inner.last_active > self._idle:
                log.info("a session was idle for %g s and is ended", self._idle)
                connection.abort()
            elif has_hung_up(connection.transport):
                if connection in self._suspects:
                    connection.abort()
                else:
                    # What it sent before may still be on its way through this process.
                    suspects.add(connection)
        self._suspects = suspects


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other side has closed, whatever of its bytes is still to be read."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(found.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def keep_alive(transport: asyncio.Transport) -> None:
    """Let the kernel find out when the client's host is gone."""
    found = transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    idle, interval, count = KEEPALIVE
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
