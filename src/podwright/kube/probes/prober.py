"""The probes of one pod: who asks which container, from its start to its end."""

from __future__ import annotations

import asyncio
from functools import partial

from podwright.api import Cri
from podwright.clock import Clock
from podwright.kube.life.events import Recorder
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, Probe
from podwright.kube.node import Node, PodFacts
from podwright.kube.probes.answers import Answer
from podwright.kube.probes.asking import ask
from podwright.kube.probes.results import Kind, Results
from podwright.kube.probes.worker import Worker
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.steps import step

UNTIL_DELETED = (Kind.STARTUP, Kind.LIVENESS)
"""Nobody is restarted any more when the pod is being deleted; readiness is asked to the end."""


class Prober:
    """`sync` with each look at the pod, `close` at the end."""

    def __init__(
        self, manifest: Manifest, runtime: Cri, node: Node, clock: Clock, results: Results, recorder: Recorder
    ) -> None:
        self.manifest = manifest
        """May be replaced; containers that run keep the probes they started with."""
        self._runtime = runtime
        self._node = node
        self._clock = clock
        self._results = results
        self._recorder = recorder
        self._facts = PodFacts()
        self._tasks: dict[tuple[Kind, str], asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._started: dict[str, asyncio.Event] = {}
        self._known: set[str] | None = None
        """Ids of the containers of the last look; None before the first."""

    def sync(self, seen: Seen, facts: PodFacts, *, deleting: bool = False) -> None:
        """Begin to ask the containers that run now, and no longer those that do not. To be called from the
        event loop; waits for nothing."""
        self._facts = facts
        running = self._newest_running(seen)
        kinds = [kind for kind in Kind if not (deleting and kind in UNTIL_DELETED)]
        for kind, container_id in list(self._tasks):
            if container_id not in running or kind not in kinds:
                self._stop(kind, container_id)
        self._results.keep(running.keys())
        for container_id in [one for one in self._started if one not in running]:
            del self._started[container_id]
        if not deleting:
            for container_id, (container, one) in running.items():
                if container_id not in self._started:
                    self._begin(container, one)
        self._known = {one.id for one in seen.containers}

    async def close(self) -> None:
        """Nothing is asked any more; what was under way has ended when this returns."""
        for kind, container_id in list(self._tasks):
            self._stop(kind, container_id)
        if self._ending:
            await asyncio.wait(self._ending)

    def _newest_running(self, seen: Seen) -> dict[str, tuple[AnyContainer, SeenContainer]]:
        found = {}
        for container in [*self.manifest.sidecars, *self.manifest.containers]:
            newest = seen.container(container.name)
            if newest is not None and newest.running:
                found[newest.id] = (container, newest)
        return found

    def _begin(self, container: AnyContainer, one: SeenContainer) -> None:
        started = self._started[one.id] = asyncio.Event()
        if container.startupProbe is None:
            started.set()
        age = 0.0
        if self._known is None:
            # It ran before we came; otherwise its start has just been seen, whatever its clock says.
            age = max(0.0, (self._clock.now() - one.status.started_at) / 1e9)
        for kind, probe in _probes(container):
            worker = Worker(
                kind=kind, probe=probe, container_id=one.id, place=self.manifest.place(container),
                ask=partial(self._ask, kind, probe, container, one.id), clock=self._clock,
                results=self._results, recorder=self._recorder, started=started, age=age,
            )  # fmt: skip
            # At once, not when the task has its turn: who reads the results now must see that it is asked.
            worker.begin()
            task = asyncio.get_running_loop().create_task(worker.run())
            self._tasks[kind, one.id] = task

    def _stop(self, kind: Kind, container_id: str) -> None:
        task = self._tasks.pop((kind, container_id))
        self._results.forget(kind, container_id)
        if not task.done():
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _ask(self, kind: Kind, probe: Probe, container: AnyContainer, container_id: str) -> Answer:
        addresses = self._facts.ips or (self._node.ips if self.manifest.spec.hostNetwork else ())
        with step(f"{kind.value.lower()} probe", f"{self.manifest.name}/{container.name}"):
            return await ask(
                probe, container, container_id,
                host=addresses[0] if addresses else "", runtime=self._runtime, clock=self._clock,
            )  # fmt: skip


def _probes(container: AnyContainer) -> list[tuple[Kind, Probe]]:
    probes = (
        (Kind.STARTUP, container.startupProbe),
        (Kind.LIVENESS, container.livenessProbe),
        (Kind.READINESS, container.readinessProbe),
    )
    return [(kind, probe) for kind, probe in probes if probe is not None]
