"""One round of a pod's life: what is to be done is computed from what the runtime shows, and done, in the
kubelet's order. Nothing here waits for the pod to change: the next round sees what this one has made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from podwright.errors import PodwrightError
from podwright.kube import volumes
from podwright.kube.failures import Failure, ImageError, SandboxConfigError, SandboxError
from podwright.kube.files import pod_cgroups
from podwright.kube.life import collection, deletion, pull_secrets, resizing, starting, words
from podwright.kube.life.context import PodContext
from podwright.kube.life.images import Wanted
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, Pod, ResourceRequirements
from podwright.kube.node import PodFacts
from podwright.kube.requests import dns, translate
from podwright.kube.requests.resources import sandbox_resources
from podwright.kube.rules import actions
from podwright.kube.rules.action_types import Actions, Reset
from podwright.kube.state.pod_state import Seen
from podwright.kube.state.status import Waiting
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

ERROR_PAUSE = 10.0
"""Seconds until what has failed is tried again (the kubelet's back-off period of a pod)."""


@dataclass(slots=True)
class Round:
    """What became of it."""

    again: float | None = None
    """In so many seconds the next one is due even if nothing happens; None: nothing is waited for."""
    changed: bool = False
    """Something was done: the pod is to be looked at again at once."""
    over: bool = False
    """The pod has come to its end, and nothing of it runs."""

    def retry(self, seconds: float = ERROR_PAUSE) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)


async def sync(pod: PodContext, seen: Seen, tell: Callable[[], None]) -> Round:
    """Do what is to be done next. `tell` is called when something has changed that a status shows. Raises
    what the runtime says where that ends the round."""
    done = Round()
    if not await _prepare(pod, done):
        return done
    todo = actions.compute(pod.manifest, seen, probes=pod.results, actuated=pod.actuated)
    done.over = todo.done
    for one in todo.reset:
        await _reset(pod, seen, one)
        done.changed = True
    if todo.kill_pod:
        if todo.create_sandbox and todo.sandbox_id:
            pod.recorder.normal(
                "SandboxChanged", "", "Pod sandbox changed, it will be killed and re-created."
            )
        await deletion.kill_pod(pod, seen)
        if todo.create_sandbox:
            await _purge_init(pod, seen)
        done.changed = True
    for kill in todo.kill:
        await deletion.kill_container(
            pod, kill.name, kill.container_id, message=kill.message, reason=kill.reason
        )
        done.changed = True
    await collection.remove_containers(pod, [one for one in seen.containers if one.id in todo.remove_init])
    sandbox_id = todo.sandbox_id
    if todo.create_sandbox:
        sandbox_id = await _make_sandbox(pod, todo.sandbox_attempt)
        done.changed = True
        tell()
    if todo.ephemeral or todo.init or todo.update or todo.start:
        await _bring_up(pod, seen, todo, sandbox_id, done, tell)
    return done


async def end(pod: PodContext, seen: Seen, grace: int | None) -> Round:
    """Stop what is left of a pod that is deleted or has failed; `grace` as in `deletion.kill_pod`."""
    todo = actions.compute(pod.manifest, seen, probes=pod.results, ended=True)
    if todo.kill_pod:
        await deletion.kill_pod(pod, seen, override=grace)
    return Round(over=todo.done, changed=todo.kill_pod)


def adopt(pod: PodContext, seen: Seen, earlier: Pod) -> None:
    """Take over the containers that another process has made for the manifest `earlier`."""
    assert earlier.spec is not None
    made = {one.name: one for one in [*(earlier.spec.initContainers or []), *earlier.spec.containers]}
    for one in seen.containers:
        if one.name in made:
            pod.actuated[one.id] = made[one.name].resources or ResourceRequirements()
    pod.sandbox_resources = sandbox_resources(Manifest(earlier, "", objects=pod.manifest.objects))


async def _bring_up(
    pod: PodContext, seen: Seen, todo: Actions, sandbox_id: str, done: Round, tell: Callable[[], None]
) -> None:
    # As the manifest says now: resources may have changed since the sandbox was made.
    pod.sandbox_config = _sandbox_config(pod, todo.sandbox_attempt)
    await _image_volumes(pod)
    for name in todo.ephemeral:
        await _start(pod, name, seen, sandbox_id, done, tell)
    for name in todo.init:
        started = await _start(pod, name, seen, sandbox_id, done, tell)
        container = pod.manifest.container(name)
        if not started and container is not None and not pod.manifest.is_sidecar(container):
            return
    if todo.update:
        await resizing.resize(pod, seen, todo.update, sandbox_id)
        done.changed = True
    for name in todo.start:
        await _start(pod, name, seen, sandbox_id, done, tell)


async def _reset(pod: PodContext, seen: Seen, one: Reset) -> None:
    """Nobody has any grace, and the logs stay: they tell how often a container was started."""
    if one.running:
        await deletion.kill_container(pod, one.name, one.container_id, message="killing", override=0)
    found = [each for each in seen.containers if each.id == one.container_id]
    await collection.remove_containers(pod, found, keep_logs=True)


