"""What shims tell of their tasks (Tasks.Metrics), as the figures that a cgroup of this host would give: for
those whose processes are not this kernel's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from podwright.engines.containerd.api import Containerd
from podwright.errors import PodwrightError
from podwright.stats.reading import UNLIMITED, Detail, Device, HugePages, Memory, Reading, Swap
from podwright.wire.containerd import metrics_v1_pb2 as v1
from podwright.wire.containerd import metrics_v2_pb2 as v2
from podwright.wire.containerd import tasks_pb2, types_pb2

log = logging.getLogger(__name__)

Told = tuple[Reading, Detail]


async def ask(containerd: Containerd, ids: Sequence[str]) -> dict[str, Told]:
    """Of each task of `ids` that runs and tells something that can be understood."""
    request = tasks_pb2.MetricsRequest(filters=[f"id=={id}" for id in ids])
    try:
        answer = await containerd.ask(containerd.tasks.Metrics, request, "metrics")
    except PodwrightError as error:
        # One shim that hangs costs the answers of all; what this kernel knows is told all the same.
        log.warning("what shims measure is not known: %s", error)
        return {}
    told = {each.id: decoded(each) for each in answer.metrics}
    return {id: each for id, each in told.items() if each is not None}


def decoded(metric: types_pb2.Metric) -> Told | None:
    """None for a message of another kind."""
    at = metric.timestamp.ToNanoseconds()
    match metric.data.type_url.rpartition("/")[2]:
        case v1.Metrics.DESCRIPTOR.full_name:
            return _of_v1(at, v1.Metrics.FromString(metric.data.value))
        case v2.Metrics.DESCRIPTOR.full_name:
            return _of_v2(at, v2.Metrics.FromString(metric.data.value))
    return None


def _limit(value: int) -> int | None:
    return value if 0 < value < UNLIMITED else None


# Version 1


def _of_v1(at: int, found: v1.Metrics) -> Told:
    memory = found.memory
    told = found.HasField("memory")
    reading = Reading(
        at,
        found.cpu.usage.total if found.HasField("cpu") else None,
        Memory(
            memory.usage.usage,
            max(0, memory.usage.usage - memory.total_inactive_file),
            memory.total_rss,
            memory.total_pg_fault,
            memory.total_pg_maj_fault,
            _limit(memory.hierarchical_memory_limit),
        )
        if told
        else None,
        _swap_of_v1(memory) if told else None,
    )
    throttling = found.cpu.throttling if found.cpu.HasField("throttling") else None
    detail = Detail(
        user=found.cpu.usage.user if found.HasField("cpu") else None,
        system=found.cpu.usage.kernel if found.HasField("cpu") else None,
        periods=throttling.periods if throttling is not None else None,
        throttled_periods=throttling.throttled_periods if throttling is not None else None,
        throttled=throttling.throttled_time if throttling is not None else None,
        cache=memory.total_cache if told else None,
        kernel=memory.kernel.usage if memory.HasField("kernel") else None,
        mapped_file=memory.total_mapped_file if told else None,
        active_file=memory.total_active_file if told else None,
        inactive_file=memory.total_inactive_file if told else None,
        max_usage=memory.usage.max if told else None,
        limit_hits=memory.usage.failcnt if told else None,
        faults=(memory.pg_fault, memory.pg_maj_fault) if told else None,
        oom_kills=found.memory_oom_control.oom_kill if found.HasField("memory_oom_control") else None,
        pids=found.pids.current if found.HasField("pids") else None,
        pids_limit=_limit(found.pids.limit),
        devices=tuple(_devices_of_v1(found.blkio)),
        huge_pages=tuple(HugePages(each.pagesize, each.usage, each.max) for each in found.hugetlb),
    )
    return reading, detail


def _swap_of_v1(memory: v1.MemoryStat) -> Swap | None:
    """This entry counts memory and swap together; all zero where the kernel does not account swap."""
    both = memory.swap
    if not (both.limit or both.usage):
        return None
    limit = _limit(memory.hierarchical_memory_limit)
    most = _limit(memory.hierarchical_swap_limit)
    allowed = max(0, most - limit) if most is not None and limit is not None else None
    return Swap(max(0, both.usage - memory.usage.usage), allowed)


def _devices_of_v1(found: v1.BlkIOStat) -> Iterator[Device]:
    sizes: dict[tuple[int, int], dict[str, int]] = {}
    counts: dict[tuple[int, int], dict[str, int]] = {}
    for entries, kept in ((found.io_service_bytes_recursive, sizes), (found.io_serviced_recursive, counts)):
        for each in entries:
            kept.setdefault((each.major, each.minor), {})[each.op] = each.value
    for (major, minor), size in sizes.items():
        yield Device(major, minor, size, counts.get((major, minor), {}))


# Version 2


def _of_v2(at: int, found: v2.Metrics) -> Told:
    cpu, memory = found.cpu, found.memory
    told = found.HasField("memory")
    reading = Reading(
        at,
        cpu.usage_usec * 1000 if found.HasField("cpu") else None,
        Memory(
            memory.usage,
            max(0, memory.usage - memory.inactive_file),
            memory.anon,
            memory.pgfault,
            memory.pgmajfault,
            _limit(memory.usage_limit),
        )
        if told
        else None,
        Swap(memory.swap_usage, None if memory.swap_limit >= UNLIMITED else memory.swap_limit)
        if told
        else None,
    )
    events = found.memory_events if found.HasField("memory_events") else None
    detail = Detail(
        user=cpu.user_usec * 1000 if found.HasField("cpu") else None,
        system=cpu.system_usec * 1000 if found.HasField("cpu") else None,
        periods=cpu.nr_periods if found.HasField("cpu") else None,
        throttled_periods=cpu.nr_throttled if found.HasField("cpu") else None,
        throttled=cpu.throttled_usec * 1000 if found.HasField("cpu") else None,
        cache=memory.file if told else None,
        kernel=memory.slab + memory.kernel_stack if told else None,
        mapped_file=memory.file_mapped if told else None,
        active_file=memory.active_file if told else None,
        inactive_file=memory.inactive_file if told else None,
        max_usage=memory.max_usage or None,
        limit_hits=events.max if events is not None else None,
        faults=(memory.pgfault, memory.pgmajfault) if told else None,
        oom_kills=events.oom_kill if events is not None else None,
        pids=found.pids.current if found.HasField("pids") else None,
        pids_limit=_limit(found.pids.limit),
        devices=tuple(
            Device(
                each.major,
                each.minor,
                {"Read": each.rbytes, "Write": each.wbytes},
                {"Read": each.rios, "Write": each.wios},
            )
            for each in found.io.usage
        ),
        huge_pages=tuple(HugePages(each.pagesize, each.current, None) for each in found.hugetlb),
    )
    return reading, detail
