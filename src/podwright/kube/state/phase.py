"""The phase of a pod, from the statuses of its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, ContainerState, ContainerStateTerminated, ContainerStatus
from podwright.kube.rules import restarts

FINAL = ("Succeeded", "Failed")
"""Phases that a pod does not leave."""


def phase(manifest: Manifest, containers: Sequence[ContainerStatus], *, stopped_for_good: bool) -> str:
    """ "Pending", "Running", "Succeeded" or "Failed".

    `containers`: the statuses of init containers and containers. `stopped_for_good`: nothing is started again
    whatever the policies say, for the pod is being deleted or was given up.
    """
    by_name = {one.name: one for one in containers}
    initializing = 0
    for container in manifest.init_containers:
        if manifest.is_sidecar(container):
            continue
        ended = _last_end(by_name.get(container.name))
        if ended is None:
            initializing += 1
        elif ended.exitCode and not _again(manifest, container, ended):
            return "Failed"
    tally = _Tally()
    sidecars_coming = sum(tally.sidecar(by_name.get(one.name)) for one in manifest.sidecars)
    for container in manifest.containers:
        tally.ordinary(manifest, container, by_name.get(container.name))
    if initializing or (sidecars_coming and not tally.any_started) or tally.waiting:
        return "Pending"
    if tally.running and not tally.unknown:
        return "Running"
    if not tally.stopped or tally.unknown:
        return "Pending"
    if tally.restarted and not (stopped_for_good and not manifest.static):
        return "Running"
    return "Succeeded" if tally.succeeded == tally.stopped else "Failed"


class _Tally:
    """How many containers are in which condition, sidecars among them where they count."""

    def __init__(self) -> None:
        self.unknown = self.running = self.waiting = self.stopped = self.succeeded = self.restarted = 0
        self.any_started = False

    def sidecar(self, status: ContainerStatus | None) -> bool:
        """Whether it is yet to come up for the first time. A sidecar that has ended does not count."""
        state = _state(status)
        if status is None or state is None:
            self.unknown += 1
            return status is not None
        if state.running is not None:
            self.running += 1
            return not status.started
        if state.waiting is not None and _terminated(status.lastState) is None:
            self.waiting += 1
            return True
        return False

    def ordinary(self, manifest: Manifest, container: AnyContainer, status: ContainerStatus | None) -> None:
        state = _state(status)
        if status is None or state is None:
            self.unknown += 1
            return
        self.any_started = self.any_started or state.waiting is None
        if state.running is not None:
            self.running += 1
            return
        ended = state.terminated or _terminated(status.lastState)
        if ended is None:
            self.waiting += 1
            return
        self.stopped += 1
        # One that waits to be started again is no success, whatever its last end was.
        self.succeeded += state.terminated is not None and ended.exitCode == 0
        self.restarted += _again(manifest, container, ended)


def _again(manifest: Manifest, container: AnyContainer, ended: ContainerStateTerminated) -> bool:
    """Whether it is started again, by itself or with all others."""
    return ended.reason == "RestartingAllContainers" or restarts.after_exit(
        manifest, container, ended.exitCode
    )


def _state(status: ContainerStatus | None) -> ContainerState | None:
    state = status.state if status is not None else None
    if state is None or (state.running, state.waiting, state.terminated) == (None, None, None):
        return None
    return state


def _last_end(status: ContainerStatus | None) -> ContainerStateTerminated | None:
    """How an ordinary init container ended the last time; None while it runs or is still to run."""
    state = _state(status)
    if status is None or state is None or state.running is not None:
        return None
    return state.terminated or _terminated(status.lastState)


def _terminated(state: ContainerState | None) -> ContainerStateTerminated | None:
    return None if state is None else state.terminated
