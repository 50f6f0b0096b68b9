"""How many seconds a container has between the stop signal and SIGKILL. Pure."""

from __future__ import annotations

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer

MINIMUM = 2
"""Seconds that StopContainer is given at least, so that what could still end by itself does."""


def period(
    manifest: Manifest, container: AnyContainer, *, reason: str = "", deletion: int | None = None
) -> int:
    """Seconds for the pre-stop hook and the container's end together.

    `deletion`: what whoever deletes the pod allows it; it has the last word. `reason`: of the kill
    (`actions.KillReason`); a container that failed a startup or liveness probe has the grace period of that
    probe, if it says one, otherwise the pod's.
    """
    if deletion is not None:
        return deletion
    probe = {"StartupProbe": container.startupProbe, "LivenessProbe": container.livenessProbe}.get(reason)
    if probe is not None and probe.terminationGracePeriodSeconds is not None:
        return probe.terminationGracePeriodSeconds
    return manifest.grace


def remaining(seconds: float, spent: float) -> float:
    """What is left of a grace period after a hook, or a wait for others, that took `spent` seconds: the
    kubelet counts whole seconds that have passed."""
    # A virtual clock's seconds are sums of floats: 2.9999999 is 3.
    return seconds - int(spent + 1e-6)


def timeout(seconds: float) -> int:
    """What StopContainer is given of the `seconds` that are left."""
    return max(MINIMUM, int(seconds))
