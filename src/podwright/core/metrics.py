"""The metrics calls: the engine's figures with the labels of their pod and container, and what core knows.

A pod's entry has the network's figures; each of its running containers has its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain

from podwright.core import streams
from podwright.core.ground import Ground
from podwright.core.metric_table import KINDS
from podwright.core.record import ContainerRecord, SandboxRecord
from podwright.core.states import ContainerState, SandboxState
from podwright.core.stats import AT_ONCE
from podwright.core.views import image_shown
from podwright.engines.base import Figure
from podwright.wire import cri_pb2 as cri

SECOND = 1_000_000_000
KEPT = ("memory.min", "memory.low")
"""What of cgroup v2 keeps memory for a container: the stricter first."""


class Metrics:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def all(self) -> bytes:
        """Of all sandboxes that are ready: a ListPodSandboxMetricsResponse."""
        return b"".join([message async for message in self.in_chunks()])

    async def in_chunks(self) -> AsyncIterator[bytes]:
        """The same as several messages of a bounded size."""
        ready = [each for each in self._ground.records.sandboxes if each.state is SandboxState.READY]
        for at in range(0, len(ready), AT_ONCE):
            pieces = [
                cri.ListPodSandboxMetricsResponse(pod_metrics=[each]).SerializeToString()
                for each in await self._measured(ready[at : at + AT_ONCE])
            ]
            async for message in streams.in_chunks(pieces):
                yield message
            await asyncio.sleep(0)

    async def _measured(self, sandboxes: Sequence[SandboxRecord]) -> list[cri.PodSandboxMetrics]:
        """Of those that are still ready."""
        sandboxes = [each for each in sandboxes if each.state is SandboxState.READY]
        running = [
            container
            for sandbox in sandboxes
            for container in sandbox.containers.values()
            if container.state is ContainerState.RUNNING
        ]
        engine = self._ground.engine
        of_pods = await engine.sandbox_figures([each.seen_by_engine() for each in sandboxes])
        of_containers = await engine.container_figures([each.seen_by_engine() for each in running])
        now = self._ground.clock.now()
        measured: dict[str, cri.PodSandboxMetrics] = {}
        for sandbox in sandboxes:
            pod = measured[sandbox.id] = cri.PodSandboxMetrics(pod_sandbox_id=sandbox.id)
            labels = _labels(sandbox, "", sandbox.id, "")
            pod.metrics.extend(_metrics(of_pods.get(sandbox.id, ()), labels, now))
        for container in running:
            figures = of_containers.get(container.id)
            if figures is None:
                continue  # it has just ended
            config = container.config
            shown = image_shown(container)
            image = shown.user_specified_image or shown.image
            labels = _labels(container.sandbox, config.metadata.name, container.id, image)
            part = measured[container.sandbox.id].container_metrics.add(container_id=container.id)
            part.metrics.extend(_metrics(chain(figures, _known(container, now)), labels, now))
        return list(measured.values())


def _labels(sandbox: SandboxRecord, container: str, id: str, image: str) -> tuple[str, ...]:
    """In the order of metric_table.LABELS."""
    metadata = sandbox.config.metadata
    return (metadata.name, metadata.namespace, container, id, image)


def _metrics(figures: Iterable[Figure], labels: tuple[str, ...], now: int) -> Iterator[cri.Metric]:
    for name, value, more in figures:
        yield cri.Metric(
            name=name,
            timestamp=now,
            metric_type=KINDS[name],
            label_values=(*labels, *more),
            value=cri.UInt64Value(value=value),
        )


def _known(container: ContainerRecord, now: int) -> Iterator[Figure]:
    """What the engine need not be asked: what holds of the request and its updates, and times."""
    resources = container.resources
    yield Figure("container_spec_cpu_period", max(0, resources.cpu_period))
    if resources.cpu_quota > 0:
        yield Figure("container_spec_cpu_quota", resources.cpu_quota)
    yield Figure("container_spec_cpu_shares", max(0, resources.cpu_shares))
    yield Figure("container_spec_memory_limit_bytes", max(0, resources.memory_limit_in_bytes))
    kept = next((resources.unified[key] for key in KEPT if resources.unified.get(key, "").isdecimal()), "0")
    yield Figure("container_spec_memory_reservation_limit_bytes", int(kept))
    yield Figure("container_spec_memory_swap_limit_bytes", max(0, resources.memory_swap_limit_in_bytes))
    yield Figure("container_start_time_seconds", container.started_at // SECOND)
    yield Figure("container_last_seen", now // SECOND)
