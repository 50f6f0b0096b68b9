"""Clients' connections with the first process of a container, by Docker's attach."""

from __future__ import annotations

import asyncio

from podwright.engines.attaching import until_over
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
    try:
        handed = Output(connection, streams, tty=config.tty)
        output = asyncio.ensure_future(handed.all())
        spoken, beside = [], []
        if streams.stdin is not None:
            spoken.append(asyncio.ensure_future(_input(connection, config, streams, heard)))
        if config.tty and streams.sizes is not None:
            sizes = connected.resize(docker, f"/containers/{docker_id}", streams.sizes)
            beside.append(asyncio.ensure_future(sizes))
        await until_over(output, spoken, handed.deaf, beside)
    finally:
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
