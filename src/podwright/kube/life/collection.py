"""What is left over and goes: attempts that newer ones have replaced, and all of a pod that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from podwright.api import Cri
from podwright.errors import NotFound
from podwright.kube.files import log_links
from podwright.kube.life.context import PodContext
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.wire import cri_pb2 as cri

KEPT = 1
"""Ended attempts of a container that are kept (the kubelet's --maximum-dead-containers-per-container)."""


def superfluous(seen: Seen) -> list[SeenContainer]:
    """Ended attempts beyond the newest KEPT of each container."""
    found = []
    for name in {one.name for one in seen.containers}:
        ended = [one for one in seen.attempts(name) if one.exited]
        found += ended[KEPT:]
    return found


async def collect(pod: PodContext, seen: Seen) -> Seen:
    """Remove what is superfluous, and sandboxes that have gone and hold nothing any more; returns what is
    left. Raises what the runtime says."""
    old = superfluous(seen)
    await remove_containers(pod, old)
    gone = {one.id for one in old}
    left = tuple(one for one in seen.containers if one.id not in gone)
    inhabited = {one.sandbox_id for one in left}
    empty = [one for one in seen.sandboxes[1:] if one.state != cri.SANDBOX_READY and one.id not in inhabited]
    await _remove_sandboxes(pod.runtime, [one.id for one in empty])
    empty_ids = {one.id for one in empty}
    return Seen(tuple(one for one in seen.sandboxes if one.id not in empty_ids), left)


async def remove_all(pod: PodContext, seen: Seen) -> None:
    """Every container of a pod, then its sandboxes. Raises what the runtime says."""
    await remove_containers(pod, reversed(seen.containers))
    await _remove_sandboxes(pod.runtime, [one.id for one in reversed(seen.sandboxes)])


async def remove_containers(
    pod: PodContext, containers: Iterable[SeenContainer], *, keep_logs: bool = False
) -> None:
    """With their logs, once these have been read, unless `keep_logs`."""

    async def remove(one: SeenContainer) -> None:
        if not keep_logs:
            await pod.read_out(one.name, one.attempt)
            await asyncio.to_thread(_remove_logs, pod, one)
        with suppress(NotFound):
            await pod.runtime.remove_container(cri.RemoveContainerRequest(container_id=one.id))

    await asyncio.gather(*(remove(one) for one in containers))


def _remove_logs(pod: PodContext, container: SeenContainer) -> None:
    """The log, the link to it, and what was rotated of it. What cannot be removed goes with the pod."""
    with suppress(OSError):
        log_links.remove(pod.node, pod.manifest, container.name, container.id)
    log = pod.directory.log(container.name, container.attempt)
    for path in log.parent.glob(f"{log.name}*"):
        with suppress(OSError):
            path.unlink()


async def _remove_sandboxes(runtime: Cri, ids: Iterable[str]) -> None:
    async def remove(id: str) -> None:
        with suppress(NotFound):
            await runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=id))

    await asyncio.gather(*(remove(one) for one in ids))
