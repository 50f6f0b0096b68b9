"""A gRPC socket before a fake node: it listens, breaks off as a killed server does, and listens again.

Between the two the socket's file is there and nobody listens: clients are refused, as after kill -9.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from podwright.api import Cri
from podwright.server.calls import Gate
from podwright.server.endpoint import claimed
from podwright.server.serve import bound, drain

_numbers = itertools.count()


class Socket:
    """Made by `claim`. A node calls these methods as its life goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._gate = Gate()
        self._server: grpc.aio.Server | None = None
        self._listening = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def claim(cls, path: Path) -> AsyncIterator[Socket]:
        """The socket at `path`, not listening yet; FailedPrecondition when another server listens there."""
        with claimed(path):
            made = cls(path)
            try:
                yield made
            finally:
                await made.close()

    async def listen(self) -> None:
        """Accept connections; calls get Unavailable until `open`. One that listens goes on as it is."""
        if self._server is not None:
            return
        self._gate = Gate()
        # gRPC removes its socket's file when it stops. Under another name it does not find it, and what is
        # left is what a killed server leaves.
        born = self.path.with_name(f".{os.getpid()}.{next(_numbers)}")
        self._server = await self._listening.enter_async_context(bound(born, self._gate))
        born.rename(self.path)

    def open(self, cri: Cri) -> None:
        """Let calls through to `cri`."""
        self._gate.open(cri)

    async def break_off(self) -> None:
        """End every connection at once, with no word; refuse new ones until `listen`."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
            await self._listening.aclose()

    async def close(self) -> None:
        """Let calls in flight end, and go."""
        if self._server is not None:
            await drain(self._server, self._gate)
            self._server = None
        await self._listening.aclose()
