"""The rules of containers: create, start, remove, update, exec, status, list. Stopping is in `stopping`."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import signal
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from functools import partial

from podwright.core import validate
from podwright.core.creations import Creation
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.states import ContainerEvent, ContainerState, SandboxState
from podwright.core.stopping import end, stop
from podwright.core.undo import unwind
from podwright.core.views import (
    HIDDEN_CONTAINER,
    container_state,
    container_status,
    labels_match,
)
from podwright.core.words import json_texts
from podwright.engines.base import Exit
from podwright.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from podwright.spec.resources import merge
from podwright.spec.signals import effective_stop_signal
from podwright.wire import cri_pb2 as cri

EXEC_LIMIT = 16 << 20
"""Bytes of each stream that ExecSync keeps, as the peers do."""
START_ERROR_CODE = 128
LIVING = (ContainerState.CREATED, ContainerState.STARTING, ContainerState.RUNNING)

log = logging.getLogger(__name__)


def container_name(metadata: cri.ContainerMetadata, sandbox: cri.PodSandboxMetadata) -> str:
    return f"{metadata.name}_{sandbox.name}_{sandbox.namespace}_{sandbox.uid}_{metadata.attempt}"


class Containers:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    # Creating

    async def create(self, request: cri.CreateContainerRequest) -> str:
        ground = self._ground
        sandbox = ground.records.sandboxes.get(request.pod_sandbox_id)
        if not request.HasField("config"):
            raise InvalidArgument("config", "is required")
        config = request.config
        validate.container_config(config)
        name = container_name(config.metadata, sandbox.config.metadata)
        key = request.SerializeToString(deterministic=True)
        if creation := ground.creations.get(name):
            return await ground.creations.join(name, creation, key)
        image = await ground.engine.images.find(config.image.image)
        if image is None:
            raise NotFound(f"config.image.image: no image {config.image.image!r} is here; pull it first")
        stop_signal, _, _ = effective_stop_signal(config.stop_signal, image.stop_signal)
        _require_ready(sandbox)
        # From here to the reservation nothing awaits: of two requests the first gets the name.
        if creation := ground.creations.get(name):
            return await ground.creations.join(name, creation, key)
        if name in ground.records.names:
            raise AlreadyExists(f"the name {name!r} is taken by container {ground.records.names[name]}")
        record = ContainerRecord(
            id=ground.engine.new_id(),
            name=name,
            sandbox=sandbox,
            config_wire=config.SerializeToString(),
            image=image,
            log_path=_log_path(sandbox.config, config),
            stop_signal=stop_signal,
            target=self._target(sandbox, config),
            created_at=ground.clock.now(),
            resources_wire=config.linux.resources.SerializeToString(),
        )
        ground.records.add_container(record)
        task = ground.start(self._create(record))
        sandbox.creating.add(task)
        task.add_done_callback(sandbox.creating.discard)
        return await ground.creations.begin(
            name, Creation(key, task, partial(self._claim, record), partial(self.undo_creation, record))
        )

    async def _create(self, record: ContainerRecord) -> str:
        undo = AsyncExitStack()
        bound = self._ground.config.create_timeout
        try:
            async with self._ground.clock.timeout(bound):
                record.facts = await self._ground.engine.create_container(record.seen_by_engine(), undo)
                _require_ready(record.sandbox)
        except BaseException as error:
            if await unwind(undo, f"container {record.id}"):
                self._ground.records.drop(record)
            else:
                # Unseen; RemovePodSandbox or the next start removes it.
                self._ground.step_container(record, ContainerEvent.REMOVE)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"container {record.name}: not created after {bound:g} s") from error
            raise
        undo.pop_all()
        return record.id

    def _claim(self, record: ContainerRecord) -> None:
        if record.state is ContainerState.CREATING:
            self._ground.step_container(record, ContainerEvent.CREATED)
            self._ground.tell(cri.CONTAINER_CREATED_EVENT, record)

    async def drop_unclaimed(self, sandbox: SandboxRecord) -> None:
        """Remove the containers of `sandbox` that are made, but that nobody has claimed yet."""
        for record in list(sandbox.containers.values()):
            if record.state is ContainerState.CREATING:
                self._ground.creations.forget(record.name)
                await self.undo_creation(record)

    async def undo_creation(self, record: ContainerRecord) -> None:
        """Remove everything of a container that nobody was given."""
        async with record.lock:
            if record.id in self._ground.records.containers:  # a stop may have met the end of its parking
                await self._ground.engine.remove_container(record.seen_by_engine())
                self._ground.records.drop(record)

    def _target(self, sandbox: SandboxRecord, config: cri.ContainerConfig) -> ContainerRecord | None:
        options = config.linux.security_context.namespace_options
        if options.pid != cri.TARGET:
            return None
        field = "config.linux.security_context.namespace_options.target_id"
        target = self._ground.records.containers.find(options.target_id) if options.target_id else None
        if target is None or target.state in HIDDEN_CONTAINER:
            raise InvalidArgument(field, f"no container has the id {options.target_id!r}")
        if target.sandbox is not sandbox:
            raise InvalidArgument(field, f"container {target.id} is in another pod")
        _require_running(target)
        return target

    # Starting and ending

    async def start(self, id: str) -> None:
        await self._ground.detached(self._start(self.shown(id)))

    async def _start(self, record: ContainerRecord) -> None:
        async with record.lock:
            _require_ready(record.sandbox)
            if record.target is not None:
                _require_running(record.target)
            self._ground.step_container(record, ContainerEvent.START)
            try:
                await self._ground.engine.start_container(record.seen_by_engine())
            except Exception as error:
                self._start_failed(record, str(error))
                await self._end_unstarted(record)
                raise
            if record.state is ContainerState.STARTING:
                record.started_at = self._ground.clock.now()
                self._ground.step_container(record, ContainerEvent.STARTED)
                self._ground.tell(cri.CONTAINER_STARTED_EVENT, record)

    def _start_failed(self, record: ContainerRecord, message: str) -> None:
        record.exit_code, record.reason, record.message = START_ERROR_CODE, "StartError", message
        record.started_at, record.finished_at = 0, self._ground.clock.now()
        if record.state is ContainerState.STARTING:
            self._ground.step_container(record, ContainerEvent.EXIT)
        else:
            self._ground.records.save(record)
        self._ground.tell(cri.CONTAINER_STOPPED_EVENT, record)

    async def _end_unstarted(self, record: ContainerRecord) -> None:
        """The process of a start that failed may still wait for it: nobody would ever end that otherwise."""
        try:
            await self._ground.engine.signal_container(record.seen_by_engine(), signal.SIGKILL)
        except Exception as error:
            log.warning("container %s: ending it after its start failed: %s", record.id, error)

    def exited(self, record: ContainerRecord, exit: Exit) -> None:
        """The engine has seen its end."""
        if record.state not in LIVING:
            return
        if record.state is ContainerState.RUNNING:
            # A short program may have ended before the runtime told that it started.
            record.started_at = min(record.started_at, exit.finished_at)
        elif record.state is ContainerState.STARTING:
            # Whoever hears of its start is shown a container that runs, however short that was.
            record.started_at = exit.finished_at
            self._ground.step_container(record, ContainerEvent.STARTED)
            self._ground.tell(cri.CONTAINER_STARTED_EVENT, record)
        record.exit_code, record.finished_at = exit.code, exit.finished_at
        record.reason = "OOMKilled" if exit.oom_killed else "Completed" if exit.code == 0 else "Error"
        self._ground.step_container(record, ContainerEvent.EXIT)
        self._ground.tell(cri.CONTAINER_STOPPED_EVENT, record)

    def vanished(self, record: ContainerRecord) -> None:
        """Nothing is left that could tell how it ended."""
        if record.state not in LIVING:
            return  # its end was reported meanwhile
        record.exit_code, record.reason, record.finished_at = 255, "Unknown", self._ground.clock.now()
        record.message = "the container vanished while podwright was not running"
        self._ground.step_container(record, ContainerEvent.EXIT)
        self._ground.tell(cri.CONTAINER_STOPPED_EVENT, record)

    async def stop(self, id: str, timeout: int) -> None:
        record = self._ground.records.containers.find(id)
        if record is not None and record.state not in HIDDEN_CONTAINER:
            await stop(self._ground, record, timeout)

    async def end_all(self, sandbox: SandboxRecord) -> None:
        """SIGKILL to every container of `sandbox`, and wait until all have ended."""
        living = [record for record in sandbox.containers.values() if record.state in LIVING]
        if living:
            results = await asyncio.gather(*(self._end(record) for record in living), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _end(self, record: ContainerRecord) -> None:
        async with record.lock:
            await end(self._ground, record)

    async def remove(self, id: str) -> None:
        record = self._ground.records.containers.find(id)
        if record is not None and record.state not in HIDDEN_CONTAINER:
            await self._ground.detached(self.finish_removal(record))

    async def finish_removal(self, record: ContainerRecord) -> None:
        """End it if it runs, and remove it; continues a removal cut short."""
        async with record.lock:
            if record.id not in self._ground.records.containers:
                return  # another call has just removed it
            if record.state is ContainerState.RUNNING:
                await end(self._ground, record)
            self._ground.step_container(record, ContainerEvent.REMOVE)
            await self._ground.engine.remove_container(record.seen_by_engine())
            self._ground.records.drop(record)
            record.exited.set()
            self._ground.tell(cri.CONTAINER_DELETED_EVENT, record)

    # What can be done to one that exists

    async def update(self, request: cri.UpdateContainerResourcesRequest) -> None:
        record = self.shown(request.container_id)
        if request.HasField("windows"):
            raise InvalidArgument("windows", f"container {record.id} is a Linux container")
        if not request.HasField("linux"):
            raise InvalidArgument("linux", "is required")
        await self._ground.detached(self._update(record, request.linux))

    async def _update(self, record: ContainerRecord, change: cri.LinuxContainerResources) -> None:
        async with record.lock:
            if record.state is ContainerState.REMOVING:
                raise FailedPrecondition(f"container {record.id} is being removed")
            before = record.resources
            record.resources = merge(before, change)
            self._ground.records.save(record)  # first what shall hold, then the act, so that a crash keeps it
            if record.state is ContainerState.EXITED:
                return
            try:
                await self._ground.engine.update_container(record.seen_by_engine(), record.resources)
            except BaseException:
                record.resources = before
                self._ground.records.save(record)
                await self._restore(record)
                raise

    async def _restore(self, record: ContainerRecord) -> None:
        # A runtime writes one file after the other: those before the refused one hold the new values.
        try:
            await self._ground.engine.update_container(record.seen_by_engine(), record.resources)
        except Exception as error:
            log.warning("container %s: its former limits could not be written again: %s", record.id, error)

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        record = self.shown(request.container_id)
        _require_running(record)
        if not request.cmd:
            raise InvalidArgument("cmd", "no command specified")
        if request.timeout < 0:
            raise InvalidArgument("timeout", f"{request.timeout} s is negative")
        result = await self._ground.engine.exec_sync(
            record.seen_by_engine(), list(request.cmd), float(request.timeout) or None, EXEC_LIMIT
        )
        return cri.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.code)

    async def reopen_log(self, id: str) -> None:
        record = self.shown(id)
        _require_running(record)
        if record.log_path:
            await self._ground.engine.reopen_log(record.seen_by_engine())

    # Looking

    def shown(self, id: str) -> ContainerRecord:
        record = self._ground.records.containers.get(id)
        if record.state in HIDDEN_CONTAINER:
            raise NotFound(f"no container has the id {id!r}")
        return record

    async def status(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        record = self.shown(request.container_id)
        response = cri.ContainerStatusResponse(status=container_status(record))
        if request.verbose:
            info = await self._ground.engine.container_info(record.seen_by_engine())
            response.info.update(json_texts({"info": {"sandboxID": record.sandbox.id, **info}}))
        return response

    async def wait(self, id: str) -> cri.ContainerStatus:
        """Its status once it has exited (or is being removed)."""
        record = self.shown(id)
        await record.exited.wait()
        return container_status(record)

    def list(self, filter: cri.ContainerFilter) -> Iterator[ContainerRecord]:
        """The records a list shows. InvalidArgument when a prefix in the filter is ambiguous."""
        records = self._ground.records
        candidates: Iterable[ContainerRecord] = records.containers
        if filter.id:
            found = records.containers.find(filter.id)
            candidates = [found] if found is not None else []
        if filter.pod_sandbox_id:
            sandbox = records.sandboxes.find(filter.pod_sandbox_id)
            members = sandbox.containers if sandbox is not None else {}
            candidates = [x for x in candidates if x.id in members] if filter.id else list(members.values())
        state = filter.state.state if filter.HasField("state") else None
        selector = dict(filter.label_selector)
        return (
            record
            for record in candidates
            if record.state is not ContainerState.CREATING
            and (state is None or container_state(record) == state)
            and (not selector or labels_match(record.labels, selector))
        )


def _log_path(sandbox: cri.PodSandboxConfig, config: cri.ContainerConfig) -> str:
    # Only both together make a log; with one missing the output is discarded.
    if not sandbox.log_directory or not config.log_path:
        return ""
    return posixpath.join(sandbox.log_directory, config.log_path)


def _require_ready(sandbox: SandboxRecord) -> None:
    if sandbox.state is not SandboxState.READY:
        raise FailedPrecondition(f"pod sandbox {sandbox.id} is not ready: it is {sandbox.state.value}")


def _require_running(record: ContainerRecord) -> None:
    if record.state is not ContainerState.RUNNING:
        raise FailedPrecondition(f"container {record.id} is not running: it is {record.state.value}")
