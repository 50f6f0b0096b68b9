"""What tells that something has happened to pods: the runtime's events, or, where it has none, looking again
and again as a kubelet does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from podwright.api import Cri
from podwright.clock import SYSTEM, Clock
from podwright.errors import PodwrightError, Unimplemented
from podwright.kube.state.pod_state import UID_LABEL
from podwright.wire import cri_pb2 as cri

RELIST = 1.0
"""Seconds between two looks at a runtime that tells nothing (the kubelet's PLEG), and before one that has
gone is asked again."""

WORTHY = (cri.CONTAINER_STARTED_EVENT, cri.CONTAINER_STOPPED_EVENT)
"""Who has made or removed something knows it."""

State = frozenset[tuple[str, int]]


class Feed:
    """Calls listeners when something may have happened to their pod. One serves many pods."""

    def __init__(self, runtime: Cri, clock: Clock = SYSTEM) -> None:
        self._runtime = runtime
        self._clock = clock
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._states: dict[str, State] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Feed:
        self._task = asyncio.get_running_loop().create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def subscribe(self, uid: str, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` for what happens to the pod `uid`; returns how to end that."""
        self._listeners.setdefault(uid, []).append(listener)

        def leave() -> None:
            self._listeners[uid].remove(listener)
            if not self._listeners[uid]:
                del self._listeners[uid]

        return leave

    async def _follow(self) -> None:
        while True:
            looking = asyncio.get_running_loop().create_task(self._look_once())
            try:
                async for event in self._runtime.get_container_events(cri.GetEventsRequest()):
                    if event.container_event_type not in WORTHY:
                        continue
                    # Some servers leave the pod out.
                    self._tell(event.pod_sandbox_status.metadata.uid or None)
            except Unimplemented:
                await self._poll()
            except PodwrightError:
                pass  # it has gone, or is being started anew
            finally:
                looking.cancel()
            # Nobody knows what has happened meanwhile.
            self._tell(None)
            await self._clock.sleep(RELIST)

    async def _look_once(self) -> None:
        """Events are told from some moment after they are asked for; no runtime says when that has come."""
        await self._clock.sleep(RELIST)
        self._tell(None)

    def _tell(self, uid: str | None) -> None:
        """None: it may be any pod."""
        for one in [uid] if uid is not None else list(self._listeners):
            for listener in tuple(self._listeners.get(one, ())):
                listener()

    async def _poll(self) -> None:
        while True:
            with suppress(PodwrightError):
                await self._relist()
            await self._clock.sleep(RELIST)

    async def _relist(self) -> None:
        sandboxes, containers = await asyncio.gather(
            self._runtime.list_pod_sandbox(cri.ListPodSandboxRequest()),
            self._runtime.list_containers(cri.ListContainersRequest()),
        )
        states: dict[str, set[tuple[str, int]]] = {}
        for sandbox in sandboxes.items:
            states.setdefault(sandbox.labels.get(UID_LABEL, ""), set()).add((sandbox.id, sandbox.state))
        for container in containers.containers:
            states.setdefault(container.labels.get(UID_LABEL, ""), set()).add((container.id, container.state))
        for uid in list(self._listeners):
            state = frozenset(states.get(uid, ()))
            if self._states.get(uid) != state:
                self._tell(uid)
            self._states[uid] = state
