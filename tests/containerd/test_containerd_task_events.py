"""What is made of events of containerd, without one: from when on they come, and which of them count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from podwright.engines.containerd.api import Containerd, any_of
from podwright.engines.containerd.task_events import EXIT, OOM, Ended, TaskEvents
from podwright.errors import Unavailable
from podwright.wire.containerd import event_types_pb2, events_pb2, types_pb2


class Daemon:
    """The two calls that events need. What is published is heard of only by who listens by then."""

    namespace = "k8s.io"
    events = SimpleNamespace(Subscribe="subscribe", Publish="publish")

    def __init__(self) -> None:
        self.listens = asyncio.Event()
        self.published = 0
        self.wanted: list[str] = []
        self._stream: asyncio.Queue[types_pb2.Envelope | None] = asyncio.Queue()

    async def ask(self, call: str, request: events_pb2.PublishRequest, tried: str) -> None:
        self.published += 1
        if self.listens.is_set():
            self.send(request.topic, request.event)

    async def listen(
        self, call: str, request: events_pb2.SubscribeRequest, tried: str, *, timeout: float | None
    ) -> AsyncIterator[types_pb2.Envelope]:
        assert timeout is None, "events come for ever"
        self.wanted = list(request.filters)
        await self.listens.wait()
        while (envelope := await self._stream.get()) is not None:
            yield envelope

    def send(self, topic: str, event: AnyMessage) -> None:
        self._stream.put_nowait(types_pb2.Envelope(topic=topic, event=event))

    def exits(self, id: str, of: str, code: int, seconds: int) -> None:
        event = event_types_pb2.TaskExit(
            container_id=of, id=id, exit_status=code, exited_at=Timestamp(seconds=seconds)
        )
        self.send(EXIT, any_of(event))

    def end(self) -> None:
        self._stream.put_nowait(None)


async def test_a_look_waits_until_ends_are_seen() -> None:
    daemon = Daemon()
    events = TaskEvents(cast(Containerd, daemon))
    await events.followed()  # nobody listens: who does later looks then

    found: list[Ended] = []

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            async for each in events.ends(tasks):
                found.append(each)

    following = asyncio.ensure_future(follow())
    while not (daemon.wanted or following.done()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    looking = asyncio.ensure_future(events.followed())
    while daemon.published < 2:  # noqa: ASYNC110, the first came too early to be heard
        await asyncio.sleep(0.01)
    assert not looking.done()
    daemon.listens.set()
    await asyncio.wait_for(looking, 20)
    assert set(daemon.wanted) == {
        f'namespace=="k8s.io",topic=="{topic}"' for topic in (EXIT, OOM, "/podwright/here")
    }

    daemon.exits("an-exec", "c1", 1, 5)
    daemon.send(OOM, any_of(event_types_pb2.TaskOOM(container_id="c1")))
    daemon.exits("c1", "c1", 137, 7)
    before = time.time_ns()
    daemon.exits("c2", "c2", 300, 0)  # of a shim that has died nobody knows when
    daemon.end()
    with pytest.raises(BaseExceptionGroup) as error:
        await asyncio.wait_for(following, 20)
    assert error.group_contains(Unavailable, match="has ended its stream of events")
    first, second = found
    assert (first.id, first.code, first.finished_at) == ("c1", 137, 7 * 10**9)
    assert (second.id, second.code) == ("c2", 255) and before <= second.finished_at <= time.time_ns()
    assert events.short_of_memory("c1") and not events.short_of_memory("c2")
    events.forget("c1")
    assert not events.short_of_memory("c1")


async def test_a_look_is_told_when_containerd_goes_away_meanwhile() -> None:
    daemon = Daemon()
    events = TaskEvents(cast(Containerd, daemon))

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            async for _ in events.ends(tasks):
                raise AssertionError("nothing has ended")

    following: asyncio.Future[Any] = asyncio.ensure_future(follow())
    while not (daemon.wanted or following.done()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    looking = asyncio.ensure_future(events.followed())
    await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait([following])
    with pytest.raises(Unavailable, match="does not tell its events"):
        await asyncio.wait_for(looking, 20)
