"""Events: what happened to sandboxes and containers, for whoever listens.

A subscriber has a bounded queue. One that does not keep up loses the oldest events and is told how many;
nobody is ever blocked by it. An event is encoded once, from what the views keep encoded already, and only
while somebody listens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from weakref import WeakSet

from podwright.clock import Clock
from podwright.wire import cri_pb2 as cri

QUEUE = 4096
"""Events kept for a subscriber that does not take them."""

log = logging.getLogger(__name__)


class Subscription:
    """An iterator of events, encoded ContainerEventResponse messages. Dropping it is leaving."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque(maxlen=QUEUE)
        self._ready = asyncio.Event()
        self.lost = 0
        """Events dropped because they were not taken in time."""

    def put(self, event: bytes) -> None:
        if len(self._events) == QUEUE:
            self.lost += 1
            if self.lost == 1 or self.lost % QUEUE == 0:
                log.warning("a client of the event stream does not keep up: %d events are lost", self.lost)
        self._events.append(event)
        self._ready.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> bytes:
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()


class Events:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self.loses: Callable[[cri.ContainerEventType, str], bool] | None = None
        """Asked before each event whether it gets lost: the fake node's faults."""

    def subscribe(self) -> Subscription:
        """Events from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def emit(self, kind: cri.ContainerEventType, id: str, statuses: Callable[[], bytes]) -> None:
        """Tell every subscriber. For a sandbox's own event `id` is the sandbox's; `statuses` gives the two
        status fields, encoded."""
        if not self._subscriptions or (self.loses is not None and self.loses(kind, id)):
            return
        head = cri.ContainerEventResponse(
            container_id=id, container_event_type=kind, created_at=self._clock.now()
        ).SerializeToString()
        event = head + statuses()
        for subscription in self._subscriptions:
            subscription.put(event)


async def decoded(events: AsyncIterator[bytes]) -> AsyncIterator[cri.ContainerEventResponse]:
    async for event in events:
        yield cri.ContainerEventResponse.FromString(event)
