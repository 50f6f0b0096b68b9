"""Whether a container that ended is started again: the pod's policy, its own, and its rules. Pure.

When it is started is not decided here: that is the back-off's.
"""

from __future__ import annotations

from podwright.kube.life import words
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.kube.state.waiting import Waiting

RESTART, RESTART_ALL = "Restart", "RestartAllContainers"


def after_exit(manifest: Manifest, container: AnyContainer, exit_code: int) -> bool:
    """Whether policies and rules start it again after it ended with `exit_code`.

    A rule that fits comes first, then the container's own policy, then the pod's (KEP-5307). A rule counts
    only where the container has a policy of its own, as the API demands.
    """
    policy = container.restartPolicy
    if policy:
        if rule(container, exit_code) in (RESTART, RESTART_ALL):
            return True
    else:
        policy = manifest.spec.restartPolicy
    return exit_code != 0 if policy == "OnFailure" else policy != "Never"


def after_failure(manifest: Manifest, container: AnyContainer) -> bool:
    """Whether a container that is killed because a probe failed is started again. It has no exit code yet, so
    rules have no say."""
    return (container.restartPolicy or manifest.spec.restartPolicy) != "Never"


def wanted(
    manifest: Manifest, container: AnyContainer, newest: SeenContainer | None, *, deleting: bool = False
) -> bool:
    """Whether the container should run and does not: it was never made, was made and not started, or ended
    and is to be started again."""
    if deleting:
        return False
    if newest is None or newest.created or newest.unknown:
        return True
    return newest.exited and after_exit(manifest, container, newest.status.exit_code)


def rule(container: AnyContainer, exit_code: int) -> str:
    """The action of the first rule that fits: "Restart" or "RestartAllContainers"; "" where none does."""
    for one in container.restartPolicyRules or []:
        if one.exitCodes is not None:
            among = exit_code in (one.exitCodes.values or [])
            if among is (one.exitCodes.operator == "In"):
                return one.action
    return ""


def restart_all(manifest: Manifest, seen: Seen) -> bool:
    """Whether a container ended in a way that restarts the whole pod in place (KEP-5532)."""
    for container in [*manifest.init_containers, *manifest.containers]:
        newest = seen.container(container.name)
        if newest is not None and newest.exited and rule(container, newest.status.exit_code) == RESTART_ALL:
            return True
    return False


def may_restart_all(manifest: Manifest) -> bool:
    """Whether any rule of the pod could restart all of it."""
    return any(
        one.action == RESTART_ALL
        for container in [*manifest.init_containers, *manifest.containers]
        for one in container.restartPolicyRules or []
    )


def count(newest: SeenContainer | None, logged: int | None) -> int:
    """How often the next attempt of a container will have been restarted; the attempt has this number.

    `logged`: the highest N of the files N.log in its log directory, None without any; they tell of attempts
    that the runtime has no more.
    """
    if newest is not None:
        return newest.restart_count + 1
    return 0 if logged is None else logged + 1


def crash_loop(manifest: Manifest, container: str, delay: float) -> Waiting:
    """Why a container that keeps failing is not started now: it is started after `delay` seconds."""
    pod = f"{manifest.name}_{manifest.namespace}({manifest.uid})"
    return Waiting(
        "CrashLoopBackOff",
        f"back-off {words.duration(delay)} restarting failed container={container} pod={pod}",
    )
