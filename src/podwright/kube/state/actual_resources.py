"""The resources that a running container has, in the manifest's terms. Pure."""

from __future__ import annotations

import math
from fractions import Fraction

from podwright.kube.models import AnyContainer, ResourceRequirements
from podwright.kube.requests.quantities import all_canonical, canonical
from podwright.kube.requests.resources import CPU_PERIOD, MIN_QUOTA, MIN_SHARES, parse_quantity
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
        milli = 0 if linux.cpu_shares <= MIN_SHARES else math.ceil(linux.cpu_shares * 1000 / 1024)
        _note_cpu(actual.requests, milli, MIN_MILLI_REQUEST)
    memory = linux.memory_limit_in_bytes
    if actual.limits and "memory" in actual.limits and memory > 0:
        text = str(memory) if memory % 1024 else canonical(f"{memory // 1024}Ki")
        _note(actual.limits, "memory", Fraction(memory), text)
    return actual


def _note_cpu(side: dict[str, object], milli: int, least: int) -> None:
    """Below the smallest amount that a cgroup can express the manifest's number says more."""
    if "cpu" in side and (milli > least or parse_quantity(side["cpu"]) * 1000 > least):
        _note(side, "cpu", Fraction(milli, 1000), f"{milli}m" if milli % 1000 else str(milli // 1000))


def _note(side: dict[str, object], name: str, value: Fraction, text: str) -> None:
    """The manifest's way to write an equal amount is kept."""
    if parse_quantity(side[name]) != value:
        side[name] = text
