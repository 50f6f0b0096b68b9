"""Limits of a container in Docker's words: at its creation, and changed later."""

from __future__ import annotations

from podwright.engines.base import Json
from podwright.engines.docker.features import Features
from podwright.errors import InvalidArgument, Unimplemented
from podwright.wire import cri_pb2 as cri

LEAST_MEMORY = 6 << 20
"""Bytes; dockerd refuses less."""

_FORMER_SHARES = 1024
_FORMER_PERIOD = 100_000


def at_creation(resources: cri.LinuxContainerResources, features: Features) -> dict[str, Json]:
    """Members of HostConfig. InvalidArgument for values that cannot be."""
    check(resources, "config.linux.resources")
    made = _common(resources)
    if resources.oom_score_adj:
        made["OomScoreAdj"] = oom_score(resources.oom_score_adj, features)
    return made


def changed(
    resources: cri.LinuxContainerResources, former: cri.LinuxContainerResources, features: Features
) -> dict[str, Json]:
    """The body of an update that leaves `resources` in force where `former` may be.

    In it 0 means "as it is", so what is to be unlimited again needs a word of its own. Raises Unimplemented
    where Docker has none.
    """
    check(resources, "linux")
    body = _common(resources)
    if former.cpu_quota and not resources.cpu_quota:
        body["CpuQuota"] = -1
    if former.cpu_period and not resources.cpu_period:
        body["CpuPeriod"] = _FORMER_PERIOD
    if former.cpu_shares and not resources.cpu_shares:
        body["CpuShares"] = _FORMER_SHARES
    for member, old, new in (
        ("memory_limit_in_bytes", former.memory_limit_in_bytes > 0, resources.memory_limit_in_bytes > 0),
        ("cpuset_cpus", bool(former.cpuset_cpus), bool(resources.cpuset_cpus)),
        ("cpuset_mems", bool(former.cpuset_mems), bool(resources.cpuset_mems)),
    ):
        if old and not new:
            raise Unimplemented(f"linux.{member}: Docker can change this limit, but not take it away")
    if oom_score(resources.oom_score_adj, features) != oom_score(former.oom_score_adj, features):
        raise Unimplemented("linux.oom_score_adj: Docker cannot change it")
    return body


def held(host_config: Json) -> cri.LinuxContainerResources:
    """What Docker has for a container, from its HostConfig."""
    return cri.LinuxContainerResources(
        cpu_period=host_config.get("CpuPeriod") or 0,
        cpu_quota=max(0, host_config.get("CpuQuota") or 0),
        cpu_shares=host_config.get("CpuShares") or 0,
        cpuset_cpus=host_config.get("CpusetCpus") or "",
        cpuset_mems=host_config.get("CpusetMems") or "",
        memory_limit_in_bytes=max(0, host_config.get("Memory") or 0),
        oom_score_adj=host_config.get("OomScoreAdj") or 0,
    )


def check(resources: cri.LinuxContainerResources, field: str) -> None:
    """What dockerd refuses, said with the name of the field. Raises InvalidArgument."""
    memory = resources.memory_limit_in_bytes
    if 0 < memory < LEAST_MEMORY:
        raise InvalidArgument(
            f"{field}.memory_limit_in_bytes", f"{memory} bytes: Docker wants at least {LEAST_MEMORY}"
        )
    swap = resources.memory_swap_limit_in_bytes
    if swap > 0 and memory <= 0:
        raise InvalidArgument(
            f"{field}.memory_swap_limit_in_bytes", "needs memory_limit_in_bytes: it is the sum of both"
        )
    if 0 < swap < memory:
        raise InvalidArgument(
            f"{field}.memory_swap_limit_in_bytes", f"{swap} is less than the memory limit, {memory}"
        )
    if 0 < resources.cpu_quota < 1000:
        raise InvalidArgument(f"{field}.cpu_quota", f"{resources.cpu_quota} us: Docker wants at least 1000")
    if not -1000 <= resources.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"{field}.oom_score_adj", f"{resources.oom_score_adj} is out of range: -1000..1000"
        )


def oom_score(wanted: int, features: Features) -> int:
    return max(wanted, features.least_oom_score)


def _common(resources: cri.LinuxContainerResources) -> dict[str, Json]:
    memory, swap = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    values: dict[str, Json] = {
        "CpuPeriod": resources.cpu_period,
        "CpuQuota": resources.cpu_quota,
        "CpuShares": resources.cpu_shares,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
    }
    if memory > 0:
        values["Memory"] = memory
        # Left out it would be twice the memory: swap that nobody asked for.
        values["MemorySwap"] = swap or memory
    return {key: value for key, value in values.items() if value}