async def _prepare(pod: PodContext, done: Round) -> bool:
    """The pod's cgroup and volumes are there; False while a volume cannot be made."""
    if pod.mounted:
        return True
    left = pod.mounts.within("volumes")
    if left > 0:
        done.retry(left)
        return False
    try:
        with step("make volumes", pod.manifest.name):
            await asyncio.to_thread(pod_cgroups.make, pod.manifest, pod.node)
            await asyncio.to_thread(
                volumes.make, pod.manifest, pod.node, pod.facts, pod.directory, bindings=pod.manifest.bindings
            )
    except (Failure, OSError) as error:
        reason = error.reason if isinstance(error, Failure) else "FailedMount"
        pod.recorder.warning(reason, "", error.message if isinstance(error, Failure) else str(error))
        pod.mounts.next("volumes", pod.clock.now())
        done.retry(pod.mounts.within("volumes"))
        return False
    pod.mounted = True
    return True


async def _purge_init(pod: PodContext, seen: Seen) -> None:
    """A new sandbox runs them all again: their old attempts go, so that none is taken for done."""
    names = {one.name for one in pod.manifest.init_containers}
    await collection.remove_containers(pod, [one for one in seen.containers if one.name in names])


def _sandbox_config(pod: PodContext, attempt: int) -> cri.PodSandboxConfig:
    for complaint in dns.exceeded(pod.manifest, pod.node):
        pod.recorder.warning("DNSConfigForming", "", complaint)
    return translate.sandbox_config(pod.manifest, pod.node, pod.facts, str(pod.directory.logs_root), attempt)


async def _make_sandbox(pod: PodContext, attempt: int) -> str:
    try:
        config = _sandbox_config(pod, attempt)
        logs = pod.directory.logs_root
        await asyncio.to_thread(lambda: logs.mkdir(mode=0o755, parents=True, exist_ok=True))
        with step("run sandbox", pod.manifest.name):
            answer = await pod.unbroken(
                pod.runtime.run_pod_sandbox(
                    cri.RunPodSandboxRequest(
                        config=config, runtime_handler=translate.runtime_handler(pod.manifest)
                    )
                )
            )
    except (PodwrightError, OSError) as error:
        if isinstance(error, Failure):
            failure: Failure = error
        elif isinstance(error, OSError):
            failure = SandboxConfigError(str(error))
        else:
            failure = SandboxError(words.rpc(error))
        pod.recorder.warning("FailedCreatePodSandBox", "", failure.message)
        raise failure from error
    pod.sandbox_config, pod.sandbox_resources = config, config.linux.resources
    status = await pod.runtime.pod_sandbox_status(
        cri.PodSandboxStatusRequest(pod_sandbox_id=answer.pod_sandbox_id)
    )
    update_facts(pod, Seen(sandboxes=(status.status,)))
    return answer.pod_sandbox_id


def update_facts(pod: PodContext, seen: Seen) -> None:
    """Note the pod's addresses: the sandbox's, or the node's on its network."""
    ips = pod.node.ips if pod.manifest.spec.hostNetwork else seen.ips()
    if ips and ips != pod.facts.ips:
        pod.facts = PodFacts(
            ips=tuple(ips),
            user_ids=pod.facts.user_ids,
            source=pod.facts.source,
            seen_at=pod.facts.seen_at,
        )


async def _image_volumes(pod: PodContext) -> None:
    missing = pull_secrets.missing(pod.manifest)
    if missing:
        pod.recorder.warning(
            "FailedToRetrieveImagePullSecret", "",
            f"Unable to retrieve some image pull secrets ({', '.join(missing)});"
            " attempting to pull the image may not succeed.",
        )  # fmt: skip
    assert pod.sandbox_config is not None
    for volume in pod.manifest.spec.volumes or []:
        if volume.image is None:
            continue
        wanted = Wanted(volume.image.reference or "", volume.image.pullPolicy or "IfNotPresent", "")
        try:
            image = await pod.images.ensure(pod.manifest, wanted, pod.sandbox_config)
        except ImageError as error:
            # The containers that mount it fail of it, each in its turn.
            pod.volume_images.pop(volume.name, None)
            pod.volume_faults[volume.name] = error
            continue
        pod.volume_images[volume.name] = image.id
        pod.volume_faults.pop(volume.name, None)


async def _start(
    pod: PodContext, name: str, seen: Seen, sandbox_id: str, done: Round, tell: Callable[[], None]
) -> bool:
    container: AnyContainer | None = pod.manifest.container(name)
    assert container is not None, f"nothing but the manifest's containers is started: {name}"
    try:
        await starting.start(pod, container, seen, sandbox_id, tell)
    except Failure as error:
        pod.waiting[name] = Waiting(error.reason, error.message)
        left = starting.backoff_left(pod, container, seen)
        crashed = error.reason == starting.CRASH_LOOP
        done.retry(left if crashed else ERROR_PAUSE)
        tell()
        return False
    pod.waiting.pop(name, None)
    done.changed = True
    tell()
    return True
