"""How a pod went: what is left to say when all of its containers have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwright.kube.state.pod_state import SeenContainer

if TYPE_CHECKING:
    from podwright.kube.life.worker import PodWorker
    from podwright.kube.models import AnyContainer


@dataclass(frozen=True, slots=True)
class ContainerOutcome:
    name: str
    init: bool
    id: str
    """Of the last attempt; "" when it was never made."""
    exit_code: int | None
    """Of the last attempt; None while it runs, or when it never ran."""
    reason: str
    message: str
    """Its termination message, or the runtime's words about why it did not start."""
    restarts: int
    seconds: float
    """How long the last attempt ran."""
    decides: bool = True
    """Its exit code counts for the pod's: not that of sidecars, which are stopped at the end, nor that of
    ephemeral containers."""


@dataclass(frozen=True, slots=True)
class PodOutcome:
    name: str
    namespace: str
    uid: str
    sandbox_id: str
    """ "" when there was none."""
    ips: tuple[str, ...]
    containers: tuple[ContainerOutcome, ...]
    error: str = ""
    """Why the pod could not run, or was ended before its time; empty otherwise."""

    @property
    def exit_code(self) -> int:
        """The first exit code that is not 0 and counts, in the manifest's order; 1 when there is only an
        error."""
        codes = [one.exit_code for one in self.containers if one.exit_code and one.decides]
        return codes[0] if codes else int(bool(self.error))


def of(worker: PodWorker, *, stopped: bool, fault: str) -> PodOutcome:
    """How the pod of `worker` went. `fault`: what kept it from starting, if it is given up for that."""
    manifest, seen = worker.manifest, worker.seen
    initial = {one.name for one in manifest.init_containers}
    containers = tuple(_container(worker, one, init=one.name in initial) for one in manifest.all_containers())
    return PodOutcome(
        name=manifest.name,
        namespace=manifest.namespace,
        uid=manifest.uid,
        sandbox_id=seen.sandboxes[0].id if seen.sandboxes else "",
        ips=worker.pod.facts.ips,
        containers=containers,
        error=_error(worker, containers, stopped, fault),
    )


def _error(worker: PodWorker, containers: tuple[ContainerOutcome, ...], stopped: bool, fault: str) -> str:
    status, manifest = worker.status, worker.manifest
    if status.reason:
        return f"{status.reason}: {status.message}" if status.message else status.reason
    if worker.deleting:
        return _unstarted(worker) or ("" if stopped and worker.seen.sandboxes else fault)
    for one in containers:
        container = manifest.container(one.name)
        sidecar = container is not None and manifest.is_sidecar(container)
        if one.init and one.exit_code and not sidecar:
            return f"init container {one.name!r} failed with exit code {one.exit_code}"
    return ""


def _unstarted(worker: PodWorker) -> str:
    """Why a container was never made."""
    for name, waiting in worker.pod.waiting.items():
        if worker.seen.container(name) is None:
            return f"container {name!r}: {waiting.reason}: {waiting.message}"
    return ""


def _container(worker: PodWorker, container: AnyContainer, *, init: bool) -> ContainerOutcome:
    newest, waiting = worker.seen.container(container.name), worker.pod.waiting.get(container.name)
    plain = any(container is one for one in worker.manifest.containers)
    decides = plain or (init and not worker.manifest.is_sidecar(container))
    if newest is None:
        reason = waiting.reason if waiting else ""
        return ContainerOutcome(container.name, init, "", None, reason, "", 0, 0.0, decides)
    status = newest.status
    unstarted = not newest.exited and not newest.running
    return ContainerOutcome(
        name=container.name,
        init=init,
        id=newest.id,
        exit_code=status.exit_code if newest.exited else 128 if unstarted and waiting else None,
        reason=status.reason if newest.exited else "StartError" if unstarted and waiting else "",
        message=worker.pod.messages.get(newest.id)
        or status.message
        or (waiting.message if unstarted and waiting else ""),
        restarts=newest.attempt,
        seconds=_ran(newest),
        decides=decides,
    )


def _ran(container: SeenContainer) -> float:
    """Seconds between start and end."""
    status = container.status
    return max(0, status.finished_at - status.started_at) / 1e9 if status.started_at else 0.0
