"""Events: what happened to sandboxes and containers, for whoever listens.

A subscriber has a bounded queue. One that does not keep up loses the oldest events and is told how many;
nobody is ever blocked by it. Messages are only made while somebody listens.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from podwright.wire import cri_pb2 as cri

QUEUE = 4096


class Subscription:
    def __init__(self) -> None:
        self._events: deque[cri.ContainerEventResponse] = deque(maxlen=QUEUE)
        self._ready = asyncio.Event()
        self.lost = 0
        """Events dropped because they were not taken in time."""

    def put(self, event: cri.ContainerEventResponse) -> None:
        if len(self._events) == QUEUE:
            self.lost += 1
        self._events.append(event)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[cri.ContainerEventResponse]:
        while True:
            await self._ready.wait()
            while self._events:
                yield self._events.popleft()
            self._ready.clear()


class Events:
    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Events from now on, until the block is left."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def emit(
        self,
        kind: cri.ContainerEventType,
        id: str,
        statuses: Callable[[], tuple[cri.PodSandboxStatus, list[cri.ContainerStatus]]],
    ) -> None:
        """Tell every subscriber. For a sandbox's own event `id` is the sandbox's."""
        if not self._subscriptions:
            return
        sandbox, containers = statuses()
        event = cri.ContainerEventResponse(
            container_id=id,
            container_event_type=kind,
            created_at=time.time_ns(),
            pod_sandbox_status=sandbox,
            containers_statuses=containers,
        )
        for subscription in self._subscriptions:
            subscription.put(event)
