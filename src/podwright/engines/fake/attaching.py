"""Clients' connections with the first process of a fake container (attach)."""

from __future__ import annotations

import asyncio
from typing import Any

from podwright.engines.base import Container
from podwright.engines.fake import flow
from podwright.engines.fake.connections import Connections
from podwright.engines.fake.execution import entered
from podwright.engines.fake.inside import Inside
from podwright.engines.fake.output import Tap
from podwright.engines.fake.programs.streams import BrokenPipe
from podwright.engines.fake.world import FakeContainer, World
from podwright.engines.streams import Source, Streams


async def attach(
    world: World, made: FakeContainer, container: Container, streams: Streams, connections: Connections
) -> None:
    """As `Engine.attach`. When `connections` are cut it is as if the client had gone."""
    inside = entered(world, made, container)
    assert made.process is not None
    ended = made.process.ending()
    # Who has its stdin at the beginning is the one with whom it ends.
    heard = streams.stdin is not None and not inside.stdin_ended
    sinks = {"stdout": streams.stdout, "stderr": streams.stderr}
    tap = Tap(*(name for name, sink in sinks.items() if sink is not None))
    inside.output.taps.append(tap)

    def leave() -> None:
        if tap in inside.output.taps:
            inside.output.taps.remove(tap)
        for pipe in tap.pipes.values():
            pipe.discard()
        inside.output.relieve()
        if heard and container.config.stdin_once:
            inside.end_stdin()

    tasks: list[asyncio.Task[Any]] = []
    with connections.join(leave):
        try:
            outward = [
                asyncio.ensure_future(
                    flow.outward(tap.pipes[name], sink, unseen=True, taken=inside.output.relieve)
                )
                for name, sink in sinks.items()
                if sink is not None
            ]
            tasks += outward
            if inside.terminal is not None and streams.sizes is not None:
                tasks.append(asyncio.ensure_future(flow.follow(inside.terminal, streams.sizes)))
            spoken = []
            if streams.stdin is not None:
                spoken.append(asyncio.ensure_future(_input(streams.stdin, inside, heard)))
            tasks += spoken
            waited: set[asyncio.Future[Any]] = {ended, *tasks}
            while not (_done(outward) and (ended.done() or _done(spoken))):
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
        finally:
            await flow.stop(tasks)
            leave()


def _done(tasks: list[asyncio.Task[None]]) -> bool:
    return all(each.done() for each in tasks)


async def _input(source: Source, inside: Inside, heard: bool) -> None:
    """Hand on what the client sends; dropped where nobody hears it, so that it does not hold up the client's
    other streams."""
    while data := await source.read():
        if not heard or inside.stdin_ended:
            continue
        if inside.terminal is not None:
            await inside.terminal.feed(bytes(data))
        elif inside.stdin is not None:
            try:
                await inside.stdin.writer.write(bytes(data))
            except BrokenPipe:
                heard = False
    if heard and inside.container.config.stdin_once:
        inside.end_stdin()
