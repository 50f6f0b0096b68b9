"""Ends of containers, as Docker's stream of events tells them; and what it makes for nobody any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from podwright.engines.base import Exit, Json, Presence
from podwright.engines.docker import labels, states
from podwright.engines.docker.api import Docker, filters
from podwright.engines.docker.logs import Logs
from podwright.engines.docker.objects import Objects
from podwright.errors import PodwrightError, Unavailable


class Exits:
    def __init__(self, docker: Docker, objects: Objects, logs: Logs) -> None:
        self._docker = docker
        self._objects = objects
        self._logs = logs
        self._since = time.time_ns()
        """Nanoseconds: what has been told up to then. Docker keeps some events for who comes late."""
        self._told: asyncio.Queue[Exit | BaseException] = asyncio.Queue()

    def tell(self, exit: Exit) -> None:
        """An end that Docker knows nothing of."""
        self._told.put_nowait(exit)

    async def exits(self) -> AsyncGenerator[Exit, None]:
        """See `Engine.exits`. Raises Unavailable when Docker goes away."""
        told = self._told
        following = asyncio.ensure_future(self._follow(told))

        def end(task: asyncio.Task[None]) -> None:
            told.put_nowait(_end(task))

        following.add_done_callback(end)
        try:
            while True:
                each = await told.get()
                if isinstance(each, BaseException):
                    raise each
                yield each
        finally:
            following.remove_done_callback(end)
            following.cancel()
            await asyncio.wait([following])

    async def _follow(self, told: asyncio.Queue[Exit | BaseException]) -> None:
        wanted = filters(
            type=["container"], event=["create", "die"], label=[f"{labels.OWNER}={self._objects.owner}"]
        )
        since = f"{self._since // 10**9}.{self._since % 10**9:09d}"
        # Each end is told by itself: one whose log takes long does not hold up the others.
        async with (
            asyncio.TaskGroup() as tellers,
            self._docker.stream("GET", "/events", {"since": since, "filters": wanted}) as events,
        ):
            async for event in events:
                self._since = max(self._since, int(event.get("timeNano") or 0))
                if event["Action"] == "create":
                    tellers.create_task(self._made(event))
                else:
                    tellers.create_task(self._tell(event, told))

    async def _made(self, event: Json) -> None:
        with suppress(PodwrightError):
            await self._objects.made(event["Actor"]["ID"], event["Actor"]["Attributes"].get(labels.ID, ""))

    async def _tell(self, event: Json, told: asyncio.Queue[Exit | BaseException]) -> None:
        attributes = event["Actor"]["Attributes"]
        id = attributes.get(labels.ID, "")
        if not id:
            return
        exit = Exit(id, int(attributes.get("exitCode") or 0) & 0xFF, int(event["timeNano"]))
        with suppress(PodwrightError):
            # The event has the code; the state alone tells whether memory was short.
            seen = states.observation(id, await self._objects.inspect_docker(event["Actor"]["ID"]))
            if seen.presence is Presence.EXITED and seen.exit is not None:
                exit = seen.exit
        sandbox = attributes.get(labels.TYPE) == labels.SANDBOX
        if not sandbox:
            with suppress(PodwrightError):
                await self._logs.finish(id)
        told.put_nowait(replace(exit, sandbox=sandbox))


def _end(task: asyncio.Task[None]) -> BaseException:
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or Unavailable("Docker has ended its stream of events")
