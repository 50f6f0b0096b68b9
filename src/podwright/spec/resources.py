"""Resource limits: what a request means for the OCI, and how an update changes it.

In a CRI message zero means "not set", never "limit 0" (save for hugepages, whose zero is a limit).
"""

from __future__ import annotations

from collections.abc import Mapping

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.draft import Json
from podwright.spec.inputs import HostFacts
from podwright.wire import cri_pb2 as cri

_FIELD = "config.linux.resources"
_SIZES = (
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "memory_limit_in_bytes",
    "oom_score_adj",
    "cpuset_cpus",
    "cpuset_mems",
)


def to_oci(
    resources: cri.LinuxContainerResources, host: HostFacts, field: str = _FIELD, *, minimum_memory: int = 0
) -> dict[str, Json]:
    """`linux.resources` of the OCI for `resources`: for a new spec and for the runtime's `update` alike.

    Bytes and microseconds, as in the request. Raises InvalidArgument for values no cgroup can hold and for
    a memory limit below `minimum_memory`, FailedPrecondition for hugepage limits that this host must
    enforce but cannot.
    """
    if 0 < resources.memory_limit_in_bytes < minimum_memory:
        raise InvalidArgument(
            f"{field}.memory_limit_in_bytes",
            f"{resources.memory_limit_in_bytes} is below {minimum_memory}: the runtime needs that much",
        )
    result: dict[str, Json] = {"cpu": _cpu(resources, field), "memory": _memory(resources, host, field)}
    hugepages = _hugepages(resources, host, field)
    if hugepages:
        result["hugepageLimits"] = hugepages
    # These are files of cgroup v2: a v1 host has nowhere to write them, and runtimes fail on them.
    if resources.unified and host.cgroup_version == 2:
        result["unified"] = dict(resources.unified)
    return result


def not_set(resources: cri.LinuxContainerResources, host: HostFacts) -> list[str]:
    """What `to_oci` leaves out, and why: warnings."""
    warnings = []
    if resources.unified and host.cgroup_version != 2:
        warnings.append("unified resources are not set: this host has cgroup v1")
    if any(each.limit for each in resources.hugepage_limits):
        if not host.policy.hugepages:
            warnings.append("hugepage limits are not set: spec.hugepages is off")
        elif not host.hugetlb_controller:
            warnings.append("hugepage limits are not set: this host has no hugetlb cgroup controller")
    return warnings


def merge(old: cri.LinuxContainerResources, new: cri.LinuxContainerResources) -> cri.LinuxContainerResources:
    """What holds after an update: every value that `new` sets, `old` for the rest. Neither is changed.

    A new memory limit without a swap limit takes swap along, so that the container does not start to swap
    (or fail, with a swap limit below the memory limit).
    """
    merged = cri.LinuxContainerResources()
    merged.CopyFrom(old)
    for name in _SIZES:
        value = getattr(new, name)
        if value:
            setattr(merged, name, value)
    if new.memory_swap_limit_in_bytes:
        merged.memory_swap_limit_in_bytes = new.memory_swap_limit_in_bytes
    elif new.memory_limit_in_bytes:
        merged.memory_swap_limit_in_bytes = 0
    limits = {item.page_size: item.limit for item in old.hugepage_limits}
    limits.update({item.page_size: item.limit for item in new.hugepage_limits})
    del merged.hugepage_limits[:]
    for size, limit in limits.items():
        merged.hugepage_limits.add(page_size=size, limit=limit)
    merged.unified.update(new.unified)
    return merged


def in_spec(
    there: Mapping[str, Json], limits: Mapping[str, Json], former: Mapping[str, Json]
) -> dict[str, Json]:
    """`linux.resources` of a spec, `there`, once `limits` have taken the place of `former` in it; both are
    from `to_oci`. What else it has (devices, the node's process limit) stays."""
    result = dict(there)
    for member in ("cpu", "memory", "unified"):
        old = former.get(member) or {}
        kept = {key: value for key, value in (there.get(member) or {}).items() if key not in old}
        if member in limits or member in result:
            result[member] = kept | (limits.get(member) or {})
    pages = {each["pageSize"]: each for each in there.get("hugepageLimits") or ()}
    for each in former.get("hugepageLimits") or ():
        pages.pop(each["pageSize"], None)
    pages.update({each["pageSize"]: each for each in limits.get("hugepageLimits") or ()})
    result.pop("hugepageLimits", None)
    return result | ({"hugepageLimits": list(pages.values())} if pages else {})


