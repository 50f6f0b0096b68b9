"""Clients' connections with the first process of a container, by Docker's attach."""

from __future__ import annotations

import asyncio

from podwright.engines.base import Json
from podwright.engines.docker import connected
from podwright.engines.docker.api import Docker
from podwright.engines.docker.connected import Output
from podwright.engines.docker.hijack import Hijacked
from podwright.engines.streams import Streams
from podwright.wire import cri_pb2 as cri


async def attach(docker: Docker, docker_id: str, config: cri.ContainerConfig, streams: Streams) -> None:
    """As `Engine.attach`, with Docker's running container `docker_id`."""
    heard = config.stdin and streams.stdin is not None
    # Output is wanted in any case: its end is the container's.
    asked: dict[str, Json] = {"stream": True, "stdin": heard, "stdout": True, "stderr": not config.tty}
    if config.tty:
        asked["detachKeys"] = connected.DETACH_KEYS
    connection = await docker.hijack("POST", f"/containers/{docker_id}/attach", asked)
    tasks: list[asyncio.Task[None]] = []
    try:
        handed = Output(connection, streams, tty=config.tty)
        output = asyncio.ensure_future(handed.all())
        tasks.append(output)
        spoken = []
        if streams.stdin is not None:
            spoken.append(asyncio.ensure_future(_input(connection, config, streams, heard)))
        if config.tty and streams.sizes is not None:
            sizes = connected.resize(docker, f"/containers/{docker_id}", streams.sizes)
            tasks.append(asyncio.ensure_future(sizes))
        nothing_left = asyncio.ensure_future(_after(handed.deaf, spoken))
        tasks += [*spoken, nothing_left]
        waited = set(tasks)
        while not (output.done() or nothing_left.done()):
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        connection.close()
    for sink in (streams.stdout, streams.stderr):
        if sink is not None:
            await sink.close()


async def _input(connection: Hijacked, config: cri.ContainerConfig, streams: Streams, heard: bool) -> None:
    """Hand on what the client sends. Its end is the container's only with `stdin_once`; Docker would close
    the output with the input otherwise."""
    assert streams.stdin is not None
    last = await connected.send(streams.stdin, connection, heard=heard)
    if heard and config.stdin_once:
        await connected.end_input(connection, last, tty=config.tty)


async def _after(deaf: asyncio.Event, spoken: list[asyncio.Task[None]]) -> None:
    await deaf.wait()
    if spoken:
        await asyncio.wait(spoken)
