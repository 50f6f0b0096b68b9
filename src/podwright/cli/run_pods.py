"""The pods of a run as they are at this moment, for the live view and for who has waited in vain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from podwright.cli import pod_view
from podwright.cli.pod_view import Shown
from podwright.kube.life.events import Event
from podwright.kube.life.runner import PodRun, is_ready
from podwright.kube.life.starting import CRASH_LOOP, backoff_left
from podwright.kube.probes.results import Outcome

if TYPE_CHECKING:
    from podwright.kube.life.worker import PodWorker
    from podwright.kube.state.pod_state import SeenContainer

LONGEST = 300
"""Characters that a reason may have in an error."""
POD_FAULTS = ("FailedMount", "FailedCreatePodSandBox")
"""Events of what keeps a pod from having any container."""


def shown(run: PodRun) -> Shown | None:
    """None before anything is known of it."""
    worker = run.worker
    if worker is None:
        return None
    return pod_view.shown(
        worker.manifest,
        worker.status,
        time.time_ns(),
        waiting=worker.pod.waiting,
        again=_again(worker),
        probes=_probes(worker),
        problem=_problem(worker),
        deleting=worker.deleting,
    )


def missing(run: PodRun, wanted: str) -> str:
    """What keeps the pod from being `wanted`, "ready" or "completed"; "" when it is."""
    worker = run.worker
    if worker is None:
        return f"{run.manifest.name} has not begun"
    phase = worker.status.phase or "Pending"
    if phase in ("Succeeded", "Failed") or (wanted == "ready" and is_ready(worker.status)):
        return ""
    found = shown(run)
    assert found is not None
    why = [found.problem] if found.problem else []
    for row in found.rows:
        if row.ready is False or (wanted == "completed" and row.tone in ("good", "busy", "bad")):
            why.append(f"{row.name}: {row.state}" + (f" ({row.note})" if row.note else ""))
    words = [pod_view.fitted(one, LONGEST) for one in why]
    return f"{worker.manifest.name} is {phase}" + (f": {', '.join(words)}" if words else "")


def _again(worker: PodWorker) -> dict[str, float]:
    """Seconds until containers that crashed are started again."""
    found = {}
    for name, waiting in worker.pod.waiting.items():
        container = worker.manifest.container(name)
        if waiting.reason == CRASH_LOOP and container is not None:
            found[name] = backoff_left(worker.pod, container, worker.seen)
    return found


def _probes(worker: PodWorker) -> dict[str, str]:
    """What probes complain of, where they do."""
    complaints: dict[str, Event] = {}
    for event in worker.events:
        if event.reason == "Unhealthy":
            known = complaints.get(event.object)
            if known is None or event.last >= known.last:
                complaints[event.object] = event
    found = {}
    for container in worker.manifest.all_containers():
        told = complaints.get(worker.manifest.place(container))
        newest = worker.seen.container(container.name)
        if told is not None and newest is not None and newest.running and _fails(worker, newest, told):
            found[container.name] = told.message
    return found


def _fails(worker: PodWorker, container: SeenContainer, event: Event) -> bool:
    """Whether the complaint still holds for this attempt."""
    results = worker.pod.results
    outcomes = {
        "Startup": (results.startup(container.id), Outcome.SUCCESS),
        "Readiness": (results.readiness(container.id), Outcome.SUCCESS),
        "Liveness": (results.liveness(container.id), None),
    }
    outcome, well = outcomes.get(event.message.partition(" ")[0], (None, None))
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(container.status.started_at / 1e9))
    if event.last < begun or outcome is None or outcome is well:
        return False
    return well is not None or outcome is Outcome.FAILURE


def _problem(worker: PodWorker) -> str:
    """What keeps the pod as a whole, the newest of it."""
    met = [one.type for one in worker.status.conditions or [] if one.status == "True"]
    if "PodReadyToStartContainers" in met:
        return ""
    found = [event for event in worker.events if event.reason in POD_FAULTS]
    newest = max(found, key=lambda event: event.last, default=None)
    return newest.message if newest is not None else ""
