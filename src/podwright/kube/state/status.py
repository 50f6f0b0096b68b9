"""The status of a pod, from its manifest and what its runtime has of it. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import (
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    HostIP,
    PodIP,
    PodStatus,
    ResourceRequirements,
)
from podwright.kube.node import Node, PodFacts
from podwright.kube.probes.results import Results
from podwright.kube.requests import quantities
from podwright.kube.requests.resources import qos_class
from podwright.kube.state import actual_resources, container_statuses
from podwright.kube.state.conditions import conditions
from podwright.kube.state.container_statuses import LOST, LOST_AT_END, LOST_EXIT, Sources, moment
from podwright.kube.state.phase import FINAL, phase
from podwright.kube.state.pod_state import Seen
from podwright.kube.state.waiting import Failed, Waiting

__all__ = ["Failed", "Waiting", "finished", "pod_status", "rejected"]


def pod_status(
    manifest: Manifest,
    seen: Seen,
    *,
    previous: PodStatus | None,
    waiting: Mapping[str, Waiting],
    probes: Results,
    node: Node,
    facts: PodFacts,
    now: int,
    deleting: bool,
    failed: Failed | None = None,
    messages: Mapping[str, str] | None = None,
) -> PodStatus:
    """What a kubelet reports of the pod.

    `previous`: the last status, for what the runtime does not remember (removed containers, transition times,
    the start time, the addresses of a pod that has ended). `waiting`: why containers do not start, by name.
    `now`: nanoseconds since the epoch. `failed`: the pod was given up. `messages`: termination messages, by
    container id.
    """
    old = previous or PodStatus()
    restarting = any(
        one.type == "AllContainersRestarting" and one.status == "True" for one in old.conditions or []
    )
    sources = Sources(
        manifest=manifest, seen=seen, node=node, probes=probes, waiting=waiting, messages=messages or {},
        deleting=deleting or failed is not None, restarting_all=restarting,
    )  # fmt: skip
    status = PodStatus(
        qosClass=qos_class(manifest.spec),
        startTime=old.startTime or moment(now),
        containerStatuses=container_statuses.of(
            sources, manifest.containers, old.containerStatuses or [], kind="ordinary"
        ),
        initContainerStatuses=container_statuses.of(
            sources, manifest.init_containers, old.initContainerStatuses or [], kind="init"
        )
        or None,
        ephemeralContainerStatuses=container_statuses.of(
            sources, manifest.ephemeral_containers, old.ephemeralContainerStatuses or [], kind="ephemeral"
        )
        or None,
    )
    _set_phase(manifest, status, old, failed, sources.deleting)
    _set_addresses(manifest, status, old, seen, node, facts)
    level = manifest.spec.resources
    if level is not None and (level.requests or level.limits):
        running = old.phase == "Running"
        status.resources = actual_resources.of_pod(manifest) if running else ResourceRequirements(
            requests=quantities.of_pod(manifest.spec, "requests") or None,
            limits=quantities.of_pod(manifest.spec, "limits") or None,
        )  # fmt: skip
        status.allocatedResources = quantities.of_pod(manifest.spec, "requests") or None
    status.conditions = conditions(
        manifest, seen, _all(status), status.phase or "",
        earlier=old.conditions or [], now=moment(now),
    )  # fmt: skip
    return status


def rejected(manifest: Manifest, failed: Failed, now: int) -> PodStatus:
    """Of a pod that the node does not take at all."""
    return PodStatus(
        phase="Failed",
        reason=failed.reason,
        message=f"Pod was rejected: {failed.message}",
        qosClass=qos_class(manifest.spec),
        startTime=moment(now),
        conditions=[],
    )


def finished(manifest: Manifest, status: PodStatus) -> PodStatus:
    """The last status of a pod, when all of it is stopped for good: no container is left waiting or running,
    for nobody will look again, and the phase is final."""
    last = copy.deepcopy(status)
    if _initialized(manifest, last):
        _mark_lost(last.containerStatuses or [])
    init = last.initContainerStatuses or []
    reached = [index for index, one in enumerate(init) if _has_run(one)]
    _mark_lost(init[: (reached[-1] if reached else 0) + 1])
    if last.phase not in FINAL:
        last.phase = "Failed"
    return last


def _set_phase(
    manifest: Manifest, status: PodStatus, old: PodStatus, failed: Failed | None, stopping: bool
) -> None:
    status.phase = phase(manifest, _all(status), stopped_for_good=stopping)
    if old.phase in FINAL:
        status.phase = old.phase
    if status.phase == old.phase:
        status.reason, status.message = old.reason, old.message
    if failed is not None:
        status.phase, status.reason, status.message = "Failed", failed.reason, failed.message


def _set_addresses(
    manifest: Manifest, status: PodStatus, old: PodStatus, seen: Seen, node: Node, facts: PodFacts
) -> None:
    ips: Sequence[str] = seen.ips()
    if not ips and seen.ready_sandbox() is None:
        # A pod that has ended keeps the address it had.
        ips = [one.ip for one in old.podIPs or []] or facts.ips
    if manifest.spec.hostNetwork:
        ips = ips or node.ips
    if ips:
        status.podIP, status.podIPs = ips[0], [PodIP(ip=ip) for ip in ips]
    if node.ips:
        status.hostIP, status.hostIPs = node.ips[0], [HostIP(ip=ip) for ip in node.ips]


def _all(status: PodStatus) -> list[ContainerStatus]:
    return [*(status.initContainerStatuses or []), *(status.containerStatuses or [])]


def _initialized(manifest: Manifest, status: PodStatus) -> bool:
    """Whether the ordinary containers had their time."""
    if not manifest.init_containers or any(_has_run(one) for one in status.containerStatuses or []):
        return True
    init = status.initContainerStatuses or []
    if not init:
        return False
    last, container = init[-1], manifest.init_containers[-1]
    if manifest.is_sidecar(container):
        return last.state is not None and last.state.running is not None and bool(last.started)
    ends = [state.terminated for state in (last.state, last.lastState) if state is not None]
    return any(one is not None and one.exitCode == 0 for one in ends)


def _has_run(status: ContainerStatus) -> bool:
    state, before = status.state or ContainerState(), status.lastState or ContainerState()
    return state.waiting is None or before.terminated is not None


def _mark_lost(statuses: Sequence[ContainerStatus]) -> None:
    for one in statuses:
        if one.state is None or one.state.terminated is None:
            one.state = ContainerState(
                terminated=ContainerStateTerminated(exitCode=LOST_EXIT, reason=LOST, message=LOST_AT_END)
            )