def unsetting(
    limits: Mapping[str, Json], former: Mapping[str, Json], inherited: Mapping[str, str]
) -> dict[str, Json]:
    """`limits`, and for what only `former` sets the value that stands for no limit: what the kernel gives a
    new cgroup (kernel: admin-guide/cgroup-v2). `inherited` has the parent's "cpus" and "mems"."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in limits.items()}
    for member, defaults in (
        ("cpu", {**_NO_CPU_LIMIT, **inherited}),
        ("memory", _NO_MEMORY_LIMIT),
        ("unified", _NO_UNIFIED_LIMIT),
    ):
        now, old = limits.get(member) or {}, former.get(member) or {}
        lifted = {key: defaults[key] for key in old if key not in now and key in defaults}
        if lifted:
            result[member] = {**lifted, **now}
    sizes = {each["pageSize"] for each in limits.get("hugepageLimits") or ()}
    lifted_pages = [
        {"pageSize": each["pageSize"], "limit": _NO_PAGE_LIMIT}
        for each in former.get("hugepageLimits") or ()
        if each["pageSize"] not in sizes
    ]
    if lifted_pages:
        result["hugepageLimits"] = [*(limits.get("hugepageLimits") or ()), *lifted_pages]
    return result


_NO_CPU_LIMIT: dict[str, Json] = {"shares": 1024, "period": 100000, "quota": -1}
_NO_MEMORY_LIMIT: dict[str, Json] = {"limit": -1, "swap": -1}
_NO_PAGE_LIMIT = (1 << 63) - (1 << 30)
"""A multiple of every page size."""
_NO_UNIFIED_LIMIT: dict[str, Json] = {
    **dict.fromkeys(("memory.max", "memory.high", "memory.swap.max", "memory.swap.high", "pids.max"), "max"),
    **dict.fromkeys(("memory.min", "memory.low", "memory.oom.group", "cpu.idle"), "0"),
    "memory.zswap.max": "max",
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "io.weight": "default 100",
}


def _cpu(resources: cri.LinuxContainerResources, field: str) -> dict[str, Json]:
    cpu: dict[str, Json] = {}
    for name, value in (("shares", resources.cpu_shares), ("period", resources.cpu_period)):
        if value < 0:
            raise InvalidArgument(f"{field}.cpu_{name}", f"{value} is below 0")
        if value:
            cpu[name] = value
    if resources.cpu_quota:
        cpu["quota"] = resources.cpu_quota
    if resources.cpuset_cpus:
        cpu["cpus"] = resources.cpuset_cpus
    if resources.cpuset_mems:
        cpu["mems"] = resources.cpuset_mems
    return cpu


def _memory(resources: cri.LinuxContainerResources, host: HostFacts, field: str) -> dict[str, Json]:
    memory: dict[str, Json] = {}
    limit, swap = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    for name, value in (("memory_limit_in_bytes", limit), ("memory_swap_limit_in_bytes", swap)):
        if value < -1:
            raise InvalidArgument(f"{field}.{name}", f"{value} is neither a size nor -1 (unlimited)")
    if limit:
        memory["limit"] = limit
    # OCI swap is memory and swap together: equal means no swapping.
    if host.swap_controller and (swap or limit):
        memory["swap"] = swap or limit
    return memory


def _hugepages(resources: cri.LinuxContainerResources, host: HostFacts, field: str) -> list[dict[str, Json]]:
    if not resources.hugepage_limits or not host.policy.hugepages:
        return []
    if not host.hugetlb_controller:
        if host.policy.tolerate_missing_hugetlb:
            return []
        raise FailedPrecondition(f"{field}.hugepage_limits: this host has no hugetlb cgroup controller")
    return [{"pageSize": item.page_size, "limit": item.limit} for item in resources.hugepage_limits]
