"""The rules of the statistics calls: whom they show, and what core adds to the engine's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from podwright.core.containers import Containers
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.sandboxes import Sandboxes
from podwright.core.states import ContainerState, SandboxState
from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri


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

    async def containers(self, filter: cri.ContainerStatsFilter) -> list[cri.ContainerStats]:
        """Of those that run."""
        wanted = cri.ContainerFilter(
            id=filter.id, pod_sandbox_id=filter.pod_sandbox_id, label_selector=filter.label_selector
        )
        return await self._measured(self._containers.list(wanted))

    async def sandbox(self, id: str) -> cri.PodSandboxStats:
        """NotFound when there is none, or when it is not ready."""
        record = self._sandboxes.shown(id)
        measured = await self._measured_sandboxes([record])
        if not measured:
            raise NotFound(f"pod sandbox {record.id} is {record.state.value}: it uses nothing")
        return measured[0]

    async def sandboxes(self, filter: cri.PodSandboxStatsFilter) -> list[cri.PodSandboxStats]:
        """Of those that are ready."""
        wanted = cri.PodSandboxFilter(id=filter.id, label_selector=filter.label_selector)
        return await self._measured_sandboxes(self._sandboxes.list(wanted))

    async def _measured(self, records: Iterable[ContainerRecord]) -> list[cri.ContainerStats]:
        running = [record for record in records if record.state is ContainerState.RUNNING]
        found = await self._ground.engine.container_stats([record.seen_by_engine() for record in running])
        measured = []
        for record in running:
            if (stats := found.get(record.id)) is not None:
                stats.attributes.id = record.id
                stats.attributes.metadata.CopyFrom(record.config.metadata)
                stats.attributes.labels.update(record.config.labels)
                stats.attributes.annotations.update(record.config.annotations)
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
                attributes = cri.PodSandboxAttributes(
                    id=record.id,
                    metadata=record.config.metadata,
                    labels=record.config.labels,
                    annotations=record.config.annotations,
                )
                measured.append(cri.PodSandboxStats(attributes=attributes, linux=linux))
        return measured
