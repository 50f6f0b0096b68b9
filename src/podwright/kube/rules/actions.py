"""What is to be done next for a pod, from its manifest and what its runtime has of it. Pure.

`compute` is asked again after everything that happened; it remembers nothing. What it answers is done in this
order: `reset`, `kill_pod` or `kill`, `remove_init`, `create_sandbox`, `ephemeral`, `init`, `update`, `start`.
When an ordinary init container cannot be started the rest waits for the next time; a sidecar or a container
that cannot be started keeps nobody else from being started.
"""

from __future__ import annotations

from collections.abc import Mapping

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Container, ResourceRequirements
from podwright.kube.probes.results import Outcome, Results
from podwright.kube.requests.container import container_hash
from podwright.kube.rules import init_actions, resize, restarts, sandbox_rule
from podwright.kube.rules.action_types import Actions, Kill, KillReason, Reset, Resize, lost
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.wire import cri_pb2 as cri

__all__ = ["Actions", "Kill", "KillReason", "Reset", "Resize", "compute"]


def compute(
    manifest: Manifest,
    seen: Seen,
    *,
    probes: Results,
    deleting: bool = False,
    ended: bool = False,
    actuated: Mapping[str, ResourceRequirements] | None = None,
) -> Actions:
    """What a kubelet does next.

    `deleting`, `ended` (the pod's phase is final: DeadlineExceeded, …): all is stopped and nothing starts.
    `actuated`: the resources, by container id, that containers were made with or last changed to; what is not
    in it is not resized.
    """
    sandbox = sandbox_rule.needed(manifest, seen)
    actions = Actions(sandbox_attempt=sandbox.attempt, sandbox_id=sandbox.sandbox_id)
    if deleting or ended:
        return _end(actions, seen)
    if restarts.restart_all(manifest, seen):
        actions.reset = _reset(manifest, seen)
        return actions
    if sandbox.new:
        return _begin(manifest, seen, actions)
    actions.remove_init = _replaced(manifest, seen)
    actions.ephemeral = [
        one.name for one in manifest.ephemeral_containers if seen.container(one.name) is None
    ]
    initialized = init_actions.add(manifest, seen, probes, actuated or {}, actions)
    if actions.kill_pod or not initialized:
        return _end(actions, seen) if actions.kill_pod else actions
    kept = sum(
        _ordinary(manifest, one, seen.container(one.name), probes, actuated or {}, actions)
        for one in manifest.containers
    )
    if not kept and not actions.start:
        # Sidecars must not keep alive a pod whose work is done.
        actions.init, actions.kill, actions.update = [], [], []
        return _end(actions, seen)
    return actions


def _end(actions: Actions, seen: Seen) -> Actions:
    """Stop what is left."""
    actions.create_sandbox = False
    actions.ephemeral = []
    actions.kill_pod = any(one.state == cri.SANDBOX_READY for one in seen.sandboxes) or any(
        one.running or one.unknown for one in seen.containers
    )
    actions.done = not actions.kill_pod
    return actions


def _begin(manifest: Manifest, seen: Seen, actions: Actions) -> Actions:
    """A new sandbox, and everything from the start; unless there is nothing left to run in it."""
    never = manifest.spec.restartPolicy == "Never"
    if never and actions.sandbox_attempt and seen.containers:
        return _end(actions, seen)
    if all(_over(manifest, one, seen.container(one.name)) for one in manifest.containers):
        return _end(actions, seen)
    if init_actions.failed(manifest, seen):
        return _end(actions, seen)
    start = [one.name for one in manifest.containers if not _succeeded_once(manifest, one, seen)]
    actions.create_sandbox = True
    actions.kill_pod = bool(seen.sandboxes) or any(one.running or one.unknown for one in seen.containers)
    if manifest.init_containers:
        actions.init = [manifest.init_containers[0].name]
    else:
        actions.start = start
    return actions


def _over(manifest: Manifest, container: Container, newest: SeenContainer | None) -> bool:
    return newest is not None and newest.exited and not restarts.wanted(manifest, container, newest)


def _succeeded_once(manifest: Manifest, container: Container, seen: Seen) -> bool:
    """It has done its work and must do it only once."""
    newest = seen.container(container.name)
    policy = container.restartPolicy or manifest.spec.restartPolicy
    return policy == "OnFailure" and newest is not None and newest.exited and newest.status.exit_code == 0


def _replaced(manifest: Manifest, seen: Seen) -> list[str]:
    """Ended init containers but for the newest of each name; the collection of garbage would come late."""
    return [
        one.id
        for container in manifest.init_containers
        for one in [one for one in seen.attempts(container.name) if one.exited or one.unknown][1:]
    ]


def _reset(manifest: Manifest, seen: Seen) -> list[Reset]:
    names = {one.name: one for one in [*manifest.init_containers, *manifest.containers]}
    causes: list[Reset] = []
    others: list[Reset] = []
    for one in seen.containers:
        if one.name not in names:
            continue
        cause = one.exited and restarts.rule(names[one.name], one.status.exit_code) == restarts.RESTART_ALL
        (causes if cause else others).append(Reset(one.name, one.id, one.running or one.unknown))
    return others + causes


def _ordinary(
    manifest: Manifest,
    container: Container,
    newest: SeenContainer | None,
    probes: Results,
    actuated: Mapping[str, ResourceRequirements],
    actions: Actions,
) -> bool:
    """Whether the container runs and is left alone."""
    name = container.name
    if newest is None or not newest.running:
        if restarts.wanted(manifest, container, newest):
            if newest is not None and newest.unknown:
                actions.kill.append(lost(newest))
            actions.start.append(name)
        return False
    restart = restarts.after_failure(manifest, container)
    reason: KillReason = ""
    if newest.hash and newest.hash != container_hash(container):
        message, restart = f"Container {name} definition changed", True
    elif probes.liveness(newest.id) is Outcome.FAILURE:
        message, reason = f"Container {name} failed liveness probe", "LivenessProbe"
    elif probes.startup(newest.id) is Outcome.FAILURE:
        message, reason = f"Container {name} failed startup probe", "StartupProbe"
    else:
        change = resize.change(container, actuated.get(newest.id))
        if change.restart:
            actions.kill.append(Kill(name, newest.id, f"Container {name} resize requires restart"))
            actions.start.append(name)
            return False
        if change.resources:
            actions.update.append(Resize(name, newest.id, change.resources))
        return True
    if restart:
        message += ", will be restarted"
        actions.start.append(name)
    actions.kill.append(Kill(name, newest.id, message, reason, restart))
    return False
