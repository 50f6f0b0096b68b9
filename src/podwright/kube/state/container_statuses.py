"""The statuses of a pod's containers. Pure; a part of `status`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import (
    AnyContainer,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    ContainerUser,
    LinuxContainerUser,
    VolumeMountStatus,
)
from podwright.kube.node import Node
from podwright.kube.probes.results import Outcome, Results
from podwright.kube.requests import signals
from podwright.kube.requests.quantities import all_canonical
from podwright.kube.rules import restarts
from podwright.kube.state import actual_resources
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.kube.state.waiting import Waiting
from podwright.wire import cri_pb2 as cri

LOST = "ContainerStatusUnknown"
LOST_AT_END = "The container could not be located when the pod was terminated"
LOST_RUNNING = (
    "The container could not be located when the pod was deleted.  The container used to be Running"
)
LOST_EXIT = 137
RESTARTING = "RestartingAllContainers"
RESTARTING_MESSAGE = "The container is removed because RestartAllContainers in place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What statuses are made from."""

    manifest: Manifest
    seen: Seen
    node: Node
    probes: Results
    waiting: Mapping[str, Waiting]
    messages: Mapping[str, str]
    deleting: bool
    restarting_all: bool


def of(
    sources: Sources, containers: Sequence[AnyContainer], previous: Iterable[ContainerStatus], *, kind: str
) -> list[ContainerStatus]:
    """One for each of `containers`, which are of one `kind`: "init", "ordinary" or "ephemeral". Init
    containers stay in their order, others are sorted by name."""
    old = {one.name: one for one in previous}
    found = [_status(sources, one, old.get(one.name), kind) for one in containers]
    return found if kind == "init" else sorted(found, key=lambda one: one.name)


def _status(
    sources: Sources, container: AnyContainer, old: ContainerStatus | None, kind: str
) -> ContainerStatus:
    attempts = sources.seen.attempts(container.name)
    if attempts:
        status = _converted(sources, container, attempts[0], old)
        if len(attempts) > 1:
            status.lastState = _converted(sources, container, attempts[1], old).state
    else:
        status = _not_there(sources, container, old)
    status.volumeMounts = _volume_mounts(sources, container) or None
    newest = attempts[0] if attempts else None
    _apply_reason(sources, container, status, newest, kind)
    if kind != "ephemeral":
        _apply_probes(sources, container, status, newest, kind)
    return status


def _not_there(sources: Sources, container: AnyContainer, old: ContainerStatus | None) -> ContainerStatus:
    """Of a container that the runtime does not have: it was never made, or was removed."""
    coming = "PodInitializing" if sources.manifest.init_containers else "ContainerCreating"
    status = ContainerStatus(
        name=container.name, image=container.image or "", imageID="", ready=False, restartCount=0,
        state=ContainerState(waiting=ContainerStateWaiting(reason=coming)),
    )  # fmt: skip
    if old is None:
        return status
    was = old.state or ContainerState()
    if sources.restarting_all and was.waiting is None:
        status.state = ContainerState(
            waiting=ContainerStateWaiting(reason=RESTARTING, message=RESTARTING_MESSAGE)
        )
        status.lastState = _gone(RESTARTING, RESTARTING_MESSAGE)
        status.restartCount = old.restartCount + 1
        return status
    if was.terminated is not None:
        status = copy.deepcopy(old)
        status.ready = False
        return status
    status.restartCount, status.lastState = old.restartCount, copy.deepcopy(old.lastState)
    if was.running is not None and (status.lastState is None or status.lastState.terminated is None):
        status.lastState = _gone(LOST, LOST_RUNNING)
        if not sources.deleting:
            status.restartCount += 1
    return status


