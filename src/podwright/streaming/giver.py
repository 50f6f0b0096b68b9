"""A streaming server that is there when it is needed: who only lists pods does not even import it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwright.config import StreamingConfig
from podwright.core.runtime import Runtime
from podwright.core.streaming import Asked

if TYPE_CHECKING:
    from podwright.streaming.server import Server


class LazyServer:
    """Made for a runtime, which from then on gives URLs for Exec, Attach and PortForward. Close it before the
    runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._server: Server | None = None
        runtime.streaming.giver = self

    @property
    def address(self) -> str:
        return "" if self._server is None else self._server.address

    async def url(self, asked: Asked) -> str:
        return await self._made().url(asked)

    async def listen(self) -> None:
        """What somebody has configured shall fail at the start, not with the first exec. InvalidArgument when
        the configuration contradicts itself, FailedPrecondition when it cannot be had."""
        if self._runtime.config.streaming != StreamingConfig():
            await self._made().listen()

    async def close(self) -> None:
        """Serve no more: sessions are told so, and what they run gets a hang-up."""
        if self._server is not None:
            await self._server.close()

    def abort(self) -> None:
        """Break every connection at once, as the end of the process would."""
        if self._server is not None:
            self._server.abort()

    def _made(self) -> Server:
        if self._server is None:
            from podwright.streaming.server import Server

            self._server = Server(self._runtime.config.streaming, self._runtime.streaming)
        return self._server
