"""What is to be done for the init containers of a pod, sidecars among them. Pure; a part of `actions`."""

from __future__ import annotations

from collections.abc import Mapping

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Container, ResourceRequirements
from podwright.kube.probes.results import Outcome, Results
from podwright.kube.requests.container import container_hash
from podwright.kube.rules import resize, restarts
from podwright.kube.rules.action_types import Actions, Kill, KillReason, Resize, lost
from podwright.kube.state.pod_state import Seen, SeenContainer


def add(
    manifest: Manifest,
    seen: Seen,
    probes: Results,
    actuated: Mapping[str, ResourceRequirements],
    actions: Actions,
) -> bool:
    """Whether the pod is initialized, so that its ordinary containers may run; what is to be done goes into
    `actions`. With `kill_pod` set the pod has failed.

    The last init container that the runtime knows tells how far the pod is: earlier ones may be removed. All
    before it have been initialized; of those only sidecars matter any more.
    """
    containers = manifest.init_containers
    if not containers:
        return True
    names = {one.name for one in manifest.containers}
    initialized = any(one.name in names for one in seen.active())
    past = initialized
    found: list[str] = []
    for index in reversed(range(len(containers))):
        container = containers[index]
        newest = seen.container(container.name)
        sidecar = manifest.is_sidecar(container)
        if newest is None:
            if past and sidecar:
                found.append(container.name)
            continue
        if past and not sidecar:
            continue
        if sidecar:
            through = _sidecar(container, newest, probes, actuated, actions, found)
        else:
            through = _once(manifest, container, newest, actions, found)
            if actions.kill_pod:
                return False
        if through and index == len(containers) - 1:
            initialized = True
        elif through and not past:
            found.append(containers[index + 1].name)
        past = True
    if not past:
        found.append(containers[0].name)
    order = [one.name for one in containers]
    actions.init = sorted(set(found), key=order.index)
    return initialized


def failed(manifest: Manifest, seen: Seen) -> bool:
    """Whether an init container failed and is not run again, which is the pod's end."""
    return any(
        newest is not None
        and newest.exited
        and _has_failed(newest)
        and not restarts.after_exit(manifest, container, newest.status.exit_code or 1)
        for container in manifest.init_containers
        if not manifest.is_sidecar(container)
        for newest in (seen.container(container.name),)
    )


def _sidecar(
    container: Container,
    newest: SeenContainer,
    probes: Results,
    actuated: Mapping[str, ResourceRequirements],
    actions: Actions,
    found: list[str],
) -> bool:
    """Whether the sidecar is up, so that what comes after it may start."""
    name = container.name
    if not newest.running:
        if newest.unknown:
            actions.kill.append(lost(newest, "Init container"))
        found.append(name)
        return False
    if newest.hash and newest.hash != container_hash(container):
        _again(newest, "definition changed", "", actions, found)
        return False
    if container.startupProbe is not None:
        startup = probes.startup(newest.id)
        if startup is Outcome.FAILURE:
            _again(newest, "failed startup probe", "StartupProbe", actions, found)
        if startup is not Outcome.SUCCESS:
            return False
    if container.livenessProbe is not None and probes.liveness(newest.id) is Outcome.FAILURE:
        _again(newest, "failed liveness probe", "LivenessProbe", actions, found)
        return True
    change = resize.change(container, actuated.get(newest.id))
    if change.restart:
        actions.kill.append(Kill(name, newest.id, f"Container {name} resize requires restart"))
        found.append(name)
    elif change.resources:
        actions.update.append(Resize(name, newest.id, change.resources))
    return True


def _once(
    manifest: Manifest, container: Container, newest: SeenContainer, actions: Actions, found: list[str]
) -> bool:
    """Whether an ordinary init container has done its work."""
    if newest.running:
        return False
    if newest.exited and not _has_failed(newest):
        return True
    again = (
        restarts.after_exit(manifest, container, newest.status.exit_code or 1)
        if newest.exited
        else restarts.after_failure(manifest, container)
    )
    if not again and not newest.created:
        actions.kill_pod = True
    else:
        if newest.unknown:
            actions.kill.append(lost(newest, "Init container"))
        found.append(container.name)
    return False


def _has_failed(ended: SeenContainer) -> bool:
    # One that the kernel killed for its memory may still say 0.
    return ended.failed or ended.status.reason == "OOMKilled"


def _again(newest: SeenContainer, what: str, reason: KillReason, actions: Actions, found: list[str]) -> None:
    actions.kill.append(Kill(newest.name, newest.id, f"Init container {newest.name} {what}", reason))
    found.append(newest.name)
