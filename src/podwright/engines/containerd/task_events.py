"""What containerd's events say of tasks: that one has ended, that one was short of memory."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from podwright.engines.containerd.api import Containerd
from podwright.errors import Unavailable
from podwright.wire.containerd import event_types_pb2, events_pb2

EXIT, OOM = "/tasks/exit", "/tasks/oom"
HERE = "/podwright/here"
"""Topic of an event of our own: once it comes back, those of others come as well. containerd itself does not
tell when it has begun to hand them on."""
HERE_TYPE = "podwright.io/here"
ASK_AGAIN = 0.2
"""Seconds after which an event that has not come back, for nobody listened yet, is sent again."""
PATIENCE = 10.0
"""Seconds that a look waits for the events to come."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task's first process has."""

    id: str
    code: int
    finished_at: int
    """Nanoseconds since the epoch."""

    @classmethod
    def of(cls, id: str, code: int, at: Timestamp) -> Self:
        # A shim that has died told nobody when.
        return cls(id, min(code, 255), at.ToNanoseconds() if at.seconds > 0 else time.time_ns())


class TaskEvents:
    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self._following: asyncio.Future[None] | None = None
        """Done once every event comes; None while nobody listens."""
        self._short_of_memory: set[str] = set()

    async def followed(self) -> None:
        """Wait until ends from now on are seen, if somebody is about to follow them; who follows them later
        looks then. Unavailable when containerd goes away meanwhile."""
        following = self._following
        if following is None or following.done():
            return
        done, _ = await asyncio.wait([following], timeout=PATIENCE)
        if not done or self._following is not following:
            raise Unavailable("containerd does not tell its events")

    def short_of_memory(self, id: str) -> bool:
        return id in self._short_of_memory

    def forget(self, id: str) -> None:
        self._short_of_memory.discard(id)

    async def ends(self, tasks: asyncio.TaskGroup) -> AsyncIterator[Ended]:
        """The ends of all tasks in our namespace, whoever made them; `tasks` takes what goes on beside."""
        token = secrets.token_bytes(16)
        following = self._following = asyncio.get_running_loop().create_future()
        announcing = tasks.create_task(self._announce(token, following))
        namespace = self._containerd.namespace
        wanted = [f'namespace=="{namespace}",topic=="{topic}"' for topic in (EXIT, OOM, HERE)]
        request = events_pb2.SubscribeRequest(filters=wanted)
        try:
            async for envelope in self._containerd.listen(
                self._containerd.events.Subscribe, request, "its events", timeout=None
            ):
                if envelope.topic == EXIT:
                    event = event_types_pb2.TaskExit.FromString(envelope.event.value)
                    if event.id in ("", event.container_id):
                        yield Ended.of(event.container_id, event.exit_status, event.exited_at)
                elif envelope.topic == OOM:
                    self._short_of_memory.add(
                        event_types_pb2.TaskOOM.FromString(envelope.event.value).container_id
                    )
                elif envelope.event.value == token and not following.done():
                    following.set_result(None)
            raise Unavailable("containerd has ended its stream of events")
        finally:
            announcing.cancel()
            if self._following is following:
                self._following = None
            following.cancel()

    async def _announce(self, token: bytes, following: asyncio.Future[None]) -> None:
        event = AnyMessage(type_url=HERE_TYPE, value=token)
        request = events_pb2.PublishRequest(topic=HERE, event=event)
        while not following.done():
            await self._containerd.ask(self._containerd.events.Publish, request, "an event")
            await asyncio.wait([following], timeout=ASK_AGAIN)
