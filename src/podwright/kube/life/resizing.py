"""Changing the resources of running containers in place, in the kubelet's order: memory, then cpu; the pod as
a whole grows before its containers and shrinks after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from podwright.kube.files import pod_cgroups
from podwright.kube.life.context import PodContext
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import ResourceRequirements
from podwright.kube.requests.resources import container_resources, sandbox_overhead, sandbox_resources
from podwright.kube.rules.actions import Resize
from podwright.kube.rules.resize import change
from podwright.kube.state.pod_state import Seen
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

CPU = ("cpu_period", "cpu_quota", "cpu_shares")
MEMORY = ("memory_limit_in_bytes", "memory_swap_limit_in_bytes")


async def resize(pod: PodContext, seen: Seen, updates: Sequence[Resize], sandbox_id: str) -> None:
    """Carry out `updates`. Raises what the runtime says; what was carried out by then is not done again, for
    the next round sees it."""
    with step("resize", pod.manifest.name):
        for resource in ("memory", "cpu"):
            some = [one for one in updates if resource in one.resources]
            if some:
                await _resize(pod, seen, some, resource, sandbox_id)


async def _resize(
    pod: PodContext, seen: Seen, updates: Sequence[Resize], resource: str, sandbox_id: str
) -> None:
    wanted = sandbox_resources(pod.manifest)
    steps = list(_steps(resource))
    for field in steps:
        if _more(field, getattr(wanted, field), getattr(_current(pod), field)):
            await _tell_sandbox(pod, sandbox_id, field, wanted)
    for one in updates:
        await _update(pod, seen, one, resource)
    for field in reversed(steps):
        if getattr(wanted, field) != getattr(_current(pod), field):
            await _tell_sandbox(pod, sandbox_id, field, wanted)


def _steps(resource: str) -> Iterator[str]:
    """The fields of a pod, limits before requests: so a growing request never exceeds the limit."""
    if resource == "memory":
        yield "memory_limit_in_bytes"
    else:
        yield from ("cpu_quota", "cpu_shares")


def _more(field: str, new: int, old: int) -> bool:
    return _size(field, new) > _size(field, old)


def _size(field: str, value: int) -> float:
    """No limit is more than any."""
    limited = field == "cpu_shares" or value > 0
    return value if limited else float("inf")


def _current(pod: PodContext) -> cri.LinuxContainerResources:
    if pod.sandbox_resources is None:
        pod.sandbox_resources = cri.LinuxContainerResources()
    return pod.sandbox_resources


async def _tell_sandbox(
    pod: PodContext, sandbox_id: str, field: str, wanted: cri.LinuxContainerResources
) -> None:
    current = _current(pod)
    setattr(current, field, getattr(wanted, field))
    current.cpu_period = wanted.cpu_period
    await asyncio.to_thread(pod_cgroups.update, pod.manifest, pod.node, current)
    await pod.runtime.update_pod_sandbox_resources(
        cri.UpdatePodSandboxResourcesRequest(
            pod_sandbox_id=sandbox_id, overhead=sandbox_overhead(pod.manifest), resources=current
        )
    )


async def _update(pod: PodContext, seen: Seen, update: Resize, resource: str) -> None:
    """Memory goes first: cpu stays as it is meanwhile."""
    container = pod.manifest.container(update.name)
    now = seen.by_id(update.container_id)
    assert container is not None and now is not None
    wanted = container_resources(pod.manifest, container, pod.node)
    if resource == "memory" and "cpu" in update.resources:
        for field in CPU:
            setattr(wanted, field, getattr(now.status.resources.linux, field))
    await pod.runtime.update_container_resources(
        cri.UpdateContainerResourcesRequest(container_id=update.container_id, linux=wanted)
    )
    pod.actuated[update.container_id] = _with(
        pod.actuated[update.container_id], container.resources or ResourceRequirements(), resource
    )


def _with(old: ResourceRequirements, new: ResourceRequirements, resource: str) -> ResourceRequirements:
    """`old` with the amounts that `new` has of one resource."""

    def side(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, Any]:
        kept = {name: value for name, value in (was or {}).items() if name != resource}
        return kept | {name: value for name, value in (now or {}).items() if name == resource}

    return ResourceRequirements(
        limits=side(old.limits, new.limits), requests=side(old.requests, new.requests)
    )


def differs(old: Manifest, new: Manifest) -> bool:
    """Whether a container of `old` has other resources in `new`."""
    before = {one.name: one.resources or ResourceRequirements() for one in old.all_containers()}
    return any(
        bool(change(one, before.get(one.name)).resources) for one in [*new.init_containers, *new.containers]
    )


# What people are told


def summary(manifest: Manifest, generation: int) -> str:
    """The resources of a pod's containers, as the events ResizeStarted and ResizeCompleted have them."""
    tree: dict[str, Any] = {}
    if manifest.init_containers:
        tree["initContainers"] = [_entry(one.name, one.resources) for one in manifest.init_containers]
    tree["containers"] = [_entry(one.name, one.resources) for one in manifest.containers]
    if manifest.spec.resources is not None:
        tree["resources"] = _tree(manifest.spec.resources)
    tree["generation"] = generation
    return msgspec.json.encode(tree).decode()


def _entry(name: str, resources: ResourceRequirements | None) -> dict[str, Any]:
    return {"name": name, "resources": _tree(resources)}


def _tree(resources: ResourceRequirements | None) -> dict[str, Any]:
    sides: Mapping[str, Any] = {
        "limits": getattr(resources, "limits", None), "requests": getattr(resources, "requests", None)
    }  # fmt: skip
    return {
        side: {name: str(value) for name, value in sorted(amounts.items())}
        for side, amounts in sides.items()
        if amounts
    }
