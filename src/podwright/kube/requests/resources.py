"""Amounts of CPU, memory and huge pages: quantities, quality of service, and what the CRI is told. Pure.

The arithmetic is the kubelet's: rounding, minima and scores come out as a node would set them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import AnyContainer, Container, PodSpec, ResourceRequirements
    from podwright.kube.node import Node

CPU_PERIOD = 100_000
"""Microseconds, the kernel's default period of the CPU bandwidth controller."""
MIN_SHARES, MAX_SHARES = 2, 262_144
MIN_QUOTA = 1_000
"""Microseconds: the kernel takes no smaller quota."""
CRITICAL_CLASS = "system-node-critical"
"""The priority class of pods without which the node is none."""
OOM_GUARANTEED, OOM_BEST_EFFORT = -997, 1000
HUGE_PAGES = "hugepages-"
"""How the names of resources begin that are huge pages; a quantity follows."""
OF_PODS = ("cpu", "memory")
"""What a pod as a whole may be given, beside huge pages."""

_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{letter + "i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|([numkKMGTPE]i?|))", re.ASCII)
_ZERO = Fraction(0)
_MOST = (1 << 63) - 1


def parse_quantity(value: object, field: str = "") -> Fraction:
    """A Kubernetes quantity ("250m", "64Mi", "1e3", 2) as an exact number.

    What is more than 63 bits hold counts as much as they hold, as in Kubernetes. Raises InvalidArgument;
    `field` is the place.
    """
    text = repr(value) if isinstance(value, float) else str(value)
    match = _QUANTITY.fullmatch(text) if not isinstance(value, bool) else None
    if match is None or (match[3] or "") not in _SUFFIXES:
        raise InvalidArgument(field, f"{text!r} is not a quantity (such as 500m, 2, 64Mi)")
    exponent = Fraction(10) ** int(match[2]) if match[2] else _SUFFIXES[match[3] or ""]
    return max(Fraction(-_MOST), min(Fraction(_MOST), Fraction(match[1]) * exponent))


def amount(owner: AnyContainer | PodSpec, side: str, resource: str) -> Fraction | None:
    """`resources.<side>[resource]` of a container or pod; side is "limits" or "requests". None when it is not
    said."""
    said: ResourceRequirements | None = owner.resources
    tree: Mapping[str, object] = getattr(said, side, None) or {}
    return parse_quantity(tree[resource]) if resource in tree else None


def is_of_pods(resource: str) -> bool:
    return resource in OF_PODS or resource.startswith(HUGE_PAGES)


def has_pod_level(spec: PodSpec) -> bool:
    """Whether the pod as a whole is given resources."""
    sides = (getattr(spec.resources, side, None) or {} for side in ("limits", "requests"))
    return any(is_of_pods(name) for side in sides for name in side)


def effective_limit(spec: PodSpec, container: AnyContainer, resource: str) -> Fraction:
    """The container's limit, or else the pod's; 0 is none."""
    own = amount(container, "limits", resource)
    return own or (amount(spec, "limits", resource) if has_pod_level(spec) else None) or _ZERO


def milli_cpu(quantity: Fraction) -> int:
    """Thousandths of a CPU, rounded up."""
    return min(_MOST, math.ceil(quantity * 1000))


