"""The pods there are: what podwright itself has noted of them (`kube.records`), and what the runtime has. Any
process may ask, also when the one that ran a pod has gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.errors import InvalidArgument, NotFound
from podwright.kube.files import termination
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life.events import Event
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import ContainerStatus, Pod, PodStatus
from podwright.kube.node import Node, PodFacts
from podwright.kube.probes.results import Kind, Outcome, Results
from podwright.kube.state import records
from podwright.kube.state.pod_state import Seen
from podwright.kube.state.status import pod_status
from podwright.kube.state.waiting import Waiting
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.models import ContainerState


@dataclass(frozen=True, slots=True)
class KnownPod:
    """One pod."""

    uid: str
    namespace: str
    name: str
    sandboxes: tuple[cri.PodSandbox, ...] = ()
    """Newest first."""
    noted: Pod | None = None
    """As it was last applied; None when podwright does not keep it."""
    directory: PodDirectory | None = None
    changed: float = 0.0
    """When it was last noted or made, in seconds since the epoch."""

    @property
    def title(self) -> str:
        return self.name if self.namespace in ("", "default") else f"{self.namespace}/{self.name}"

    @property
    def is_up(self) -> bool:
        return any(one.state == cri.SANDBOX_READY for one in self.sandboxes)

    @property
    def recorded(self) -> PodStatus | None:
        """Its last status. Blocks."""
        return records.read_status(self.directory) if self.directory is not None else None

    @property
    def events(self) -> list[Event]:
        """By their first appearance. Blocks."""
        return records.read_events(self.directory) if self.directory is not None else []


def known(root: Path, pod_logs: Path | None, sandboxes: Iterable[cri.PodSandbox] = ()) -> list[KnownPod]:
    """All pods that have records below `root`, or sandboxes; the oldest first. Blocks."""
    by_uid: dict[str, list[cri.PodSandbox]] = {}
    for one in sandboxes:
        by_uid.setdefault(one.metadata.uid or one.id, []).append(one)
    found = []
    for path in sorted((root / "pods").glob("*/pod.json")):
        uid = path.parent.name
        directory = PodDirectory(path.parent, root)
        pod = records.read_manifest(directory)
        if pod is None or pod.metadata is None or pod.metadata.uid != uid:
            continue
        namespace, name = pod.metadata.namespace or "", pod.metadata.name or ""
        directory = PodDirectory.below(root, namespace, name, uid, pod_logs)
        made = tuple(sorted(by_uid.pop(uid, ()), key=lambda one: one.created_at, reverse=True))
        found.append(KnownPod(uid, namespace, name, made, pod, directory, _changed(path)))
    for uid, others in by_uid.items():
        made = tuple(sorted(others, key=lambda one: one.created_at, reverse=True))
        told = made[0].metadata
        found.append(KnownPod(uid, told.namespace, told.name, made, changed=made[0].created_at / 1e9))
    return sorted(found, key=lambda one: one.changed)


def choose(word: str, pods: Sequence[KnownPod]) -> KnownPod:
    """The one that `word` means: an id or uid, a name, NAMESPACE/NAME, or the beginning of an id. Of several
    of one name the one that is up, or else the newest. NotFound; InvalidArgument when several fit."""

    def is_id(pod: KnownPod) -> bool:
        return word == pod.uid or any(word == one.id for one in pod.sandboxes)

    def is_name(pod: KnownPod) -> bool:
        return word in (pod.name, f"{pod.namespace}/{pod.name}")

    def begins(pod: KnownPod) -> bool:
        return pod.uid.startswith(word) or any(one.id.startswith(word) for one in pod.sandboxes)

    for fits in (is_id, is_name, begins):
        named: dict[tuple[str, str], KnownPod] = {}
        for pod in pods if word else ():
            if fits(pod):
                before = named.get((pod.namespace, pod.name))
                if before is None or pod.is_up or not before.is_up:
                    named[pod.namespace, pod.name] = pod
        if len(named) > 1:
            listed = ", ".join(f"{one.namespace}/{one.name} ({one.uid})" for one in named.values())
            raise InvalidArgument("", f"{word!r} fits {len(named)} pods: {listed}")
        if named:
            return next(iter(named.values()))
    raise NotFound(f"no pod has the id or name {word!r}")


def current(pod: KnownPod, seen: Seen, node: Node) -> PodStatus:
    """The pod's status: what was noted, as long as the runtime shows the same; otherwise computed anew from
    what it shows, for who kept the pod may have gone. Blocks."""
    assert pod.noted is not None and pod.directory is not None
    noted = pod.recorded
    if noted is not None and _agrees(noted, seen):
        return noted
    manifest = Manifest(pod.noted, str(pod.directory.manifest))
    return pod_status(
        manifest,
        seen,
        previous=noted,
        waiting=_waiting(noted, seen),
        probes=_probes(noted, seen),
        node=node,
        facts=PodFacts(ips=seen.ips() or (node.ips if manifest.spec.hostNetwork else ())),
        now=time.time_ns(),
        deleting=False,
        messages={
            one.id: termination.read_termination_message(one.status) for one in seen.containers if one.exited
        },
    )


def all_statuses(status: PodStatus | None) -> list[ContainerStatus]:
    """Of init containers, containers and ephemeral ones."""
    if status is None:
        return []
    groups = (status.initContainerStatuses, status.containerStatuses, status.ephemeralContainerStatuses)
    return [one for group in groups for one in group or []]


def _agrees(noted: PodStatus, seen: Seen) -> bool:
    for one in all_statuses(noted):
        newest, state = seen.container(one.name), one.state
        runs = state is not None and state.running is not None
        if newest is None:
            if runs:
                return False
        elif runs != newest.running or ((runs or newest.exited) and not _is(one, newest.id)):
            return False
    return True


def _is(status: ContainerStatus, container_id: str) -> bool:
    """Whether it is told of this attempt, or, where it waits for the next one, of it as the last."""
    said = [status.containerID, *(_ended_id(state) for state in (status.state, status.lastState))]
    return any((one or "").endswith(f"//{container_id}") for one in said)


def _ended_id(state: ContainerState | None) -> str:
    return (state.terminated.containerID or "") if state is not None and state.terminated is not None else ""


def _waiting(noted: PodStatus | None, seen: Seen) -> dict[str, Waiting]:
    found = {}
    for one in all_statuses(noted):
        newest = seen.container(one.name)
        waiting = one.state.waiting if one.state is not None else None
        if waiting is not None and (newest is None or not newest.running):
            found[one.name] = Waiting(waiting.reason or "", waiting.message or "")
    return found


def _probes(noted: PodStatus | None, seen: Seen) -> Results:
    """What was found out of containers that run on."""
    results = Results()
    for one in all_statuses(noted):
        newest = seen.container(one.name)
        if newest is not None and newest.running and _is(one, newest.id):
            results.set(Kind.STARTUP, newest.id, Outcome.SUCCESS if one.started else Outcome.UNKNOWN)
            results.set(Kind.READINESS, newest.id, Outcome.SUCCESS if one.ready else Outcome.FAILURE)
    return results


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # removed at this moment
