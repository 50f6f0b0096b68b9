"""Events: what happened to sandboxes and containers, for whoever listens.

A subscriber has a bounded queue. One that does not keep up loses events, and is told: its stream ends with
ResourceExhausted, which says how many are lost. A kubelet lists everything when its stream ends with an
error, and subscribes again; so what waits in the queue of such a subscriber is of no use any more, and is
dropped, too. Nobody is ever blocked by it. An event is encoded once, from what the views keep encoded
already, and only while somebody listens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from weakref import WeakSet

from podwright.clock import Clock
from podwright.errors import ResourceExhausted
from podwright.wire import cri_pb2 as cri

QUEUE = 4096
QUEUE_BYTES = 64 << 20
"""Events, and their bytes, kept for a subscriber that does not take them."""

log = logging.getLogger(__name__)


class Subscription:
    """An iterator of events, encoded ContainerEventResponse messages. Dropping it is leaving.

    Raises ResourceExhausted when events were not taken in time, and is at its end then.
    """

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self.lost = 0
        """Events that were not taken in time; with the first of them it has ended."""

    def put(self, event: bytes) -> None:
        self._bytes += len(event)
        # One event may be larger than all that is kept otherwise: who waits for it shall have it.
        full = len(self._events) == QUEUE or (self._events and self._bytes > QUEUE_BYTES)
        if self.lost or full:
            if not self.lost:
                log.warning("a client of the event stream does not keep up: its stream is ended")
            self.lost += 1 + len(self._events)
            self._events.clear()
            self._bytes = 0
        else:
            self._events.append(event)
        self._ready.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> bytes:
        while not self._events:
            if self.lost:
                raise ResourceExhausted(
                    f"{self.lost} events are lost: they were not read in time; list what there is, and"
                    " subscribe again"
                )
            self._ready.clear()
            await self._ready.wait()
        event = self._events.popleft()
        self._bytes -= len(event)
        return event


class Events:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self.lost = 0
        """By all subscribers together."""
        self.loses: Callable[[cri.ContainerEventType, str], bool] | None = None
        """Asked before each event whether it gets lost: the fake node's faults."""

    def subscribe(self) -> Subscription:
        """Events from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    @property
    def subscribers(self) -> int:
        return len(self._subscriptions)

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
            before = subscription.lost
            subscription.put(event)
            self.lost += subscription.lost - before


async def decoded(events: AsyncIterator[bytes]) -> AsyncIterator[cri.ContainerEventResponse]:
    async for event in events:
        yield cri.ContainerEventResponse.FromString(event)
