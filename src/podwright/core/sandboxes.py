"""The rules of pod sandboxes: run, stop, remove, status, list. What an update does is in `updates`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from podwright.core import validate
from podwright.core.containers import Containers
from podwright.core.creations import Making
from podwright.core.ground import Ground
from podwright.core.records import SandboxRecord
from podwright.core.states import SandboxEvent, SandboxState
from podwright.core.updates import update_sandbox
from podwright.core.views import (
    HIDDEN_SANDBOX,
    container_status,
    labels_match,
    sandbox_states,
    sandbox_status,
    shown_containers,
)
from podwright.core.words import as_asked, json_texts
from podwright.engines.base import Json
from podwright.errors import AlreadyExists, InvalidArgument, NotFound
from podwright.steps import note
from podwright.wire import cri_pb2 as cri


def sandbox_name(metadata: cri.PodSandboxMetadata) -> str:
    """The key that must be unique: two sandboxes with the same one cannot exist at once."""
    return f"{metadata.name}_{metadata.namespace}_{metadata.uid}_{metadata.attempt}"


def lose(ground: Ground, record: SandboxRecord) -> None:
    if record.state is SandboxState.CREATING:
        record.lost = True  # who claims it learns it then
    elif record.state is SandboxState.READY:
        record.lost = True
        ground.step_sandbox(record, SandboxEvent.LOSE, happened=True)
        ground.tell(cri.CONTAINER_STOPPED_EVENT, record)


class SandboxMaking(Making):
    kind = "pod sandbox"
    record: SandboxRecord

    def __init__(self, ground: Ground, record: SandboxRecord) -> None:
        super().__init__(ground.records)
        self._ground = ground
        self.record = record

    async def make(self, undo: AsyncExitStack) -> None:
        record = self.record
        record.facts = await self._ground.engine.create_sandbox(record.seen_by_engine(), undo)

    async def unmake(self) -> None:
        await self._ground.engine.stop_sandbox(self.record.seen_by_engine())
        await self._ground.engine.remove_sandbox(self.record.seen_by_engine())

    def claim(self) -> None:
        self._ground.step_sandbox(self.record, SandboxEvent.CREATED)
        self._ground.tell(cri.CONTAINER_CREATED_EVENT, self.record)
        self._ground.tell(cri.CONTAINER_STARTED_EVENT, self.record)
        if self.record.lost:
            lose(self._ground, self.record)

    def keep(self, why: str) -> None:
        """Shown as not ready, with its name, so that StopPodSandbox and RemovePodSandbox can finish it."""
        self.record.lost = True
        self._ground.step_sandbox(self.record, SandboxEvent.LOSE, happened=True)
        self._ground.tell(cri.CONTAINER_CREATED_EVENT, self.record)
        self._ground.tell(cri.CONTAINER_STOPPED_EVENT, self.record)


class Sandboxes:
    def __init__(self, ground: Ground, containers: Containers) -> None:
        self._ground = ground
        self._containers = containers

    async def run(self, request: cri.RunPodSandboxRequest) -> str:
        if not request.HasField("config"):
            raise InvalidArgument("config", "is required")
        validate.sandbox_config(request.config)
        self._ground.engine.check_handler(request.runtime_handler)
        name = sandbox_name(request.config.metadata)
        key = request.SerializeToString(deterministic=True)
        creations, records = self._ground.creations, self._ground.records
        if id := await creations.join(name, key):
            return id
        if name in records.names:
            raise AlreadyExists(f"the name {name!r} is taken by pod sandbox {records.names[name]}")
        record = SandboxRecord(
            self._ground.engine.new_id(),
            name,
            request.runtime_handler,
            request.config.SerializeToString(),
            created_at=self._ground.clock.now(),
        )
        records.add_sandbox(record)
        note(pod_sandbox_id=record.id)
        return await creations.begin(SandboxMaking(self._ground, record), key)

    async def stop(self, id: str) -> None:
        record = self._ground.records.sandboxes.find(id)
        if record is not None and record.state not in HIDDEN_SANDBOX:
            await self._ground.detached(self._stop(record))

    async def _stop(self, record: SandboxRecord) -> None:
        async with record.lock:
            await self.stop_locked(record)

    async def stop_locked(self, record: SandboxRecord) -> None:
        if record.state in (SandboxState.STOPPED, SandboxState.REMOVING):
            return
        self._ground.step_sandbox(record, SandboxEvent.STOP)
        await self._containers.revoke_creations(record)
        await self._containers.end_all(record)
        await self._ground.engine.stop_sandbox(record.seen_by_engine())
        self._ground.step_sandbox(record, SandboxEvent.STOPPED)
        if not record.lost:  # that was told when it happened
            self._ground.tell(cri.CONTAINER_STOPPED_EVENT, record)

    async def remove(self, id: str) -> None:
        record = self._ground.records.sandboxes.find(id)
        if record is not None and record.state not in HIDDEN_SANDBOX:
            await self._ground.detached(self.finish_removal(record))

    async def finish_removal(self, record: SandboxRecord) -> None:
        """Stop it if it is not stopped, remove its containers and it; continues a removal cut short."""
        async with record.lock:
            if record.id not in self._ground.records.sandboxes:
                return  # another call has just removed it
            await self.stop_locked(record)
            for container in list(record.containers.values()):
                await self._containers.finish_removal(container)
            self._ground.step_sandbox(record, SandboxEvent.REMOVE)
            await self._ground.engine.remove_sandbox(record.seen_by_engine())
            self._ground.records.drop(record)
            self._ground.tell(cri.CONTAINER_DELETED_EVENT, record)

    def lose(self, record: SandboxRecord) -> None:
        """Its pause process or its namespaces are gone: it takes no more containers."""
        lose(self._ground, record)

    async def update(self, request: cri.UpdatePodSandboxResourcesRequest) -> None:
        await update_sandbox(self._ground, self.shown(request.pod_sandbox_id), request)

    def shown(self, id: str) -> SandboxRecord:
        record = self._ground.records.sandboxes.get(id)
        if record.state in HIDDEN_SANDBOX:
            raise NotFound(f"no pod sandbox has the id {id!r}")
        return record

    async def status(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        record = self.shown(request.pod_sandbox_id)
        response = cri.PodSandboxStatusResponse(
            status=sandbox_status(record),
            containers_statuses=[container_status(each) for each in shown_containers(record)],
            timestamp=self._ground.clock.now(),
        )
        if request.verbose:
            info = await self._ground.engine.sandbox_info(record.seen_by_engine())
            shown = {**info, **_updated(record), "config": as_asked(record.config)}
            response.info.update(json_texts({"info": shown}))
        return response

    def list(self, filter: cri.PodSandboxFilter) -> Sequence[SandboxRecord]:
        """The records a list shows. InvalidArgument when the id in the filter is ambiguous."""
        candidates: Iterable[SandboxRecord] = self._ground.records.sandboxes
        if filter.id:
            found = self._ground.records.sandboxes.find(filter.id)
            candidates = [found] if found is not None else []
        states, selector = sandbox_states(filter), dict(filter.label_selector)
        return [
            record
            for record in candidates
            if record.state in states and (not selector or labels_match(record.labels, selector))
        ]


def _updated(record: SandboxRecord) -> dict[str, Json]:
    """What the pod as a whole has now: what it began with, until an update tells something else."""
    linux = record.config.linux
    return {
        "overhead": as_asked(record.overhead or linux.overhead),
        "resources": as_asked(record.resources or linux.resources),
    }
