"""The ports of a network in a fake world: who listens there, and connections with them, in memory."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque

from podwright.engines.fake.programs.streams import Pipe, Stream

BACKLOG = 128
"""Connections that wait to be accepted; more are refused."""


class Ports:
    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}

    def listen(self, port: int) -> Listener:
        """OSError when somebody else does."""
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        found = self._listeners[port] = Listener(self, port)
        return found

    def connect(self, port: int) -> Socket:
        """The end of who connects. OSError when nobody listens."""
        listener = self._listeners.get(port)
        if listener is None or len(listener.waiting) >= BACKLOG:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        there, back = Pipe(), Pipe()
        listener.offer(Socket(there, back))
        return Socket(back, there)

    def drop(self, port: int) -> None:
        self._listeners.pop(port, None)


class Listener(Stream):
    """A process closes it as any other of its descriptors: the port is free then."""

    __slots__ = ("_news", "_port", "_ports", "waiting")

    def __init__(self, ports: Ports, port: int) -> None:
        super().__init__()
        self._ports = ports
        self._port = port
        self._news = asyncio.Event()
        self.waiting: deque[Socket] = deque()
        """Connections that nobody has accepted."""

    def offer(self, socket: Socket) -> None:
        self.waiting.append(socket)
        self._news.set()

    async def accept(self) -> Socket:
        while not self.waiting:
            self._news.clear()
            await self._news.wait()
        return self.waiting.popleft()

    def _closed(self) -> None:
        self._ports.drop(self._port)
        for each in self.waiting:
            each.reset()
        self.waiting.clear()


class Socket(Stream):
    """One end of a connection."""

    __slots__ = ("_from", "_shut", "_to")

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        super().__init__()
        self._from = incoming
        self._to = outgoing
        self._shut = False

    @property
    def incoming(self) -> Pipe:
        return self._from

    async def read(self, size: int, *, line: bool = False) -> bytes:
        return await self._from.take(size, line)

    async def write(self, data: bytes) -> None:
        await self._to.put(data)

    def end(self) -> None:
        """Nothing more will be written; the other direction goes on."""
        if not self._shut:
            self._shut = True
            self._to.writer.close()

    def reset(self) -> None:
        """Both directions are broken."""
        for pipe in (self._from, self._to):
            pipe.fail(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _closed(self) -> None:
        self.end()
        self._from.reader.close()
        self._from.wake()
