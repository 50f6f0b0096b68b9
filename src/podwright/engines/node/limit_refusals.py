"""Why the kernel does not take a limit that a request asks for, in the request's words. Nothing is changed
here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from podwright.errors import FailedPrecondition
from podwright.linux import cgroups
from podwright.spec.inputs import HostFacts
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)

HUGE_PAGES = Path("/sys/kernel/mm/hugepages")


def at_creation(resources: cri.LinuxContainerResources, cgroup: str, host: HostFacts) -> str:
    """Why a container with `resources` could not be made in `cgroup`; "" when that is not known."""
    field = "config.linux.resources"
    return not_the_parents(resources, parents_cpus(cgroup), field) or _no_such_pages(resources, host, field)


def unheard_of(
    resources: cri.LinuxContainerResources, made_with: cri.LinuxContainerResources, host: HostFacts
) -> str:
    """Which limit of an update this host has no place for; "" when it has one for each. What the container
    was `made_with` has been warned of then."""
    if host.cgroup_version != 2:
        for file, value in resources.unified.items():
            if made_with.unified.get(file) != value:
                return f"linux.unified[{file}]: this host has cgroup v1, where there is no such file"
    return _no_such_pages(resources, host, "linux")


def _no_such_pages(resources: cri.LinuxContainerResources, host: HostFacts, field: str) -> str:
    if not host.policy.hugepages or not host.hugetlb_controller:
        return ""
    try:
        sizes = sorted(int(each.name[len("hugepages-") : -len("kB")]) for each in HUGE_PAGES.iterdir())
    except (OSError, ValueError):
        return ""
    for each in resources.hugepage_limits:
        size = each.page_size
        if _KIB[size[-2]] * int(size[:-2]) not in sizes:
            there = ", ".join(f"{size} KiB" for size in sizes) or "none"
            return f"{field}.hugepage_limits: this host has no pages of {size} (it has: {there})"
    return ""


_KIB = {"K": 1, "M": 1 << 10, "G": 1 << 20}


def too_low(cgroup: str, resources: cri.LinuxContainerResources, where: cgroups.Layout | None = None) -> str:
    """Why the container in `cgroup` cannot have so little memory, because it uses more that cannot be taken
    from it; "" when it can, or when that cannot be known."""
    limit, swap = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    if limit <= 0:
        return ""
    if swap < 0 or swap > limit:
        return ""  # what does not fit is swapped out
    host = where or cgroups.layout()
    usage, total = ("memory.current", "") if host.version == 2 else ("memory.usage_in_bytes", "total_")
    try:
        directory = cgroups.directory(cgroup, "memory", host)
        used = int((directory / usage).read_text())
        rows = dict(line.split(" ", 1) for line in (directory / "memory.stat").read_text().splitlines())
    except (OSError, ValueError, FailedPrecondition):
        return ""
    # Pages of files can be read again.
    kept = used - sum(int(rows.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))
    if kept <= limit:
        return ""
    return (
        f"linux.memory_limit_in_bytes: {limit} bytes are less than the {kept} that the container uses and"
        " that cannot be taken from it: ask for more, or let it free some first"
    )


def not_the_parents(
    resources: cri.LinuxContainerResources, parents: Mapping[str, str], field: str = "linux"
) -> str:
    """Which CPUs or memory nodes the container cannot have because the cgroup above it has not got them: its
    "cpus" and "mems" are `parents`. "" when it has, or when that is not known."""
    for kind, asked in (("cpus", resources.cpuset_cpus), ("mems", resources.cpuset_mems)):
        given = parents.get(kind)
        if not asked or not given:
            continue
        # The kernel's own list has no two ranges that touch.
        ranges = [_bounds(each) for each in given.split(",")]
        for each in asked.split(","):
            first, last = _bounds(each)
            if not any(least <= first and last <= most for least, most in ranges):
                return (
                    f"{field}.cpuset_{kind}: {asked!r} has {each.strip()}, and the cgroup above the container"
                    f" has {given}"
                )
    return ""


def parents_cpus(cgroup: str, where: cgroups.Layout | None = None) -> dict[str, str]:
    """What a container that is confined to no CPUs of its own may use: what the next cgroup above it has that
    is there and has any. Empty when it cannot be read."""
    found: dict[str, str] = {}
    above = cgroup.rpartition("/")[0]
    for kind in ("cpus", "mems"):
        try:
            parent, top = cgroups.directory(above, "cpuset", where), cgroups.directory("/", "cpuset", where)
            while not (text := _cpuset(parent, kind)) and parent != top:
                parent = parent.parent
        except (OSError, FailedPrecondition) as error:
            log.debug("the CPUs of %s's parent are not known: %s", cgroup, error)
            continue
        found[kind] = text
    return found


def _cpuset(cgroup: Path, kind: str) -> str:
    """ "" for one that is not there, or has not been given any."""
    for name in (f"cpuset.{kind}.effective", f"cpuset.{kind}"):
        try:
            return (cgroup / name).read_text().strip()
        except FileNotFoundError:
            continue
    return ""


def _bounds(each: str) -> tuple[int, int]:
    first, _, last = each.strip().partition("-")
    return int(first), int(last or first)
