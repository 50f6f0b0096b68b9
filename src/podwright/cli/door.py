"""Where a command finds its pods: at a running server's socket, or in the state of this machine itself.

A server that answers owns its state, so it is asked; without one the house is opened in this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
    engine: str | None = None

    def config(self, *, of_host: bool = False) -> Config:
        """The configuration with the options on top. Who chooses another run directory means another
        podwright: its socket is looked for there. With `of_host` it is root's, whoever asks."""
        from podwright.config import load

        listen = self.socket
        if listen is None and self.run is not None:
            listen = f"{Path(self.run).absolute()}/podwright.sock"
        return load(
            self.config_file,
            of_host=of_host,
            root=None if self.root is None else str(Path(self.root).absolute()),
            run=None if self.run is None else str(Path(self.run).absolute()),
            listen=listen,
            engine=self.engine,
        )

    def server(self) -> str | None:
        """The address of the server to ask, None when there is none.

        Unavailable when there is one that this user may not reach, or --socket names one that is not there.
        """
        from podwright.cli import down
        from podwright.errors import Unavailable
        from podwright.server.endpoint import knock, silence, socket_path

        address = self.socket or self.config().listen
        error = knock(socket_path(address))
        if error is None:
            return address
        if self.socket is not None or isinstance(error, PermissionError):
            why = "" if isinstance(error, PermissionError) else down.words(self)
            raise Unavailable(f"no server at {address}: {why or silence(error)}")
        return None

    def require_no_server(self) -> None:
        """Unavailable when the state is that of a server which is down: it must not be opened here."""
        from podwright.cli import down
        from podwright.errors import Unavailable

        if why := down.words(self):
            raise Unavailable(f"no server answers at {self.config().listen}: {why}")

    def neighbour(self) -> str | None:
        """The address of a `podwright run` that has the state and answers for it, None when there is none."""
        from podwright.server.endpoint import knock, socket_path

        path = self.neighbour_path()
        return str(path) if self.socket is None and knock(socket_path(str(path))) is None else None

    def neighbour_path(self) -> Path:
        """Not the server's socket: who is told to use that one finds a server or nothing."""
        return self.config().run_path / "run.sock"

    def answering(self) -> str | None:
        """The address of whoever has the state and answers: a server or a run."""
        return self.server() or self.neighbour()

    @asynccontextmanager
    async def cri(self) -> AsyncIterator[Cri]:
        """The server if one answers, or a run, else the house itself, with the built-in bridge that
        `podwright run` has where the host has no network configuration."""
        from contextlib import AsyncExitStack

        from podwright.cli.share import patient, reached

        async with AsyncExitStack() as stack:

            async def enter() -> Cri:
                if address := self.answering():
                    return await stack.enter_async_context(reached(address))
                self.require_no_server()
                return await stack.enter_async_context(self._own(bridge=True))

            yield await patient(enter)

    @asynccontextmanager
    async def house(self, patience: float | None = None) -> AsyncIterator[Runtime]:
        """The house as it is configured, opened in this process; while another has the state, tried for
        `patience` seconds."""
        from contextlib import AsyncExitStack

        from podwright.cli.share import PATIENCE, patient

        async with AsyncExitStack() as stack:
            yield await patient(
                lambda: stack.enter_async_context(self._own()), PATIENCE if patience is None else patience
            )

    @asynccontextmanager
    async def _own(self, bridge: bool = False) -> AsyncIterator[Runtime]:
        import logging

        from podwright.house import open_house

        # What a server's log would tell is of no interest to one command, except what went wrong.
        logging.basicConfig(level=logging.ERROR, format="podwright: %(message)s")

        if bridge:
            from podwright.library import open

            async with open(config=self.config()) as opened:
                yield cast("Runtime", opened.cri)
        else:
            async with open_house(self.config()) as runtime:
                yield runtime


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run one command's coroutine to its end; Ctrl-C cancels it, so that it cleans up."""
    import asyncio

    return asyncio.run(main)
