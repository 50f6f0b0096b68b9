"""Subscribers of events that do not keep up: they are told, and hold up neither the node nor each other."""

from __future__ import annotations

import asyncio

import pytest

from podwright.clock import VirtualClock
from podwright.core import events as events_module
from podwright.core.events import Events
from podwright.errors import ResourceExhausted
from podwright.hooks.running import Hooks
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node, until


def emit(events: Events, count: int, statuses: bytes = b"") -> None:
    for at in range(count):
        events.emit(cri.CONTAINER_CREATED_EVENT, str(at), lambda: statuses)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setattr(events_module, "QUEUE", 5)
    monkeypatch.setattr(events_module, "QUEUE_BYTES", 1000)
    return Events(VirtualClock())


async def ids(events: events_module.Subscription, count: int) -> list[str]:
    return [cri.ContainerEventResponse.FromString(await anext(events)).container_id for _ in range(count)]


async def test_whoever_loses_events_is_told_how_many_and_others_lose_none(events: Events) -> None:
    slow, quick = events.subscribe(), events.subscribe()
    for _ in range(2):
        emit(events, 4)
        assert await ids(quick, 4) == ["0", "1", "2", "3"]
    with pytest.raises(ResourceExhausted, match=r"^8 events are lost"):
        await anext(slow)
    emit(events, 1)
    with pytest.raises(ResourceExhausted, match=r"^9 events are lost"):
        await anext(slow)
    # What a kubelet does then: it begins anew.
    again = events.subscribe()
    emit(events, 1)
    assert await ids(again, 1) == ["0"]


async def test_what_just_fits_is_not_lost(events: Events) -> None:
    one = events.subscribe()
    emit(events, 5)
    assert await ids(one, 5) == ["0", "1", "2", "3", "4"]
    emit(events, 5)
    assert await ids(one, 5) == ["0", "1", "2", "3", "4"]
    assert one.lost == 0


async def test_large_events_fill_the_queue_sooner(events: Events) -> None:
    status = cri.ContainerEventResponse(
        pod_sandbox_status=cri.PodSandboxStatus(annotations={"long": "x" * 600})
    ).SerializeToString()
    one = events.subscribe()
    emit(events, 2, status)
    with pytest.raises(ResourceExhausted, match=r"^2 events"):
        await anext(one)
    # Those that have been taken need no room.
    quick = events.subscribe()
    for _ in range(3):
        emit(events, 1, status)
        assert await ids(quick, 1) == ["0"]
    emit(events, 2)
    assert await ids(quick, 2) == ["0", "1"]
    # A single one that is larger than all the room still comes.
    other = events.subscribe()
    emit(events, 1, status * 2)
    assert await ids(other, 1) == ["0"]
    assert other.lost == 0


async def test_who_waits_is_woken_by_the_loss(events: Events) -> None:
    one = events.subscribe()
    waiting = asyncio.ensure_future(ids(one, 6))
    await asyncio.sleep(0)
    emit(events, 6)
    with pytest.raises(ResourceExhausted, match="6 events are lost"):
        await waiting


async def test_hooks_that_watch_go_on_after_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "QUEUE", 3)
    seen: list[str] = []

    class Watching(Hooks):
        def __init__(self) -> None:
            super().__init__()
            self.watches = True

        async def watch(self, events: object) -> None:
            async for raw in events:  # type: ignore[attr-defined]
                seen.append(cri.ContainerEventResponse.FromString(raw).container_id)

    node = Node()
    node.boot()
    node.runtime._hooks = Watching()
    await node.engine.open()
    await node.runtime.open()
    try:
        await asyncio.sleep(0)
        emit(node.runtime.events, 5)
        watching = node.runtime._watching
        assert watching is not None and not watching.done()
        for _ in range(3):
            await asyncio.sleep(0)
        node.runtime.events.emit(cri.CONTAINER_STOPPED_EVENT, "after", bytes)
        await until(lambda: seen)
        assert seen == ["after"]
    finally:
        await node.stop()
