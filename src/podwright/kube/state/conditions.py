"""The conditions of a pod that a kubelet sets: True or False, with reason and message. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import ContainerStatus, PodCondition
from podwright.kube.rules import restarts, sandbox_rule
from podwright.kube.state.pod_state import Seen

OURS = (
    "AllContainersRestarting",
    "ContainersReady",
    "Initialized",
    "PodReadyToStartContainers",
    "PodScheduled",
    "Ready",
)
"""Conditions of other types are somebody else's: readiness gates are."""
FINAL = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}
"""Reasons of conditions that a pod's end decides, by its phase."""


def conditions(
    manifest: Manifest,
    seen: Seen,
    containers: Sequence[ContainerStatus],
    phase: str,
    *,
    earlier: Sequence[PodCondition],
    now: datetime | None,
) -> list[PodCondition]:
    """All conditions, by type. `containers`: the statuses of init containers and containers. `earlier`: those
    of the last status; a condition that has not turned keeps its time, others have `now`."""
    others = [one for one in earlier if one.type not in OURS]
    containers_ready = _containers_ready(manifest, containers, phase)
    found = [
        *others,
        _condition("PodReadyToStartContainers", not sandbox_rule.needed(manifest, seen).new),
        _initialized(manifest, containers, phase, earlier),
        _ready(manifest, containers_ready, others),
        containers_ready,
        _condition("PodScheduled", True),
    ]
    if restarts.may_restart_all(manifest):
        found.append(_all_restarting(manifest, seen, phase))
    past = {one.type: one for one in earlier}
    for one in found:
        before = past.get(one.type)
        same = before is not None and before.status == one.status
        one.lastTransitionTime = before.lastTransitionTime if before is not None and same else now
    return sorted(found, key=lambda one: one.type)


def _condition(kind: str, holds: bool, reason: str | None = None, message: str | None = None) -> PodCondition:
    return PodCondition(type=kind, status=str(holds), reason=reason, message=message)


def _initialized(
    manifest: Manifest, containers: Sequence[ContainerStatus], phase: str, earlier: Sequence[PodCondition]
) -> PodCondition:
    by_name = {one.name: one for one in containers}
    unknown, incomplete = [], []
    for container in manifest.init_containers:
        status = by_name.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif not (status.started if manifest.is_sidecar(container) else status.ready):
            incomplete.append(container.name)
    if phase == "Succeeded" and not unknown:
        return _condition("Initialized", True, FINAL[phase])
    if any_started(manifest, containers):
        # Sidecars may be starting again meanwhile.
        return _condition("Initialized", True)
    if not unknown and not incomplete:
        return _condition("Initialized", True)
    was = any(one.type == "Initialized" and one.status == "True" for one in earlier)
    if was and restarts.may_restart_all(manifest):
        return _condition("Initialized", True)
    message = _listed(("unknown", unknown), ("incomplete", incomplete))
    return _condition("Initialized", False, "ContainersNotInitialized", message)


def _containers_ready(manifest: Manifest, containers: Sequence[ContainerStatus], phase: str) -> PodCondition:
    by_name = {one.name: one for one in containers}
    lasting = [*manifest.sidecars, *manifest.containers]
    unknown = [one.name for one in lasting if one.name not in by_name]
    unready = [one.name for one in lasting if one.name in by_name and not by_name[one.name].ready]
    if phase == "Failed" or (phase == "Succeeded" and not unknown):
        return _condition("ContainersReady", False, FINAL[phase])
    if unknown or unready:
        message = _listed(("unknown", unknown), ("unready", unready))
        return _condition("ContainersReady", False, "ContainersNotReady", message)
    return _condition("ContainersReady", True)


def _ready(
    manifest: Manifest, containers_ready: PodCondition, others: Sequence[PodCondition]
) -> PodCondition:
    if containers_ready.status != "True":
        return _condition("Ready", False, containers_ready.reason, containers_ready.message)
    by_type = {one.type: one.status for one in others}
    missing = []
    for gate in manifest.spec.readinessGates or []:
        status = by_type.get(gate.conditionType)
        if status is None:
            missing.append(
                f'corresponding condition of pod readiness gate "{gate.conditionType}" does not exist.'
            )
        elif status != "True":
            missing.append(
                f'the status of pod readiness gate "{gate.conditionType}" is not "True", but {status}'
            )
    if missing:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(missing))
    return _condition("Ready", True)


def _all_restarting(manifest: Manifest, seen: Seen, phase: str) -> PodCondition:
    kind = "AllContainersRestarting"
    if phase in FINAL:
        return _condition(kind, False, FINAL[phase])
    if not restarts.restart_all(manifest, seen):
        return _condition(kind, False)
    message = "container exited with restart policy rule"
    return _condition(kind, True, "RestartAllContainersStarted", message)


def any_started(manifest: Manifest, containers: Sequence[ContainerStatus]) -> bool:
    """Whether an ordinary container runs or has run, so that the pod was initialized once."""
    names = {one.name for one in manifest.containers}
    return any(
        one.name in names
        and one.state is not None
        and (one.state.running or one.state.terminated) is not None
        for one in containers
    )


def _listed(*groups: tuple[str, Sequence[str]]) -> str:
    """ "containers with unready status: [a b]", as Go prints a list."""
    return ", ".join(f"containers with {kind} status: [{' '.join(names)}]" for kind, names in groups if names)
