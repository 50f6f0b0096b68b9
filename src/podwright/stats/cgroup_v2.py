"""A control group as cgroup v2 shows it: one directory with the files of all controllers
(the kernel's admin-guide/cgroup-v2.rst). All its figures include the cgroups below it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from podwright.stats.reading import (
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

_OPERATIONS = {"r": "Read", "w": "Write", "d": "Discard"}


def read(base: str) -> Reading | None:
    """The cgroup whose directory is `base`; None when it is gone."""
    used = cpu(base)
    if used is None:
        return None
    memory = _memory(base)
    at = time.time_ns()
    stalled = stall(f"{base}/cpu.pressure")
    if stalled is None:
        return Reading(at, used, memory, _swap(base) if memory else None)
    return Reading(
        at,
        used,
        memory,
        _swap(base) if memory else None,
        stalled,
        stall(f"{base}/memory.pressure"),
        stall(f"{base}/io.pressure"),
    )


def cpu(base: str) -> int | None:
    """CPU time used, nanoseconds."""
    text = content(f"{base}/cpu.stat")
    if not text or not text.startswith(b"usage_usec "):
        return None
    return int(text[11 : text.index(b"\n")]) * 1000


def pids(base: str) -> int | None:
    """How many tasks are in it."""
    return number(f"{base}/pids.current")


def detail(base: str, page_sizes: tuple[str, ...]) -> Detail:
    used = {key: int(value) for key, value in table(content(f"{base}/cpu.stat")).items()}
    figures = {key: int(value) for key, value in table(content(f"{base}/memory.stat")).items()}
    events = table(content(f"{base}/memory.events"))
    faults = figures.get(b"pgfault"), figures.get(b"pgmajfault")

    def nanoseconds(key: bytes) -> int | None:
        return used[key] * 1000 if key in used else None

    return Detail(
        user=nanoseconds(b"user_usec"),
        system=nanoseconds(b"system_usec"),
        periods=used.get(b"nr_periods"),
        throttled_periods=used.get(b"nr_throttled"),
        throttled=nanoseconds(b"throttled_usec"),
        cache=figures.get(b"file"),
        kernel=_kernel(figures),
        mapped_file=figures.get(b"file_mapped"),
        active_file=figures.get(b"active_file"),
        inactive_file=figures.get(b"inactive_file"),
        max_usage=number(f"{base}/memory.peak"),
        limit_hits=int(events[b"max"]) if b"max" in events else None,
        faults=(faults[0], faults[1]) if faults[0] is not None and faults[1] is not None else None,
        oom_kills=int(events[b"oom_kill"]) if b"oom_kill" in events else None,
        pids=pids(base),
        pids_limit=number(f"{base}/pids.max"),
        devices=tuple(_devices(content(f"{base}/io.stat"))),
        huge_pages=tuple(huge_pages(base, page_sizes)),
    )


def huge_pages(base: str, page_sizes: tuple[str, ...]) -> Iterator[HugePages]:
    """The kernel keeps no maximum here."""
    for size in page_sizes:
        usage = number(f"{base}/hugetlb.{size}.current")
        if usage is not None:
            yield HugePages(size, usage, None)


def _memory(base: str) -> Memory | None:
    usage = number(f"{base}/memory.current")
    figures = table(content(f"{base}/memory.stat"))
    if usage is None or b"anon" not in figures:
        return None
    return Memory(
        usage,
        max(0, usage - int(figures[b"inactive_file"])),
        int(figures[b"anon"]),
        int(figures[b"pgfault"]),
        int(figures[b"pgmajfault"]),
        number(f"{base}/memory.max"),
    )


def _swap(base: str) -> Swap | None:
    usage = number(f"{base}/memory.swap.current")
    return Swap(usage, number(f"{base}/memory.swap.max")) if usage is not None else None


def _kernel(figures: dict[bytes, int]) -> int | None:
    """Linux 5.18 has the sum, earlier kernels its parts."""
    if b"kernel" in figures or b"slab" not in figures:
        return figures.get(b"kernel")
    return sum(figures.get(key, 0) for key in (b"slab", b"kernel_stack", b"pagetables", b"percpu"))


def _devices(text: bytes | None) -> Iterator[Device]:
    """Lines "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0"; a device may have none of them."""
    for line in (text or b"").decode().splitlines():
        numbers, *words = line.split()
        values = {
            key: int(value) for key, _, value in (word.partition("=") for word in words) if value.isdigit()
        }
        major, _, minor = numbers.partition(":")
        sizes, counts = (
            {name: values[f"{key}{what}"] for key, name in _OPERATIONS.items() if f"{key}{what}" in values}
            for what in ("bytes", "ios")
        )
        if sizes:
            yield Device(int(major), int(minor), sizes, counts)
