"""The quality-of-service class of a pod. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction

from podwright.kube.models import PodSpec, ResourceRequirements
from podwright.kube.resources import parse_quantity

COUNTED = ("cpu", "memory")
"""Other resources have no say."""


def qos_class(spec: PodSpec) -> str:
    """ "Guaranteed", "Burstable" or "BestEffort".

    Resources of the pod as a whole decide where it has any, otherwise those of all containers, init
    containers included. Guaranteed: cpu and memory are limited everywhere, and requests are the limits.
    """
    pod_level = [spec.resources] if spec.resources is not None and _counts(spec.resources) else []
    parts: list[ResourceRequirements | None] = [*pod_level] or [
        one.resources for one in [*(spec.initContainers or []), *spec.containers]
    ]
    requests: dict[str, Fraction] = defaultdict(Fraction)
    limits: dict[str, Fraction] = defaultdict(Fraction)
    all_limited = True
    for part in parts:
        for name, value in _amounts(part.requests if part else None).items():
            requests[name] += value
        limited = _amounts(part.limits if part else None)
        for name, value in limited.items():
            limits[name] += value
        all_limited = all_limited and len(limited) == len(COUNTED)
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if all_limited and requests == limits else "Burstable"


def _counts(resources: ResourceRequirements) -> bool:
    return any(_amounts(side) for side in (resources.requests, resources.limits))


def _amounts(side: Mapping[str, object] | None) -> dict[str, Fraction]:
    """Zero is as good as nothing."""
    found = {name: parse_quantity((side or {})[name], name) for name in COUNTED if name in (side or {})}
    return {name: value for name, value in found.items() if value > 0}
