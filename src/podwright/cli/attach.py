"""attach: the user's terminal or pipes at the first process of a running container."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from podwright.cli import session, terminal
from podwright.cli.find import find
from podwright.engines.streams import Size, Streams
from podwright.errors import NotFound

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.streaming.client import Options

SHAKE = 0.1
"""Seconds for a program to notice that its terminal has another size."""

END = 2.0
"""Seconds that a container whose streams have ended has to be told as exited."""


async def attach(door: Door, word: str, *, stdin: bool, detach_keys: str, options: Options) -> int:
    """Connect with the container that `word` names until it has ended or the user leaves.

    The container's exit code when it has ended; 0 when it goes on.
    """
    from podwright.cli.share import lasting
    from podwright.streaming import client

    keys = terminal.keys(detach_keys)
    async with lasting(door, None) as runtime:
        container = await find(runtime, word, ("container",))
        takes_input, tty = await client.made_with(runtime, container.id)
        stdin = stdin and takes_input
        at_terminal = tty and session.has_terminal(stdin=stdin)
        if at_terminal and stdin and keys:
            print(
                f"podwright: attached to {container.title}; {detach_keys} leaves it running", file=sys.stderr
            )

        async def talk(streams: Streams) -> None:
            if tty:
                # What the container has drawn before is not sent again: a change of size makes it draw anew.
                sizes = None if streams.sizes is None else _shaken(streams.sizes)
                streams = replace(streams, tty=True, stderr=None, sizes=sizes)
            await client.attach(runtime, container.id, streams, options)

        try:
            await session.converse(talk, stdin=stdin, tty=at_terminal, keys=keys)
        except session.Detached:
            print(file=sys.stderr)
            return 0
        return await _exit_code(runtime, container.id)


async def _shaken(sizes: AsyncIterator[Size]) -> AsyncIterator[Size]:
    first = True
    async for size in sizes:
        if first:
            yield Size(size.width + 1, size.height + 1)
            # On the way the newest size counts, so both at once would be one; nobody tells when it is set.
            await asyncio.sleep(SHAKE)
            first = False
        yield size


async def _exit_code(runtime: Cri, id: str) -> int:
    from podwright.kube.life import exits

    try:
        async with asyncio.timeout(END):
            return (await exits.wait(runtime, id)).exit_code
    except (TimeoutError, NotFound):
        return 0  # it goes on without its streams, or is gone
