"""A control group as cgroup v1 shows it: a directory in each controller's own hierarchy.

Hierarchical figures are taken where there are both ("total_rss"): a container may have cgroups of its own. Of
a hybrid host the unified hierarchy adds what it keeps: pressure, and controllers that v1 has let go.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from podwright.linux.cgroups import Layout
from podwright.stats import cgroup_v2
from podwright.stats.reading import (
    UNLIMITED,
    Detail,
    Device,
    HugePages,
    Memory,
    Reading,
    Swap,
    content,
    number,
    stall,
    table,
)

_TICK = 10_000_000
"""Nanoseconds of a USER_HZ, in which cpuacct.stat counts; 100 a second on every architecture of today."""


def read(path: str, where: Layout) -> Reading | None:
    """The cgroup `path` ("/podwright/ID"); None when it is gone."""
    used = cpu(path, where)
    memory, swap = _memory(where, path)
    if used is None and memory is None:
        return None
    at = time.time_ns()
    if where.unified is not None:
        base = f"{where.unified}{path}"
        if (stalled := stall(f"{base}/cpu.pressure")) is not None:
            return Reading(
                at,
                used,
                memory,
                swap,
                stalled,
                stall(f"{base}/memory.pressure"),
                stall(f"{base}/io.pressure"),
            )
    return Reading(at, used, memory, swap)


def cpu(path: str, where: Layout) -> int | None:
    """CPU time used, nanoseconds."""
    root = where.controllers.get("cpuacct")
    return number(f"{root}{path}/cpuacct.usage") if root is not None else None


def detail(path: str, where: Layout, page_sizes: tuple[str, ...]) -> Detail:
    def base(controller: str) -> str:
        # A controller that is not mounted has no files below its name either.
        return f"{where.controllers.get(controller, '/nonexistent')}{path}"

    memory = base("memory")
    figures = {key: int(value) for key, value in table(content(f"{memory}/memory.stat")).items()}
    used = table(content(f"{base('cpuacct')}/cpuacct.stat"))
    quota = table(content(f"{base('cpu')}/cpu.stat"))
    oom = table(content(f"{memory}/memory.oom_control"))
    user, system = used.get(b"user"), used.get(b"system")
    faults = figures.get(b"pgfault"), figures.get(b"pgmajfault")
    return Detail(
        user=int(user) * _TICK if user else None,
        system=int(system) * _TICK if system else None,
        periods=_int(quota.get(b"nr_periods")),
        throttled_periods=_int(quota.get(b"nr_throttled")),
        throttled=_int(quota.get(b"throttled_time")),
        cache=figures.get(b"total_cache"),
        kernel=number(f"{memory}/memory.kmem.usage_in_bytes"),
        mapped_file=figures.get(b"total_mapped_file"),
        active_file=figures.get(b"total_active_file"),
        inactive_file=figures.get(b"total_inactive_file"),
        max_usage=number(f"{memory}/memory.max_usage_in_bytes"),
        limit_hits=number(f"{memory}/memory.failcnt"),
        faults=(faults[0], faults[1]) if faults[0] is not None and faults[1] is not None else None,
        oom_kills=_int(oom.get(b"oom_kill")),
        pids=number(f"{base('pids')}/pids.current"),
        pids_limit=number(f"{base('pids')}/pids.max"),
        devices=tuple(_devices(base("blkio"))),
        huge_pages=tuple(_huge_pages(path, where, page_sizes)),
    )


def pids(path: str, where: Layout) -> int | None:
    """How many tasks are in it."""
    root = where.controllers.get("pids")
    return number(f"{root}{path}/pids.current") if root is not None else None


def _memory(where: Layout, path: str) -> tuple[Memory | None, Swap | None]:
    root = where.controllers.get("memory")
    if root is None:
        return None, None
    usage = number(f"{root}{path}/memory.usage_in_bytes")
    figures = table(content(f"{root}{path}/memory.stat"))
    if usage is None or b"total_rss" not in figures:
        return None, None
    # The smallest limit on the way up is what holds; the kernel tells it in this file.
    limit = _limit(figures.get(b"hierarchical_memory_limit"))
    memory = Memory(
        usage,
        max(0, usage - int(figures[b"total_inactive_file"])),
        int(figures[b"total_rss"]),
        int(figures[b"total_pgfault"]),
        int(figures[b"total_pgmajfault"]),
        limit,
    )
    if b"total_swap" not in figures:
        return memory, None
    # This limit is for memory and swap together.
    both = _limit(figures.get(b"hierarchical_memsw_limit"))
    allowed = max(0, both - limit) if both is not None and limit is not None else None
    return memory, Swap(int(figures[b"total_swap"]), allowed)


def _limit(text: bytes | None) -> int | None:
    return int(text) if text is not None and int(text) < UNLIMITED else None


def _int(text: bytes | None) -> int | None:
    return int(text) if text is not None else None


def _devices(base: str) -> Iterator[Device]:
    """From the throttling layer, which sees all requests; bfq counts only those it schedules."""
    sizes, counts = (
        _by_device(
            content(f"{base}/blkio.throttle.{name}_recursive") or content(f"{base}/blkio.throttle.{name}")
        )
        for name in ("io_service_bytes", "io_serviced")
    )
    for numbers, each in sizes.items():
        major, _, minor = numbers.partition(":")
        yield Device(int(major), int(minor), each, counts.get(numbers, {}))


def _by_device(text: bytes | None) -> dict[str, dict[str, int]]:
    """Lines "8:0 Read 4096"; the last is the sum of all devices."""
    found: dict[str, dict[str, int]] = {}
    for line in (text or b"").decode().splitlines():
        words = line.split()
        if len(words) == 3:
            found.setdefault(words[0], {})[words[1]] = int(words[2])
    return found


def _huge_pages(path: str, where: Layout, page_sizes: tuple[str, ...]) -> Iterator[HugePages]:
    root = where.controllers.get("hugetlb")
    if root is None:
        if where.unified is not None:
            yield from cgroup_v2.huge_pages(f"{where.unified}{path}", page_sizes)
        return
    for size in page_sizes:
        usage = number(f"{root}{path}/hugetlb.{size}.usage_in_bytes")
        if usage is not None:
            yield HugePages(size, usage, number(f"{root}{path}/hugetlb.{size}.max_usage_in_bytes"))
