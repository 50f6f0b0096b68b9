"""One state, several commands: who finds it taken waits a moment, or works through the one that has it.

`podwright run` has the state for as long as its pods run. So it answers at a socket of its own meanwhile,
and ps, logs, exec or another run work beside it. When it leaves first, the other run takes the state over.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from podwright.api import Cri, Node
from podwright.errors import PodwrightError, Unavailable
from podwright.kube.life.lost import answer_of
from podwright.server.endpoint import STARTING
from podwright.state.lock import Taken
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from podwright.cli.door import Door

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that a command waits for the state: most others have it for a fraction of one."""

PAUSE = 0.02
"""Seconds between two tries: the kernel's lock can be waited for, but not together with a socket."""

SILENCE = 0.5
"""Seconds of waiting for a server's recovery that nobody needs to hear of."""

MOMENT = 0.3
"""Seconds that a run lasts before it answers others; a short one never loads gRPC for it."""


async def patient(enter: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """What `enter` returns, tried again while another process has the state, `patience` seconds long.

    Raises Taken, which names that process, when it has it still.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return await enter()
        except Taken:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE)


@asynccontextmanager
async def reached(address: str, patience: float = PATIENCE) -> AsyncIterator[Cri]:
    """The CRI served at `address`, once the server is done with what an earlier one left. Who waits for that
    is told so; Unavailable after `patience` seconds."""
    from podwright.client import connect

    async with connect(address) as runtime:
        await _recovered(runtime, address, patience)
        yield runtime


async def _recovered(runtime: Cri, address: str, patience: float) -> None:
    begun, told = time.monotonic(), False
    while True:
        try:
            await runtime.version(cri.VersionRequest())
            return
        except Unavailable as error:
            waited = time.monotonic() - begun
            if STARTING not in str(error):
                return  # whatever is wrong the command's own call will tell
            if waited > patience:
                raise Unavailable(f"the server at {address}, after {patience:g} s: {error}") from None
            if waited > SILENCE and not told:
                told = True
                print(f"podwright: waiting for the server at {address}: {error}", file=sys.stderr)
        except PodwrightError:
            return
        await asyncio.sleep(PAUSE)


@asynccontextmanager
async def lasting(door: Door, endpoint: str | None) -> AsyncIterator[Cri]:
    """The CRI for a command that lasts: `endpoint`, the server that answers, or the state itself, which is
    shared with other commands then."""
    async with AsyncExitStack() as stack:
        relay = _Relay(door, endpoint or door.server(), stack)
        await relay.enter()
        yield relay.current if relay.owns else cast(Cri, relay)


class _Relay:
    """The CRI of a server, also of one that is started anew meanwhile; or through another run, and by itself
    once that one has left."""

    def __init__(self, door: Door, server: str | None, stack: AsyncExitStack) -> None:
        self.current: Cri
        self.owns = False
        """The state is held here: nobody can take it away any more."""
        self._door = door
        self._server = server
        self._stack = stack
        self._renewing = asyncio.Lock()
        self._entered = False

    async def enter(self) -> None:
        """Find who has the state now, or take it."""
        self.current = await patient(self._enter)
        self._entered = True

    async def _enter(self) -> Cri:
        from podwright import library
        from podwright.client import connect

        if address := self._server or self._door.neighbour():
            # `_renew` has its own patience with a server that starts anew.
            entering = connect(address) if self._entered else reached(address)
            return await self._stack.enter_async_context(entering)
        self._door.require_no_server()
        opened = await self._stack.enter_async_context(library.open(config=self._door.config()))
        self.owns = True
        await self._stack.enter_async_context(_answering(opened.cri, self._door.neighbour_path()))
        return opened.cri

    async def _renew(self) -> None:
        """`enter`, until what was found answers; Unavailable when nothing does for PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await self.enter()
                if self.owns or await _answers(self.current):
                    return
                error = Unavailable("the server does not answer")
            except Unavailable as unavailable:
                error = unavailable
            if time.monotonic() > deadline:
                raise Unavailable(f"{error}; what runs there goes on") from None
            await asyncio.sleep(PAUSE)

    def watch_pulls(self, request: own.WatchPullsRequest) -> AsyncIterator[own.PullProgress]:
        """Of who is asked now: the stream ends with it."""
        return cast(Node, self.current).watch_pulls(request)

    def get_container_events(
        self, request: cri.GetEventsRequest
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        """Of who is asked now: the stream ends with it."""
        return self.current.get_container_events(request)

    def __getattr__(self, name: str) -> Callable[[Any], Awaitable[Any]]:
        if not hasattr(Cri, name):
            raise AttributeError(name)

        async def call(request: Any) -> Any:
            again = False
            while True:
                current, owned = self.current, self.owns
                try:
                    return await getattr(current, name)(request)
                except PodwrightError as error:
                    if owned:
                        raise
                    if await _answers(current):
                        # It may be the next server that answers now, and not the one that was asked.
                        if again or type(error) is not Unavailable:
                            raise
                        again = True
                async with self._renewing:
                    if current is self.current and not await _answers(current):
                        await self._renew()
                if (answer := await answer_of(cast(Cri, self), name, request)) is not None:
                    return answer

        setattr(self, name, call)
        return call


async def _answers(runtime: Cri) -> bool:
    try:
        await runtime.version(cri.VersionRequest())
    except PodwrightError:
        return False
    return True


@asynccontextmanager
async def _answering(house: Cri, path: Path) -> AsyncIterator[None]:
    """Answer at the socket `path` for `house`, after a moment."""
    task = asyncio.ensure_future(_answer(house, path))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _answer(house: Cri, path: Path) -> None:
    await asyncio.sleep(MOMENT)
    gate_class, listening = await asyncio.to_thread(_server)
    # Who called hears of an error; it is nothing to this command's terminal.
    logging.getLogger("podwright.server").setLevel(logging.CRITICAL)
    gate = gate_class()
    gate.open(house)
    try:
        async with listening(str(path), gate):
            await asyncio.Event().wait()
    except PodwrightError as error:
        logging.getLogger("podwright").warning("other commands have to wait for this one: %s", error)


def _server() -> tuple[Any, Any]:
    """Loading gRPC takes its time: not on the loop."""
    from podwright.server import tuning

    tuning.before_grpc()
    from podwright.server.calls import Gate
    from podwright.server.serve import listening

    return Gate, listening
