"""Amounts of CPU and memory: quantities, quality of service, and what the CRI is told of them. Pure.

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
    from podwright.kube.models import Container, PodSpec

CPU_PERIOD = 100_000
"""Microseconds, the kernel's default period of the CPU bandwidth controller."""
MIN_SHARES, MAX_SHARES = 2, 262_144
MIN_QUOTA = 1_000
"""Microseconds: the kernel takes no smaller quota."""
CRITICAL_PRIORITY = 2_000_000_000
CRITICAL_CLASSES = ("system-node-critical", "system-cluster-critical")
OOM_GUARANTEED, OOM_BEST_EFFORT = -997, 1000

_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{letter + "i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|([numkKMGTPE]i?|))", re.ASCII)


def parse_quantity(value: object, field: str = "") -> Fraction:
    """The exact number that a Kubernetes quantity ("100m", "64Mi", "1e3", 0.5) stands for.

    Raises InvalidArgument for anything else, with `field` as the place.
    """
    text = repr(value) if isinstance(value, float) else str(value)
    match = _QUANTITY.fullmatch(text) if not isinstance(value, bool) else None
    if match is None or (match[3] or "") not in _SUFFIXES:
        raise InvalidArgument(field, f"{text!r} is not a quantity (such as 500m, 2, 64Mi)")
    exponent = Fraction(10) ** int(match[2]) if match[2] else _SUFFIXES[match[3] or ""]
    return Fraction(match[1]) * exponent


def amount(container: Container, side: str, resource: str) -> Fraction | None:
    """`container.resources.<side>[resource]`; side is "limits" or "requests". None when it is not said."""
    tree: Mapping[str, object] = getattr(container.resources, side, None) or {}
    return parse_quantity(tree[resource]) if resource in tree else None


def milli_cpu(quantity: Fraction) -> int:
    """Thousandths of a CPU, rounded up."""
    return math.ceil(quantity * 1000)


def shares(milli: int) -> int:
    """cpu.shares for a request of `milli` thousandths of a CPU."""
    return max(MIN_SHARES, min(MAX_SHARES, milli * 1024 // 1000))


def quota(milli: int) -> int:
    """Microseconds each CPU_PERIOD for a limit of `milli` thousandths of a CPU; 0 means no limit."""
    return max(MIN_QUOTA, milli * CPU_PERIOD // 1000) if milli else 0


def qos_class(spec: PodSpec) -> str:
    """ "Guaranteed", "Burstable" or "BestEffort": by cpu and memory of all containers, init ones included."""
    containers = [*(spec.initContainers or []), *spec.containers]
    sides = [
        {
            side: {name: amount(one, side, name) or 0 for name in ("cpu", "memory")}
            for side in ("requests", "limits")
        }
        for one in containers
    ]
    if not any(value for one in sides for side in one.values() for value in side.values()):
        return "BestEffort"
    if all(all(one["limits"].values()) and one["limits"] == one["requests"] for one in sides):
        return "Guaranteed"
    return "Burstable"


def oom_score_adj(spec: PodSpec, container: Container, capacity: int) -> int:
    """How readily the kernel kills the container when memory is short. `capacity`: the host's, in bytes."""
    if (spec.priority or 0) >= CRITICAL_PRIORITY or spec.priorityClassName in CRITICAL_CLASSES:
        return OOM_GUARANTEED
    match qos_class(spec):
        case "Guaranteed":
            return OOM_GUARANTEED
        case "BestEffort":
            return OOM_BEST_EFFORT
    request = math.ceil(amount(container, "requests", "memory") or 0)
    # A Burstable pod goes after BestEffort ones and before Guaranteed ones, whatever it asks for.
    return min(OOM_BEST_EFFORT - 1, max(1000 + OOM_GUARANTEED, 1000 - 1000 * request // capacity))


def container_resources(spec: PodSpec, container: Container, capacity: int) -> cri.LinuxContainerResources:
    memory = math.ceil(amount(container, "limits", "memory") or 0)
    return cri.LinuxContainerResources(
        cpu_period=CPU_PERIOD,
        cpu_quota=quota(milli_cpu(amount(container, "limits", "cpu") or Fraction(0))),
        cpu_shares=shares(milli_cpu(amount(container, "requests", "cpu") or Fraction(0))),
        memory_limit_in_bytes=memory,
        # The same value: no swap beyond the memory limit.
        memory_swap_limit_in_bytes=memory,
        oom_score_adj=oom_score_adj(spec, container, capacity),
    )


def pod_resources(spec: PodSpec) -> cri.LinuxContainerResources:
    """What the sandbox is told of its pod as a whole: the sum of its containers, or the largest of its init
    containers where that is more."""

    def whole(side: str, resource: str) -> Fraction:
        together = sum((amount(one, side, resource) or Fraction(0) for one in spec.containers), Fraction(0))
        return max(
            [together, *(amount(one, side, resource) or Fraction(0) for one in spec.initContainers or [])]
        )

    return cri.LinuxContainerResources(
        cpu_period=CPU_PERIOD,
        cpu_quota=quota(milli_cpu(whole("limits", "cpu"))),
        cpu_shares=shares(milli_cpu(whole("requests", "cpu"))),
        memory_limit_in_bytes=math.ceil(whole("limits", "memory")),
    )


def memory_limit(containers: Sequence[Container]) -> int | None:
    """Bytes that all containers together may use; None when one of them has no limit."""
    limits = [amount(one, "limits", "memory") for one in containers]
    return None if None in limits else math.ceil(sum(_known(limits), Fraction(0)))


def _known(values: Iterable[Fraction | None]) -> list[Fraction]:
    return [value for value in values if value is not None]
