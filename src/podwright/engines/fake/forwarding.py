"""Port-forward in a fake world: to programs that listen, and to ports of which the scenario tells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

from podwright.engines.base import Sandbox
from podwright.engines.fake import flow
from podwright.engines.fake.connections import Connections
from podwright.engines.fake.programs.context import CHUNK
from podwright.engines.fake.programs.ports import Socket
from podwright.engines.fake.programs.streams import BrokenPipe
from podwright.engines.fake.scenario import PortScript
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.world import World
from podwright.engines.streams import Connection, Sink, Source
from podwright.errors import FailedPrecondition, InvalidArgument


async def forward(
    world: World, sandbox: Sandbox, port: int, connection: Connection, connections: Connections
) -> None:
    """As `Engine.port_forward`. When `connections` are cut the listener sees an end, as of a process that was
    killed."""
    if not 1 <= port <= 65535:
        raise InvalidArgument("port", f"{port} is no port: 1 to 65535")
    pod = f"{sandbox.config.metadata.namespace}/{sandbox.config.metadata.name}"
    made = world.sandboxes.get(sandbox.id)
    if made is None or not made.ready:
        raise FailedPrecondition(f"pod {pod} has no network any more: it is not ready")
    for script in world.scenario.pod_script(Subject.of_sandbox(sandbox)).ports:
        if script.port == port:
            made.forwards = made.forwards or Connections()
            await _scripted(world, pod, script, connection, (made.forwards, connections))
            return
    try:
        socket = world.ports_of(made, sandbox).connect(port)
    except OSError as error:
        raise FailedPrecondition(
            f"nothing listens on port {port} of pod {pod} inside ({error.strerror})"
        ) from None
    with connections.join(socket.close):
        await _carried(pod, port, socket, connection, connections)


async def _carried(
    pod: str, port: int, socket: Socket, connection: Connection, connections: Connections
) -> None:
    directions = [
        asyncio.ensure_future(_send(connection.source, socket)),
        asyncio.ensure_future(_receive(socket, connection.sink)),
    ]
    try:
        done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_EXCEPTION)
        for each in done:
            each.result()
    except BaseException as error:
        if not connections.are_cut:
            socket.reset()
        if isinstance(error, _Lost):
            raise FailedPrecondition(f"port {port} of pod {pod}: {error}") from None
        raise
    finally:
        socket.close()
        await flow.stop(directions)


class _Lost(Exception):
    """The listener's side of the connection has failed."""


async def _send(source: Source, socket: Socket) -> None:
    while data := await source.read():
        try:
            await socket.write(bytes(data))
        except BrokenPipe:
            raise _Lost("Broken pipe") from None
        except OSError as error:
            raise _Lost(error.strerror) from None
    socket.end()


async def _receive(socket: Socket, sink: Sink) -> None:
    while True:
        try:
            data = await socket.read(CHUNK)
        except OSError as error:
            raise _Lost(error.strerror) from None
        if not data:
            break
        await sink.write(data)
    await sink.close()


async def _scripted(
    world: World, pod: str, script: PortScript, connection: Connection, cuts: Sequence[Connections]
) -> None:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def cut() -> None:
        if not gone.done():
            gone.set_result(None)

    with ExitStack() as stack:
        for each in cuts:
            stack.enter_context(each.join(cut))
        serving = asyncio.ensure_future(_serve(world, script, connection))
        try:
            await asyncio.wait([gone, serving], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                raise FailedPrecondition(f"port {script.port} of pod {pod}: the pod has stopped")
            serving.result()
        finally:
            await flow.stop([serving])


async def _serve(world: World, script: PortScript, connection: Connection) -> None:
    source, sink = connection.source, connection.sink
    heard = True

    async def say(data: bytes) -> None:
        nonlocal heard
        if heard and data:
            try:
                await sink.write(data)
            except BrokenPipeError:
                heard = False

    await world.clock.sleep(script.after.draw(world.chance))
    await say(script.answer.encode())
    if script.answer and not script.echo:
        await sink.close()
    while data := await source.read():
        if script.echo:
            await say(bytes(data))
    await sink.close()
