"""The static pods of `podwright serve --manifests` as gauges: how many, in which phase, what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")


class Kept(Protocol):
    @property
    def phase(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def restarts(self) -> int: ...


@runtime_checkable
class Keeping(Protocol):
    """Who keeps them (`kube.static_keeper.Keeper`)."""

    @property
    def pods(self) -> Sequence[Kept]: ...
    @property
    def faults(self) -> Mapping[str, str]: ...


class StaticPods(Collector):
    """Asked each time: there are few."""

    def __init__(self, registry: CollectorRegistry, keeping: Keeping) -> None:
        self._keeping = keeping
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        pods = tuple(self._keeping.pods)
        phases = Counter(one.phase for one in pods)
        by_phase = GaugeMetricFamily("podwright_static_pods", "Static pods.", labels=("phase",))
        for phase in PHASES:
            by_phase.add_metric((phase,), phases[phase])
        yield by_phase
        yield GaugeMetricFamily(
            "podwright_static_pods_ready", "Static pods that are ready.", sum(one.ready for one in pods)
        )
        yield GaugeMetricFamily(
            "podwright_static_pod_restarts",
            "Restarts of the containers of the static pods there are.",
            sum(one.restarts for one in pods),
        )
        yield GaugeMetricFamily(
            "podwright_static_files_broken",
            "Files of static pods with something wrong in them.",
            len(self._keeping.faults),
        )
