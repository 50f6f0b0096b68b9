"""A control group by its path, whatever version this host has."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from podwright.linux import cgroups
from podwright.stats import cgroup_v1, cgroup_v2
from podwright.stats.reading import Detail, Reading

_PAGES = re.compile(r"hugepages-(\d+)kB")


def read(path: str) -> Reading | None:
    """What the cgroup `path` ("/podwright/ID") and those below it use; None when it is gone."""
    where = cgroups.layout()
    return cgroup_v2.read(f"{where.unified}{path}") if where.version == 2 else cgroup_v1.read(path, where)


def cpu(path: str) -> int | None:
    """Only the CPU time, nanoseconds."""
    where = cgroups.layout()
    return cgroup_v2.cpu(f"{where.unified}{path}") if where.version == 2 else cgroup_v1.cpu(path, where)


def pids(path: str) -> int | None:
    """How many tasks are in it: processes, and threads beyond each one's first."""
    where = cgroups.layout()
    return cgroup_v2.pids(f"{where.unified}{path}") if where.version == 2 else cgroup_v1.pids(path, where)


def processes(path: str) -> set[int]:
    """The processes in it and below it."""
    where = cgroups.layout()
    # All hierarchies have the same ones.
    return cgroups.read_pids(where.roots[0] / path.lstrip("/"))


def detail(path: str) -> Detail:
    """What is read for metrics alone."""
    where = cgroups.layout()
    if where.version == 2:
        return cgroup_v2.detail(f"{where.unified}{path}", page_sizes())
    return cgroup_v1.detail(path, where, page_sizes())


@functools.cache
def page_sizes() -> tuple[str, ...]:
    """Sizes of huge pages of this host as cgroup files name them: "2MB", "1GB"."""
    try:
        names = [each.name for each in Path("/sys/kernel/mm/hugepages").iterdir()]
    except OSError:
        return ()
    found = sorted(int(match[1]) for match in map(_PAGES.fullmatch, names) if match)
    return tuple(_size_name(kilobytes) for kilobytes in found)


def _size_name(kilobytes: int) -> str:
    for unit, size in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kilobytes >= size:
            return f"{kilobytes // size}{unit}"
    return f"{kilobytes}KB"
