"""What metrics show of containers beside their statistics: limits met, disks, processes, huge pages."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from podwright.engines.base import Figure
from podwright.engines.figures import SECOND, of_faults, of_traffic
from podwright.linux import mounts
from podwright.stats import groups, processes
from podwright.stats.disk import Use
from podwright.stats.interfaces import Interface
from podwright.stats.processes import Open
from podwright.stats.reading import Detail, Device
from podwright.wire import cri_pb2 as cri


class Looked(NamedTuple):
    """What is read of one container for metrics alone."""

    detail: Detail
    processes: int
    opened: Open
    max_open_files: int | None


def look(path: str, pid: int) -> Looked:
    """At the cgroup `path` and its processes, of which `pid` was the first. Blocks: one call for each
    descriptor that they have open."""
    pids = groups.processes(path)
    return Looked(
        groups.detail(path), len(pids), processes.opened(pids), processes.max_open_files(pid) if pid else None
    )


def of_container(looked: Looked, memory: cri.MemoryUsage) -> Iterator[Figure]:
    """`memory` is what its statistics say, in which page faults are those of all its cgroups."""
    detail = looked.detail
    for name, value in (
        ("container_cpu_user_seconds_total", _seconds(detail.user)),
        ("container_cpu_system_seconds_total", _seconds(detail.system)),
        ("container_cpu_cfs_periods_total", detail.periods),
        ("container_cpu_cfs_throttled_periods_total", detail.throttled_periods),
        ("container_cpu_cfs_throttled_seconds_total", _seconds(detail.throttled)),
        ("container_memory_cache", detail.cache),
        ("container_memory_kernel_usage", detail.kernel),
        ("container_memory_mapped_file", detail.mapped_file),
        ("container_memory_max_usage_bytes", detail.max_usage),
        ("container_memory_total_active_file_bytes", detail.active_file),
        ("container_memory_total_inactive_file_bytes", detail.inactive_file),
        ("container_memory_failcnt", detail.limit_hits),
        ("container_oom_events_total", detail.oom_kills),
        ("container_processes", looked.processes),
        ("container_threads", detail.pids),
        ("container_threads_max", (detail.pids_limit or 0) if detail.pids is not None else None),
        ("container_file_descriptors", looked.opened.descriptors),
        ("container_sockets", looked.opened.sockets),
    ):
        if value is not None:
            yield Figure(name, value)
    if looked.max_open_files is not None:
        yield Figure("container_ulimits_soft", looked.max_open_files, ("max_open_files",))
    if detail.faults is not None:
        yield from of_faults(detail.faults, (memory.page_faults.value, memory.major_page_faults.value))
    for page in detail.huge_pages:
        yield Figure("container_hugetlb_usage_bytes", page.usage, (page.size,))
        if page.max_usage is not None:
            yield Figure("container_hugetlb_max_usage_bytes", page.max_usage, (page.size,))
    for device in detail.devices:
        yield from _of_device(device)


def of_layer(layer: Use | None, top: Path) -> Iterator[Figure]:
    """Of a writable layer, None when it has not been measured, and of the file system that `top` is on."""
    device = (file_system(top),)
    if layer is not None:
        yield Figure("container_fs_usage_bytes", layer.bytes, device)
    whole = os.statvfs(top)
    yield Figure("container_fs_limit_bytes", whole.f_blocks * whole.f_frsize, device)
    yield Figure("container_fs_inodes_total", whole.f_files, device)
    yield Figure("container_fs_inodes_free", whole.f_ffree, device)


def of_interface(interface: Interface) -> Iterator[Figure]:
    return of_traffic(interface.name, interface.received, interface.sent)


@functools.cache
def file_system(top: Path) -> str:
    """What the file system is called that `top` is on: "/dev/vda1"."""
    mount = mounts.containing(top)
    return mount.source if mount is not None else "/"


@functools.lru_cache(256)
def device_name(major: int, minor: int) -> str:
    """ "/dev/vda"; "8:0" for a device that sysfs does not show."""
    try:
        return f"/dev/{Path(f'/sys/dev/block/{major}:{minor}').readlink().name}"
    except OSError:
        return f"{major}:{minor}"


def _of_device(device: Device) -> Iterator[Figure]:
    name = device_name(device.major, device.minor)
    numbers = (str(device.major), str(device.minor))
    for operation, size in device.bytes.items():
        yield Figure("container_blkio_device_usage_total", size, (name, *numbers, operation))
    for operation, metric in (("Read", "reads"), ("Write", "writes")):
        if operation in device.bytes:
            yield Figure(f"container_fs_{metric}_bytes_total", device.bytes[operation], (name,))
        if operation in device.operations:
            yield Figure(f"container_fs_{metric}_total", device.operations[operation], (name,))


def _seconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // SECOND