def _converted(
    sources: Sources, container: AnyContainer, seen: SeenContainer, old: ContainerStatus | None
) -> ContainerStatus:
    """What the runtime says of one attempt."""
    told = seen.status
    status = ContainerStatus(
        name=container.name, image=_image(told), imageID=told.image_ref or told.image_id, ready=False,
        restartCount=seen.restart_count, containerID=f"{sources.node.runtime_name}://{seen.id}",
    )  # fmt: skip
    if told.HasField("user") and told.user.HasField("linux"):
        user = told.user.linux
        status.user = ContainerUser(
            linux=LinuxContainerUser(
                uid=user.uid, gid=user.gid, supplementalGroups=list(user.supplemental_groups) or None
            )
        )
    if told.stop_signal:
        status.stopSignal = signals.name(told.stop_signal) or None
    was = old.state if old is not None and old.state is not None else ContainerState()
    if old is not None:
        # Of a pod that was started again in place the runtime has only the newest attempts.
        status.restartCount = max(status.restartCount, old.restartCount)
        if seen.running and was.terminated is not None and old.restartCount >= seen.restart_count:
            status.restartCount = old.restartCount + 1
        if old.containerID != status.containerID and was.terminated is not None:
            status.lastState = ContainerState(terminated=was.terminated)
        elif old.lastState is not None and old.lastState.terminated is not None:
            status.lastState = ContainerState(terminated=old.lastState.terminated)
    if seen.running:
        status.state = ContainerState(running=ContainerStateRunning(startedAt=moment(told.started_at)))
        requests = container.resources.requests if container.resources is not None else None
        status.allocatedResources = all_canonical(requests) or None
        status.resources = actual_resources.of(container, told)
    elif seen.exited:
        status.state = ContainerState(terminated=_terminated(sources, seen, status.containerID))
    elif seen.unknown and old is not None and was.running is not None:
        status.state = _gone(RESTARTING if sources.restarting_all else LOST, LOST_AT_END)
        status.restartCount = old.restartCount + 1
    else:
        status.state = ContainerState(waiting=ContainerStateWaiting())
    return status


def _image(told: cri.ContainerStatus) -> str:
    """The image by a name, also where the runtime tells only the id that it was given."""
    name = told.image.image
    return told.image.user_specified_image or name if not name or name.startswith("sha256:") else name


def _terminated(sources: Sources, seen: SeenContainer, container_id: str | None) -> ContainerStateTerminated:
    told = seen.status
    parts = [told.message, sources.messages.get(seen.id, "")]
    return ContainerStateTerminated(
        exitCode=told.exit_code,
        reason=told.reason or None,
        message=": ".join(part for part in parts if part) or None,
        startedAt=moment(told.started_at),
        finishedAt=moment(told.finished_at),
        containerID=container_id,
    )


def _gone(reason: str, message: str) -> ContainerState:
    return ContainerState(
        terminated=ContainerStateTerminated(exitCode=LOST_EXIT, reason=reason, message=message)
    )


def _volume_mounts(sources: Sources, container: AnyContainer) -> list[VolumeMountStatus]:
    recursive = sources.node.recursive_read_only(sources.manifest.spec.runtimeClassName or "")
    found = []
    for mount in container.volumeMounts or []:
        one = VolumeMountStatus(name=mount.name, mountPath=mount.mountPath)
        if mount.readOnly:
            one.readOnly = True
            wish = mount.recursiveReadOnly or "Disabled"
            deep = wish == "Enabled" or (wish == "IfPossible" and recursive)
            one.recursiveReadOnly = "Enabled" if deep else "Disabled"
        found.append(one)
    return found


def _apply_reason(
    sources: Sources,
    container: AnyContainer,
    status: ContainerStatus,
    newest: SeenContainer | None,
    kind: str,
) -> None:
    """A container that is to be started and could not be waits, with the reason for that."""
    reason = sources.waiting.get(container.name)
    if reason is None or not restarts.wanted(sources.manifest, container, newest, deleting=sources.deleting):
        return
    if kind == "init" and newest is not None and newest.exited and newest.status.exit_code == 0:
        return
    if status.state is not None and status.state.terminated is not None:
        status.lastState = status.state
    status.state = ContainerState(
        waiting=ContainerStateWaiting(reason=reason.reason, message=reason.message or None)
    )


def _apply_probes(
    sources: Sources,
    container: AnyContainer,
    status: ContainerStatus,
    newest: SeenContainer | None,
    kind: str,
) -> None:
    running = status.state is not None and status.state.running is not None and newest is not None
    status.started = running and newest is not None and _started(sources, container, newest.id)
    if kind == "init" and not sources.manifest.is_sidecar(container):
        ended = status.state.terminated if status.state is not None else None
        status.ready = ended is not None and ended.exitCode == 0
    elif status.started and newest is not None:
        readiness = sources.probes.readiness(newest.id)
        status.ready = readiness is Outcome.SUCCESS or (
            readiness is None and container.readinessProbe is None
        )


def _started(sources: Sources, container: AnyContainer, container_id: str) -> bool:
    startup = sources.probes.startup(container_id)
    if startup is not None:
        return startup is Outcome.SUCCESS
    # Of a pod that is being deleted startup probes are gone; who ran counts as started.
    return container.startupProbe is None or sources.deleting


def moment(nanoseconds: int) -> datetime | None:
    """A time since the epoch, to the second as the API has it; None for 0."""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC) if nanoseconds else None
