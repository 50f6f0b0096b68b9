"""Ends of containers, as Docker's stream of events tells them; and what it makes for nobody any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from podwright.engines.base import Exit, Json, Presence
from podwright.engines.docker import labels, states
from podwright.engines.docker.api import Docker, filters
from podwright.engines.docker.logs import Logs
from podwright.engines.docker.objects import Objects
from podwright.engines.ends import Ends
from podwright.errors import DeadlineExceeded, PodwrightError, Unavailable

log = logging.getLogger(__name__)


class Exits:
    def __init__(self, docker: Docker, objects: Objects, logs: Logs) -> None:
        self._docker = docker
        self._objects = objects
        self._logs = logs
        self._since = time.time_ns()
        """Nanoseconds: what has been told up to then. Docker keeps some events for who comes late."""
        self._ends = Ends()

    def tell(self, exit: Exit) -> None:
        """An end that Docker knows nothing of."""
        self._ends.tell(exit)

    async def exits(self) -> AsyncGenerator[Exit, None]:
        """See `Engine.exits`. Raises Unavailable when Docker goes away."""
        async with aclosing(self._ends.following(self._follow(), "Docker")) as ends:
            async for each in ends:
                yield each

    async def _follow(self) -> None:
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
                    tellers.create_task(self._tell(event))

    async def _made(self, event: Json) -> None:
        with suppress(PodwrightError):
            await self._objects.made(event["Actor"]["ID"], event["Actor"]["Attributes"].get(labels.ID, ""))

    async def _tell(self, event: Json) -> None:
        attributes = event["Actor"]["Attributes"]
        id = attributes.get(labels.ID, "")
        if not id:
            return
        exit = Exit(id, int(attributes.get("exitCode") or 0) & 0xFF, int(event["timeNano"]))
        try:
            # The event has the code; the state alone tells whether memory was short.
            seen = states.observation(id, await self._objects.inspect_docker(event["Actor"]["ID"]))
            if seen.presence is Presence.EXITED and seen.exit is not None:
                exit = seen.exit
        except (Unavailable, DeadlineExceeded):
            raise  # the stream ends with it, and all are looked at when Docker is back
        except PodwrightError as error:
            log.warning("container %s: why it ended is not known: %s", id[:12], error)
        sandbox = attributes.get(labels.TYPE) == labels.SANDBOX
        if not sandbox:
            with suppress(PodwrightError):
                await self._logs.finish(id)
        self._ends.tell(replace(exit, sandbox=sandbox))
