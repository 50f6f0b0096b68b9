"""Where a command finds its pods: at a running server's socket, or in the state of this machine itself.

A server that answers owns its state, so it is asked; without one the house is opened in this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.config import Config
    from podwright.core.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Door:
    """The global options."""

    config_file: Path | None = None
    root: str | None = None
    run: str | None = None
    socket: str | None = None

    def config(self) -> Config:
        """The configuration with the options on top. Who chooses another run directory means another
        podwright: its socket is looked for there."""
        from podwright.config import load

        listen = self.socket
        if listen is None and self.run is not None:
            listen = f"{Path(self.run).absolute()}/podwright.sock"
        return load(
            self.config_file,
            root=None if self.root is None else str(Path(self.root).absolute()),
            run=None if self.run is None else str(Path(self.run).absolute()),
            listen=listen,
        )

    def server(self) -> str | None:
        """The address of the server to ask, None when there is none.

        Unavailable when there is one that this user may not reach, or --socket names one that is not there.
        """
        from podwright.errors import Unavailable
        from podwright.server.endpoint import knock, silence, socket_path

        address = self.socket or self.config().listen
        error = knock(socket_path(address))
        if error is None:
            return address
        if self.socket is not None or isinstance(error, PermissionError):
            raise Unavailable(f"no server at {address}: {silence(error)}")
        return None

    @asynccontextmanager
    async def cri(self) -> AsyncIterator[Cri]:
        """The server if one answers, else the house itself."""
        if address := self.server():
            from podwright.client import connect

            async with connect(address) as remote:
                yield remote
        else:
            async with self.house() as runtime:
                yield runtime

    @asynccontextmanager
    async def house(self) -> AsyncIterator[Runtime]:
        """The house, opened in this process."""
        import logging

        from podwright.house import open_house

        # What a server's log would tell is of no interest to one command, except what went wrong.
        logging.basicConfig(level=logging.ERROR, format="podwright: %(message)s")

        async with open_house(self.config()) as runtime:
            yield runtime


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run one command's coroutine to its end; Ctrl-C cancels it, so that it cleans up."""
    import asyncio

    return asyncio.run(main)
