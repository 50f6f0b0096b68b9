"""Static pods as gauges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from podwright.kube.static.keeper import Kept
from podwright.metrics.static_pods import StaticPods


def kept(phase: str, *, ready: bool = False, restarts: int = 0) -> Kept:
    return Kept("default", "web-n", "u", "web.yaml", phase, ready, restarts)


@dataclass
class Keeping:
    pods: Sequence[Kept] = ()
    faults: Mapping[str, str] = field(default_factory=dict)


def test_static_pods_are_told_by_phase() -> None:
    keeping, registry = Keeping(), CollectorRegistry()
    StaticPods(registry, keeping)
    assert registry.get_sample_value("podwright_static_pods", {"phase": "Running"}) == 0
    keeping.pods = [kept("Running", ready=True, restarts=2), kept("Running", restarts=1), kept("Failed")]
    keeping.faults = {"x.yaml": "is not YAML"}
    by_phase = {
        phase: registry.get_sample_value("podwright_static_pods", {"phase": phase})
        for phase in ("Pending", "Running", "Failed")
    }
    assert by_phase == {"Pending": 0, "Running": 2, "Failed": 1}
    assert registry.get_sample_value("podwright_static_pods_ready") == 1
    assert registry.get_sample_value("podwright_static_pod_restarts") == 3
    assert registry.get_sample_value("podwright_static_files_broken") == 1
