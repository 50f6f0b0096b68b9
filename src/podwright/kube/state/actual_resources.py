"""The resources that a running container, or pod, has, in the manifest's terms. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from podwright.kube.files import pod_cgroups
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, ResourceRequirements
from podwright.kube.requests.quantities import all_canonical, canonical
from podwright.kube.requests.quantities import of_pod as of_whole
from podwright.kube.requests.resources import CPU_PERIOD, MIN_QUOTA, parse_quantity
from podwright.wire import cri_pb2 as cri

MIN_MILLI_LIMIT = MIN_QUOTA * 1000 // CPU_PERIOD
"""Thousandths of a CPU: a smaller limit is not distinguishable from this one in the cgroup."""
MIN_MILLI_REQUEST = 2


def of(container: AnyContainer, told: cri.ContainerStatus) -> ResourceRequirements:
    """What the manifest says, with what the runtime reports in the place of what it differs from."""
    said = container.resources or ResourceRequirements()
    actual = ResourceRequirements(
        requests=all_canonical(said.requests) or None, limits=all_canonical(said.limits) or None
    )
    if not told.HasField("resources") or not told.resources.HasField("linux"):
        return actual
    linux = told.resources.linux
    if actual.limits and linux.cpu_quota > 0 and linux.cpu_period > 0:
        milli = linux.cpu_quota * 1000 // linux.cpu_period
        _note_cpu(actual.limits, milli, MIN_MILLI_LIMIT)
    if actual.requests and linux.cpu_shares > 0:
        milli = math.ceil(linux.cpu_shares * 1000 / 1024)
        _note_cpu(actual.requests, milli, MIN_MILLI_REQUEST)
    memory = linux.memory_limit_in_bytes
    if actual.limits and memory > 0:
        _note_memory(actual.limits, memory)
    return actual


def of_pod(manifest: Manifest) -> ResourceRequirements:
    """Of a pod that has resources as a whole: what it says, or else what its cgroup is given."""
    said = manifest.spec.resources or ResourceRequirements()
    requests, limits = all_canonical(said.requests), all_canonical(said.limits)
    given = pod_cgroups.limits(manifest)
    _note_cpu(requests, math.ceil(given.shares * 1000 / 1024), MIN_MILLI_REQUEST)
    everything = of_whole(manifest.spec, "requests")
    if "memory" not in requests and "memory" in everything:
        requests["memory"] = everything["memory"]
    if given.quota is not None:
        _note_cpu(limits, given.quota * 1000 // CPU_PERIOD, MIN_MILLI_LIMIT)
    if given.memory is not None:
        _note_memory(limits, given.memory)
    return ResourceRequirements(requests=requests or None, limits=limits or None)


def _note_cpu(side: dict[str, Any], milli: int, least: int) -> None:
    """Below the smallest amount that a cgroup can express the manifest's number says more."""
    if milli > least or parse_quantity(side.get("cpu", 0)) * 1000 > least:
        _note(side, "cpu", Fraction(milli, 1000), f"{milli}m" if milli % 1000 else str(milli // 1000))


def _note_memory(side: dict[str, Any], memory: int) -> None:
    text = str(memory) if memory % 1024 else canonical(f"{memory // 1024}Ki")
    _note(side, "memory", Fraction(memory), text)


def _note(side: dict[str, Any], name: str, value: Fraction, text: str) -> None:
    """The manifest's way to write an equal amount is kept; what it does not say comes from the pod."""
    if name not in side or parse_quantity(side[name]) != value:
        side[name] = text
