"""The rules of the statistics calls: whom they show, and what core adds to the engine's figures.

Lists are measured and encoded in parts: tens of thousands of figures at once would keep the event loop for
seconds, and as messages they take ten times the room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TypeVar

from podwright.core.containers import Containers
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.sandboxes import Sandboxes
from podwright.core.states import ContainerState, SandboxState
from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri

AT_ONCE = 20
"""Pods measured at once; of containers, three times as many. A call that waits needs several turns of the
event loop: a few milliseconds each."""

T = TypeVar("T")


class Stats:
    def __init__(self, ground: Ground, sandboxes: Sandboxes, containers: Containers) -> None:
        self._ground = ground
        self._sandboxes = sandboxes
        self._containers = containers

    async def container(self, id: str) -> cri.ContainerStats:
        """NotFound when there is none, or when it does not run: it uses nothing."""
        record = self._containers.shown(id)
        measured = await self._measured([record])
        if not measured:
            raise NotFound(f"container {record.id} is {record.state.value}: it uses nothing")
        return measured[0]

    async def containers(self, filter: cri.ContainerStatsFilter) -> bytes:
        """Of those that run: a ListContainerStatsResponse."""
        return b"".join([part async for part in self.containers_in_parts(filter)])

    async def containers_in_parts(self, filter: cri.ContainerStatsFilter) -> AsyncIterator[bytes]:
        """The same as several messages."""
        wanted = cri.ContainerFilter(
            id=filter.id, pod_sandbox_id=filter.pod_sandbox_id, label_selector=filter.label_selector
        )
        for part in _parts(self._containers.list(wanted), 3 * AT_ONCE):
            if measured := await self._measured(part):
                yield cri.ListContainerStatsResponse(stats=measured).SerializeToString()
            await asyncio.sleep(0)

    async def sandbox(self, id: str) -> cri.PodSandboxStats:
        """NotFound when there is none, or when it is not ready."""
        record = self._sandboxes.shown(id)
        measured = await self._measured_sandboxes([record])
        if not measured:
            raise NotFound(f"pod sandbox {record.id} is {record.state.value}: it uses nothing")
        return measured[0]

    async def sandboxes(self, filter: cri.PodSandboxStatsFilter) -> bytes:
        """Of those that are ready: a ListPodSandboxStatsResponse."""
        return b"".join([part async for part in self.sandboxes_in_parts(filter)])

    async def sandboxes_in_parts(self, filter: cri.PodSandboxStatsFilter) -> AsyncIterator[bytes]:
        """The same as several messages."""
        wanted = cri.PodSandboxFilter(id=filter.id, label_selector=filter.label_selector)
        for part in _parts(self._sandboxes.list(wanted), AT_ONCE):
            if measured := await self._measured_sandboxes(part):
                yield cri.ListPodSandboxStatsResponse(stats=measured).SerializeToString()
            await asyncio.sleep(0)

    async def _measured(self, records: Iterable[ContainerRecord]) -> list[cri.ContainerStats]:
        running = [each.seen_by_engine() for each in records if each.state is ContainerState.RUNNING]
        found = await self._ground.engine.container_stats(running)
        measured = []
        for container in running:
            if (stats := found.get(container.id)) is not None:
                stats.attributes.id = container.id
                stats.attributes.metadata.CopyFrom(container.config.metadata)
                stats.attributes.labels.update(container.config.labels)
                stats.attributes.annotations.update(container.config.annotations)
                measured.append(stats)
        return measured

    async def _measured_sandboxes(self, records: Iterable[SandboxRecord]) -> list[cri.PodSandboxStats]:
        ready: Sequence[SandboxRecord] = [each for each in records if each.state is SandboxState.READY]
        found = await self._ground.engine.sandbox_stats([record.seen_by_engine() for record in ready])
        containers = await self._measured(each for record in ready for each in record.containers.values())
        by_id = {stats.attributes.id: stats for stats in containers}
        measured = []
        for record in ready:
            if (linux := found.get(record.id)) is not None:
                linux.containers.extend(by_id[id] for id in record.containers if id in by_id)
                config = record.config
                attributes = cri.PodSandboxAttributes(
                    id=record.id,
                    metadata=config.metadata,
                    labels=config.labels,
                    annotations=config.annotations,
                )
                measured.append(cri.PodSandboxStats(attributes=attributes, linux=linux))
        return measured


def _parts(records: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (records[at : at + size] for at in range(0, len(records), size))
