"""Metrics that follow from statistics, for any engine; their names and labels are those of core's table."""

from __future__ import annotations

from collections.abc import Iterator

from podwright.engines.base import Figure
from podwright.wire import cri_pb2 as cri

SECOND = 1_000_000_000


def of_stats(stats: cri.ContainerStats) -> Iterator[Figure]:
    """What the statistics of a container have; fields that are unset give nothing."""
    cpu, memory = stats.cpu, stats.memory
    if cpu.HasField("usage_core_nano_seconds"):
        yield Figure("container_cpu_usage_seconds_total", cpu.usage_core_nano_seconds.value // SECOND)
    for name, field in _MEMORY:
        if memory.HasField(field):
            yield Figure(name, getattr(memory, field).value)
    if stats.HasField("swap"):
        yield Figure("container_memory_swap", stats.swap.swap_usage_bytes.value)
    for resource, part in (("cpu", cpu), ("memory", memory), ("io", stats.io)):
        if part.HasField("psi"):
            name = f"container_pressure_{resource}"
            yield Figure(f"{name}_waiting_seconds_total", part.psi.Some.Total // SECOND)
            yield Figure(f"{name}_stalled_seconds_total", part.psi.Full.Total // SECOND)


def of_faults(own: tuple[int, int], with_children: tuple[int, int]) -> Iterator[Figure]:
    """Page faults, and those that read: of a container alone, and with the cgroups that it made."""
    for scope, counts in (("container", own), ("hierarchy", with_children)):
        for kind, count in zip(("pgfault", "pgmajfault"), counts, strict=True):
            yield Figure("container_memory_failures_total", count, (kind, scope))


def of_traffic(
    interface: str, received: tuple[int | None, ...], sent: tuple[int | None, ...]
) -> Iterator[Figure]:
    """Bytes, packets, errors and dropped packets in either direction; None is not known."""
    for direction, counts in (("receive", received), ("transmit", sent)):
        for what, count in zip(("bytes", "packets", "errors", "packets_dropped"), counts, strict=True):
            if count is not None:
                yield Figure(f"container_network_{direction}_{what}_total", count, (interface,))


_MEMORY = (
    ("container_memory_usage_bytes", "usage_bytes"),
    ("container_memory_working_set_bytes", "working_set_bytes"),
    ("container_memory_rss", "rss_bytes"),
)