def shares(milli: int) -> int:
    """cpu.shares for a request of `milli` thousandths of a CPU."""
    return max(MIN_SHARES, min(MAX_SHARES, milli * 1024 // 1000))


def quota(milli: int) -> int:
    """Microseconds each CPU_PERIOD for a limit of `milli` thousandths of a CPU; 0 means no limit."""
    return min(_MOST, max(MIN_QUOTA, milli * CPU_PERIOD // 1000)) if milli else 0


def qos_class(spec: PodSpec) -> str:
    """ "Guaranteed", "Burstable" or "BestEffort": by cpu and memory of the pod as a whole where it has
    `resources`, even without a word in them; or else of all containers, init ones included."""
    owners: Sequence[AnyContainer | PodSpec] = [*(spec.initContainers or []), *spec.containers]
    if spec.resources is not None:
        owners = [spec]
    sides = [
        {side: {name: amount(one, side, name) or 0 for name in OF_PODS} for side in ("requests", "limits")}
        for one in owners
    ]
    if not any(value for one in sides for side in one.values() for value in side.values()):
        return "BestEffort"
    if all(all(one["limits"].values()) and one["limits"] == one["requests"] for one in sides):
        return "Guaranteed"
    return "Burstable"


def oom_score_adj(spec: PodSpec, container: AnyContainer, capacity: int) -> int:
    """How readily the kernel kills the container when memory is short. `capacity`: the node's, in bytes."""
    if spec.priorityClassName == CRITICAL_CLASS:
        return OOM_GUARANTEED
    match qos_class(spec):
        case "Guaranteed":
            return OOM_GUARANTEED
        case "BestEffort":
            return OOM_BEST_EFFORT
    share = _share_of_pod(spec)
    score = 1000 - 1000 * (_memory_request(container) + share) // capacity
    if any(container is one and one.restartPolicy == "Always" for one in spec.initContainers or []):
        # A sidecar is not killed before the container it serves.
        least = min((_memory_request(one) for one in spec.containers), default=0)
        score = min(score, 1000 - 1000 * (least + share) // capacity)
    # A Burstable pod goes after BestEffort ones and before Guaranteed ones, whatever it asks for.
    return min(OOM_BEST_EFFORT - 1, max(1000 + OOM_GUARANTEED, score))


def container_resources(
    manifest: Manifest, container: AnyContainer, node: Node
) -> cri.LinuxContainerResources:
    """What CreateContainer and UpdateContainerResources say of a container."""
    spec = manifest.spec
    cpu = effective_limit(spec, container, "cpu")
    memory = math.ceil(effective_limit(spec, container, "memory"))
    request = amount(container, "requests", "cpu")
    found = cri.LinuxContainerResources(
        cpu_period=CPU_PERIOD,
        cpu_quota=quota(milli_cpu(cpu)),
        # A request of 0 is one.
        cpu_shares=shares(milli_cpu(cpu if request is None else request)),
        memory_limit_in_bytes=memory,
        # The same value: no swap beyond the memory limit.
        memory_swap_limit_in_bytes=memory,
        oom_score_adj=oom_score_adj(spec, container, node.memory),
        hugepage_limits=_huge_page_limits(spec, container, node),
    )
    if node.cgroup_v2:
        # All processes of the container die together.
        found.unified["memory.oom.group"] = "1"
    return found


def sandbox_resources(manifest: Manifest) -> cri.LinuxContainerResources:
    """What RunPodSandbox and UpdatePodSandboxResources say of the pod as a whole, without its overhead."""
    spec = manifest.spec
    return _linux(
        pod_amount(spec, "requests", "cpu") if is_said(spec, "requests", "cpu") else None,
        pod_amount(spec, "limits", "cpu"),
        pod_amount(spec, "limits", "memory"),
    )


def sandbox_overhead(manifest: Manifest) -> cri.LinuxContainerResources:
    """What the pod costs beside its containers, as its runtime class says."""
    overhead: Mapping[str, object] | None = manifest.spec.overhead
    if not overhead:
        return cri.LinuxContainerResources()
    cpu, memory = (parse_quantity(overhead.get(name, 0)) for name in OF_PODS)
    return _linux(cpu, cpu, memory)


def pod_amount(spec: PodSpec, side: str, resource: str) -> Fraction:
    """What the pod as a whole is given; or else the sum of its containers and sidecars, or what its init
    containers need at their most, where that is more. 0 is nothing."""
    if has_pod_level(spec) and is_of_pods(resource):
        own = amount(spec, side, resource)
        if own is not None:
            return own
    return containers_amount(spec, side, resource)


def is_said(spec: PodSpec, side: str, resource: str) -> bool:
    """Whether the pod, or any of its containers, says the amount, if only 0."""
    owners: list[AnyContainer | PodSpec] = [spec, *(spec.initContainers or []), *spec.containers]
    return any(amount(one, side, resource) is not None for one in owners)


def containers_amount(spec: PodSpec, side: str, resource: str) -> Fraction:
    """The same, by what the containers say alone."""

    def of(one: Container) -> Fraction:
        return amount(one, side, resource) or _ZERO

    sidecars, most = _ZERO, _ZERO
    for one in spec.initContainers or []:
        if one.restartPolicy == "Always":
            sidecars += of(one)
            most = max(most, sidecars)
        else:
            most = max(most, sidecars + of(one))
    return max(most, sidecars + sum((of(one) for one in spec.containers), _ZERO))


def memory_limit(containers: Sequence[Container]) -> int | None:
    """Bytes that all containers together may use; None when one of them has no limit."""
    limits = [amount(one, "limits", "memory") for one in containers]
    return None if None in limits else math.ceil(sum(_known(limits), _ZERO))


def page_bytes(resource: str) -> int | None:
    """2097152 for "hugepages-2Mi"; None when it is no such resource."""
    try:
        size = parse_quantity(resource.removeprefix(HUGE_PAGES))
    except InvalidArgument:
        return None
    return int(size) if resource.startswith(HUGE_PAGES) and size > 0 and size.denominator == 1 else None


def page_size(size: int) -> str:
    """ "2MB" for 2 MiB: the CRI's spelling, which is the kernel's for cgroup files."""
    for unit, shift in (("GB", 30), ("MB", 20), ("KB", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return f"{size}B"


def _linux(request: Fraction | None, limit: Fraction, memory: Fraction) -> cri.LinuxContainerResources:
    return cri.LinuxContainerResources(
        cpu_period=CPU_PERIOD,
        cpu_quota=quota(milli_cpu(limit)),
        cpu_shares=shares(milli_cpu(limit if request is None else request)),
        memory_limit_in_bytes=min(_MOST, math.ceil(memory)),
    )


def _huge_page_limits(spec: PodSpec, container: AnyContainer, node: Node) -> list[cri.HugepageLimit]:
    """One for each size of the node: what is not asked for is forbidden."""
    said = {
        page_size(size): effective_limit(spec, container, name)
        for owner in (spec, container)
        for name in getattr(owner.resources, "limits", None) or {}
        if (size := page_bytes(name)) is not None
    }
    return [
        cri.HugepageLimit(page_size=size, limit=math.ceil(said.get(size, _ZERO))) for size in node.huge_pages
    ]


def _memory_request(container: AnyContainer) -> int:
    return math.ceil(amount(container, "requests", "memory") or 0)


def _share_of_pod(spec: PodSpec) -> int:
    """Bytes of the pod's own request that no container asks for, divided among the containers, those that
    have ended before the others begin among them."""
    own = amount(spec, "requests", "memory")
    if own is None:
        return 0
    count = len(spec.containers) + len(spec.initContainers or [])
    left = math.ceil(own) - math.ceil(containers_amount(spec, "requests", "memory"))
    return max(0, left) // count if count else 0


def _known(values: Iterable[Fraction | None]) -> list[Fraction]:
    return [value for value in values if value is not None]
