"""Bringing one container up, in the kubelet's order: image, configuration, create, start, the legacy symlink
to its log, the post-start hook. Each way to fail has its reason and its event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from podwright.errors import PodwrightError
from podwright.kube import volumes
from podwright.kube.failures import (
    ConfigError,
    CreateError,
    Failure,
    HookError,
    ImageError,
    StartError,
)
from podwright.kube.files import log_links
from podwright.kube.life import deletion, lifecycle
from podwright.kube.life.context import PodContext
from podwright.kube.life.images import Wanted
from podwright.kube.models import AnyContainer, ResourceRequirements
from podwright.kube.requests import translate
from podwright.kube.rules import restarts
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

CRASH_LOOP = "CrashLoopBackOff"


async def start(
    pod: PodContext, container: AnyContainer, seen: Seen, sandbox_id: str, tell: Callable[[], None]
) -> None:
    """Start the next attempt of `container`, unless its back-off forbids it. Raises Failure with the reason
    of its waiting state; `tell` is called when the container runs, before its hook."""
    _obey_backoff(pod, container, seen)
    place = pod.manifest.place(container)
    with step("start container", f"{pod.manifest.name}/{container.name}"):
        _check_image_volumes(pod, container)
        image = await _image(pod, container)
        attempt = await asyncio.to_thread(next_attempt, pod, container.name, seen)
        try:
            config = await _config(pod, container, image, attempt, seen)
        except (Failure, OSError) as error:
            message = error.message if isinstance(error, Failure) else str(error)
            pod.recorder.warning("Failed", place, f"Error: {message}")
            raise error if isinstance(error, Failure) else ConfigError(message) from error
        container_id = await _create(pod, config, sandbox_id, place)
        pod.actuated[container_id] = container.resources or ResourceRequirements()
        await _start(pod, container, container_id, attempt, place)
        tell()
        if container.lifecycle is not None and container.lifecycle.postStart is not None:
            await _run_hook(pod, container, container_id, place)


def backoff_left(pod: PodContext, container: AnyContainer, seen: Seen) -> float:
    """Seconds until the next attempt of a container that has ended may be started."""
    last = _last_end(container, seen)
    if last is None:
        return 0.0
    return pod.crashes.remaining(pod.crash_key(container), pod.ended_at(last))


def next_attempt(pod: PodContext, name: str, seen: Seen) -> int:
    """The number of the container's next attempt, which is its restart count. Blocks: where the runtime has
    forgotten the container, its log files remember."""
    return restarts.count(seen.container(name), max(pod.directory.kept_attempts(name), default=None))


def _last_end(container: AnyContainer, seen: Seen) -> SeenContainer | None:
    """The newest attempt that had ended before this round. One that the round itself has stopped (a probe
    failed, the manifest changed) is no reason to wait; those before it are."""
    return next((one for one in seen.attempts(container.name) if one.exited), None)


def _obey_backoff(pod: PodContext, container: AnyContainer, seen: Seen) -> None:
    last = _last_end(container, seen)
    if last is None:
        return
    key = pod.crash_key(container)
    if backoff_left(pod, container, seen) > 0:
        pod.recorder.warning(
            "BackOff", pod.manifest.place(container),
            f"Back-off restarting failed container {container.name} in pod {pod.title}",
        )  # fmt: skip
        waiting = restarts.crash_loop(pod.manifest, container.name, pod.crashes.get(key))
        raise Failure(waiting.reason, waiting.message)
    pod.crashes.next(key, pod.ended_at(last))


def _check_image_volumes(pod: PodContext, container: AnyContainer) -> None:
    """Each image that is not there is told; the last one is why the container waits."""
    names = [one.name for one in container.volumeMounts or []]
    faults = [pod.volume_faults[name] for name in names if name in pod.volume_faults]
    for fault in faults:
        pod.recorder.warning("Failed", pod.manifest.place(container), f"Error: {fault.reason}")
    if faults:
        raise ImageError(faults[-1].reason, faults[-1].message)


async def _image(pod: PodContext, container: AnyContainer) -> cri.Image:
    place = pod.manifest.place(container)
    wanted = Wanted(container.image or "", container.imagePullPolicy or "IfNotPresent", place)
    assert pod.sandbox_config is not None
    try:
        return await pod.images.ensure(pod.manifest, wanted, pod.sandbox_config)
    except ImageError as error:
        pod.recorder.warning("Failed", place, f"Error: {error.reason}")
        raise


async def _config(
    pod: PodContext, container: AnyContainer, image: cri.Image, attempt: int, seen: Seen
) -> cri.ContainerConfig:
    variables = await asyncio.to_thread(
        translate.environment, pod.manifest, container, pod.node, pod.facts, pod.directory
    )
    mounts = await asyncio.to_thread(
        volumes.container_mounts,
        pod.manifest, container, pod.node, pod.facts, pod.directory, variables,
        images=pod.volume_images, bindings=pod.manifest.bindings,
    )  # fmt: skip
    logs = pod.directory.logs(container.name)
    await asyncio.to_thread(lambda: logs.mkdir(mode=0o755, parents=True, exist_ok=True))
    target = seen.container(getattr(container, "targetContainerName", None) or "")
    return translate.container_config(
        pod.manifest, container, image, pod.node, pod.facts,
        mounts=mounts, environment=variables, attempt=attempt, target_id=target.id if target else "",
    )  # fmt: skip


async def _create(pod: PodContext, config: cri.ContainerConfig, sandbox_id: str, place: str) -> str:
    request = cri.CreateContainerRequest(
        pod_sandbox_id=sandbox_id, config=config, sandbox_config=pod.sandbox_config
    )
    try:
        answer = await pod.unbroken(pod.runtime.create_container(request))
    except PodwrightError as error:
        pod.recorder.warning("Failed", place, f"Error: {error}")
        raise CreateError(str(error)) from error
    pod.recorder.normal("Created", place, "Container created")
    pod.started.add(answer.container_id)
    return answer.container_id


async def _start(
    pod: PodContext, container: AnyContainer, container_id: str, attempt: int, place: str
) -> None:
    try:
        await pod.unbroken(pod.runtime.start_container(cri.StartContainerRequest(container_id=container_id)))
    except PodwrightError as error:
        pod.recorder.warning("Failed", place, f"Error: {error}")
        raise StartError(str(error)) from error
    pod.recorder.normal("Started", place, "Container started")
    if pod.node.legacy_logs is not None:
        log = pod.directory.log(container.name, attempt)
        await asyncio.to_thread(log_links.make, pod.node, pod.manifest, container, container_id, log)


async def _run_hook(pod: PodContext, container: AnyContainer, container_id: str, place: str) -> None:
    assert container.lifecycle is not None and container.lifecycle.postStart is not None
    try:
        with step("post-start hook", container.name):
            await lifecycle.run_handler(
                container.lifecycle.postStart, pod.manifest, container, container_id,
                facts=pod.facts, runtime=pod.runtime, clock=pod.clock,
            )  # fmt: skip
    except Failure as error:
        pod.recorder.warning("FailedPostStartHook", place, "PostStartHook failed")
        await deletion.kill_container(
            pod, container.name, container_id, message="FailedPostStartHook", reason="FailedPostStartHook"
        )
        raise HookError(error.message) from error
