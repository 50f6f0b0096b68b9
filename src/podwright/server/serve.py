"""The life of `podwright serve`: claim the socket, listen, recover behind a shut gate, serve, leave.

The socket listens before recovery starts, so that a kubelet that polls gets Unavailable and not a refused
connection. Containers do not notice when the server leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import cast

import grpc

from podwright.api import Cri
from podwright.errors import FailedPrecondition
from podwright.linux.limits import raise_open_files
from podwright.server import tuning
from podwright.server.calls import Calls, Gate
from podwright.server.endpoint import claimed, private_umask, socket_path

log = logging.getLogger("podwright.server")

MESSAGE_LIMIT = 80 << 20
"""Bytes of one message either way: an ExecSync answer may carry 16 MiB of each stream, and lists grow."""

DRAIN = 5.0
"""Seconds that calls in flight get to end after a signal to stop; then they are cancelled and rolled back."""

LINGER = 0.1
"""Seconds without a call after which those that arrived before the signal are all out of gRPC's queue."""
LINGERS = 10
"""As many at most: clients that try again come on and on."""

Beside = Callable[[Cri], AbstractAsyncContextManager[object]]

_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
)


@asynccontextmanager
async def listening(address: str, gate: Gate) -> AsyncIterator[grpc.aio.Server]:
    """A server that listens at `address` and whose calls pass `gate`; stopped on leaving at the latest.

    FailedPrecondition when another server listens there or the socket cannot be made.
    """
    path = socket_path(address)
    with claimed(path):
        async with bound(path, gate) as server:
            yield server


@asynccontextmanager
async def bound(path: Path, gate: Gate) -> AsyncIterator[grpc.aio.Server]:
    """As `listening`, for who has claimed `path` already."""
    server = grpc.aio.server(handlers=[Calls(gate)], options=_OPTIONS)
    try:
        with private_umask():
            server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise FailedPrecondition(f"cannot listen at {path}: {error}") from error
    await server.start()
    tuning.after_listening()
    try:
        yield server
    finally:
        await server.stop(DRAIN)


async def drain(server: grpc.aio.Server, gate: Gate) -> None:
    """Let nothing begin any more, and what has begun end.

    gRPC cancels whatever waits in its queue when it is told to stop. So those calls are taken out first and
    told Unavailable, which clients try again.
    """
    gate.shut("stopping")
    for _ in range(LINGERS):
        before = gate.refused
        await asyncio.sleep(LINGER)
        if gate.refused == before:
            break
    await server.stop(DRAIN)


async def serve(
    address: str,
    house: AbstractAsyncContextManager[Cri],
    *,
    ready: Callable[[], None] = lambda: None,
    beside: Beside = lambda _: nullcontext(),
) -> None:
    """Serve `house` at `address` until SIGTERM or SIGINT; `ready` is called once calls are served. `beside`
    works with the same runtime meanwhile.

    Entering `house` is recovery; what it raises ends the server. A second signal ends the drain, too.
    """
    raise_open_files()
    stop = asyncio.Event()
    gate = Gate()
    with signals(stop, lambda: not gate.is_open):
        try:
            async with listening(address, gate) as server, house as runtime:
                # The runtime in this process has it; a house may be another.
                if (listen := getattr(runtime, "listen", None)) is not None:
                    await listen()
                other = beside(runtime)
                async with _metered(runtime, other):
                    tuning.settle()
                    gate.open(runtime)
                    async with _looked_at(runtime), other:
                        ready()
                        notify("READY=1")
                        await stop.wait()
                        log.info("stopping: calls in flight get %g s, containers keep running", DRAIN)
                        notify("STOPPING=1")
                    # Before the house closes, for calls in flight still need it.
                    await drain(server, gate)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            log.warning("stopped before the end of recovery or of the drain")


def _metered(runtime: Cri, other: object) -> AbstractAsyncContextManager[object]:
    """The endpoint for Prometheus, where one is configured; with the static pods, if `other` keeps any."""
    config = getattr(runtime, "config", None)
    if config is None or not config.metrics.address:
        return nullcontext()
    # Loads a library, which nobody else needs.
    from podwright.core.runtime import Runtime
    from podwright.metrics.endpoint import serving
    from podwright.metrics.static_pods import Keeping

    return serving(cast(Runtime, runtime), other if isinstance(other, Keeping) else None)


@asynccontextmanager
async def _looked_at(runtime: Cri) -> AsyncIterator[None]:
    """Meanwhile the engine looks at what a Status tells: asking each OCI runtime what it can do takes longer
    than all else that the first Status, and with it the first pod, would wait for."""
    engine = getattr(runtime, "engine", None)
    look = asyncio.ensure_future(engine.status()) if engine is not None else None
    try:
        yield
    finally:
        if look is not None:
            look.cancel()
            await asyncio.wait([look])
            if not look.cancelled() and (error := look.exception()) is not None:
                # Whoever asks for a Status is told.
                log.debug("the first look at the engine: %s", error)


def notify(state: str) -> None:
    """Tell the service manager, if one asked (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        try:
            link.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("cannot tell %s to NOTIFY_SOCKET %s: %s", state, address, error)


@contextmanager
def signals(stop: asyncio.Event, hurry: Callable[[], bool]) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; in a `hurry`, or the second time, they cancel this task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def leave() -> None:
        at_once = stop.is_set() or hurry()
        stop.set()
        if at_once:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, leave)
    loop.add_signal_handler(signal.SIGINT, leave)
    # Its default would end the server; there is nothing to read again.
    loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP: ignored")
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
