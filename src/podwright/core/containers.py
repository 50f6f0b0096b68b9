"""The rules of containers: create, start, remove, exec, status, list. Stopping is in `stopping`, a change
of resources in `updates`."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import signal
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from podwright.checkpoints.layout import Checkpoint
from podwright.core import checkpoints, validate
from podwright.core.creations import Making
from podwright.core.ends import LIVING, never_ran, record_exit, started
from podwright.core.ground import Ground
from podwright.core.images import with_volume_images
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.starting import Start
from podwright.core.states import ContainerEvent, ContainerState, SandboxState
from podwright.core.stopping import end, stop
from podwright.core.updates import update_container
from podwright.core.views import (
    HIDDEN_CONTAINER,
    container_states,
    container_status,
    labels_match,
)
from podwright.core.words import as_asked, json_texts
from podwright.engines.base import Exit
from podwright.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from podwright.spec.signals import effective_stop_signal
from podwright.steps import note
from podwright.wire import cri_pb2 as cri

EXEC_LIMIT = 16 << 20
"""Bytes of each stream that ExecSync keeps, as the peers do."""
CREATE_ERROR_CODE = 128

log = logging.getLogger(__name__)


def container_name(metadata: cri.ContainerMetadata, sandbox: cri.PodSandboxMetadata) -> str:
    return f"{metadata.name}_{sandbox.name}_{sandbox.namespace}_{sandbox.uid}_{metadata.attempt}"


class ContainerMaking(Making):
    kind = "container"
    record: ContainerRecord

    def __init__(self, ground: Ground, record: ContainerRecord, checkpoint: Checkpoint | None = None) -> None:
        super().__init__(ground.records)
        self._ground = ground
        self.record = record
        self._checkpoint = checkpoint

    async def make(self, undo: AsyncExitStack) -> None:
        record = self.record
        container = replace(record.seen_by_engine(), checkpoint=self._checkpoint)
        record.facts = await self._ground.engine.create_container(container, undo)
        require_ready(record.sandbox)

    async def unmake(self) -> None:
        await self._ground.engine.remove_container(self.record.seen_by_engine())

    def claim(self) -> None:
        self._ground.step_container(self.record, ContainerEvent.CREATED)
        self._ground.tell(cri.CONTAINER_CREATED_EVENT, self.record)

    def keep(self, why: str) -> None:
        """Shown as one that has ended; RemoveContainer, RemovePodSandbox or the next start removes it."""
        record = self.record
        record.exit_code, record.reason, record.finished_at = (
            CREATE_ERROR_CODE,
            "CreateError",
            self._ground.clock.now(),
        )
        record.message = f"it could not be created, and what there is of it could not be removed: {why}"
        self._ground.step_container(record, ContainerEvent.REMOVE, happened=True)
        record.exited.set()
        self._ground.tell(cri.CONTAINER_CREATED_EVENT, record)
        self._ground.tell(cri.CONTAINER_STOPPED_EVENT, record)


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
        if id := await ground.creations.join(name, key):
            return id
        was_taken = name in ground.records.names
        image, checkpoint = await checkpoints.origin(ground, config.image.image)
        if checkpoint is not None:
            checkpoints.check_mounts(checkpoint, config, image)
        stop_signal, _, _ = effective_stop_signal(config.stop_signal, image.stop_signal)
        config = await with_volume_images(ground.engine.images, config)
        if id := await ground.creations.join(name, key):
            return id
        # From here to the reservation nothing awaits: of two requests the first gets the name.
        require_ready(sandbox)
        if name in ground.records.names:
            if not was_taken and (id := self._made_meanwhile(name, sandbox, config)):
                return id
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
        note(container_id=record.id)
        return await ground.creations.begin(ContainerMaking(ground, record, checkpoint), key)

    def _made_meanwhile(self, name: str, sandbox: SandboxRecord, config: cri.ContainerConfig) -> str:
        """The id of the container that an equal request made while another looked for the image; or ""."""
        record = self._ground.records.containers.find(self._ground.records.names[name])
        if record is None or record.sandbox is not sandbox or record.state in HIDDEN_CONTAINER:
            return ""
        return record.id if cri.ContainerConfig.FromString(record.config_wire) == config else ""

    async def revoke_creations(self, sandbox: SandboxRecord) -> None:
        """End what is being created in `sandbox`, and remove what nobody has been given yet."""
        unseen = [each for each in sandbox.containers.values() if each.state is ContainerState.CREATING]
        revoke = self._ground.creations.revoke
        await _all([revoke(ContainerMaking(self._ground, record)) for record in unseen])

    def _target(self, sandbox: SandboxRecord, config: cri.ContainerConfig) -> ContainerRecord | None:
        options = config.linux.security_context.namespace_options
        if options.pid != cri.TARGET:
            return None
        field = "config.linux.security_context.namespace_options.target_id"
        target = self._ground.records.containers.find(options.target_id) if options.target_id else None
        if target is None or target.state in HIDDEN_CONTAINER:
            raise NotFound(f"{field}: no container has the id {options.target_id!r}")
        if target.sandbox is not sandbox:
            raise InvalidArgument(field, f"container {target.id} is in another pod")
        require_running(target)
        return target

    # Starting and ending

    async def start(self, id: str) -> None:
        await self._ground.detached(self._start(self.shown(id)))

    async def _start(self, record: ContainerRecord) -> None:
        ground = self._ground
        async with record.lock:
            require_ready(record.sandbox)
            _require_target(record)
            ground.step_container(record, ContainerEvent.START)
            task = asyncio.ensure_future(ground.engine.start_container(record.seen_by_engine()))
            start = ground.starts[record.id] = Start(task)
            try:
                await self._carry_out(record, start)
            finally:
                del ground.starts[record.id]
                start.over.set()

    async def _carry_out(self, record: ContainerRecord, start: Start) -> None:
        ground = self._ground
        try:
            await _started(start, record, ground)
        except Exception as error:
            if record.state is ContainerState.STARTING:
                await self._end_unstarted(record)
            self._start_failed(record, str(error), start.returned())
            raise
        exit = start.returned()
        if (facts := start.task.result()) is not None:
            record.facts = facts
        if record.state is ContainerState.STARTING:
            started(ground, record, ground.clock.now())
            if exit is not None:
                record_exit(ground, record, exit)

    def _start_failed(self, record: ContainerRecord, message: str, exit: Exit | None) -> None:
        if record.state is not ContainerState.STARTING:
            return  # its end has been told
        never_ran(self._ground, record, message, exit.finished_at if exit else self._ground.clock.now())

    async def _end_unstarted(self, record: ContainerRecord) -> None:
        """The process of a start that failed may still wait for it: nobody would ever end that otherwise."""
        try:
            await self._ground.engine.signal_container(record.seen_by_engine(), signal.SIGKILL)
        except Exception as error:
            log.warning("container %s: ending it after its start failed: %s", record.id, error)

    async def stop(self, id: str, timeout: int) -> None:
        record = self._ground.records.containers.find(id)
        if record is not None and record.state not in HIDDEN_CONTAINER:
            await stop(self._ground, record, timeout)

    async def end_all(self, sandbox: SandboxRecord) -> None:
        """SIGKILL to every container of `sandbox`, and wait until all have ended."""
        living = [record for record in sandbox.containers.values() if record.state in LIVING]
        await _all(end(self._ground, record) for record in living)

    async def remove(self, id: str) -> None:
        record = self._ground.records.containers.find(id)
        if record is not None and record.state not in HIDDEN_CONTAINER:
            await self._ground.detached(self.finish_removal(record))

    async def finish_removal(self, record: ContainerRecord) -> None:
        """End it if it runs, and remove it; continues a removal cut short."""
        if record.state is ContainerState.STARTING:
            await end(self._ground, record)  # its start holds the lock, and may hang
        async with record.lock:
            if record.id not in self._ground.records.containers:
                return  # another call has just removed it
            if record.state in (ContainerState.STARTING, ContainerState.RUNNING):
                await end(self._ground, record)
            if record.state is ContainerState.CREATED:
                # Shown if its removal fails half-way: it can be started no more.
                record.exit_code, record.reason, record.finished_at = 137, "Removed", self._ground.clock.now()
            self._ground.step_container(record, ContainerEvent.REMOVE)
            await self._ground.engine.remove_container(record.seen_by_engine())
            self._ground.records.drop(record)
            record.exited.set()
            self._ground.tell(cri.CONTAINER_DELETED_EVENT, record)

    # What can be done to one that exists

    async def update(self, request: cri.UpdateContainerResourcesRequest) -> None:
        await update_container(self._ground, self.shown(request.container_id), request)

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        record = self.shown(request.container_id)
        require_running(record)
        if not request.cmd:
            raise InvalidArgument("cmd", "no command specified")
        validate.argv(request.cmd, "cmd")
        if request.timeout < 0:
            raise InvalidArgument("timeout", f"{request.timeout} s is negative")
        result = await self._ground.engine.exec_sync(
            record.seen_by_engine(), list(request.cmd), float(request.timeout) or None, EXEC_LIMIT
        )
        return cri.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.code)

    async def checkpoint(self, request: cri.CheckpointContainerRequest) -> None:
        await checkpoints.checkpoint(self._ground, self.shown(request.container_id), request)

    async def reopen_log(self, id: str) -> None:
        record = self.shown(id)
        require_running(record)
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
            shown = {"sandboxID": record.sandbox.id, **info, "config": as_asked(record.config)}
            response.info.update(json_texts({"info": shown}))
        return response

    async def wait(self, id: str) -> cri.ContainerStatus:
        """Its status once it has exited (or is being removed)."""
        record = self.shown(id)
        await record.exited.wait()
        return container_status(record)

    def list(self, filter: cri.ContainerFilter) -> Sequence[ContainerRecord]:
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
        states, selector = container_states(filter), dict(filter.label_selector)
        return [
            record
            for record in candidates
            if record.state in states and (not selector or labels_match(record.labels, selector))
        ]


def _log_path(sandbox: cri.PodSandboxConfig, config: cri.ContainerConfig) -> str:
    # Only both together make a log; with one missing the output is discarded.
    if not sandbox.log_directory or not config.log_path:
        return ""
    return posixpath.join(sandbox.log_directory, config.log_path)


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Do all of them to their ends, then raise what the first failed with."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _started(start: Start, record: ContainerRecord, ground: Ground) -> None:
    """Wait for the engine's part of a start, as long as any creation may take."""
    bound = ground.config.create_timeout
    try:
        async with ground.clock.timeout(bound):
            await start.task
    except TimeoutError as error:
        raise DeadlineExceeded(f"container {record.name}: not started after {bound:g} s") from error
    except asyncio.CancelledError:
        if not start.cut:
            raise
        raise FailedPrecondition(f"container {record.id} was ended before its start returned") from None


def require_ready(sandbox: SandboxRecord) -> None:
    if sandbox.state is not SandboxState.READY:
        raise FailedPrecondition(f"pod sandbox {sandbox.id} is not ready: it is {sandbox.state.value}")


def _require_target(record: ContainerRecord) -> None:
    """Whose PID namespace it joins must run still."""
    options = record.config.linux.security_context.namespace_options
    if options.pid != cri.TARGET:
        return
    if record.target is None:
        raise FailedPrecondition(f"container {options.target_id}, whose processes it would join, is gone")
    require_running(record.target)


def require_running(record: ContainerRecord) -> None:
    if record.state is not ContainerState.RUNNING:
        raise FailedPrecondition(f"container {record.id} is not running: it is {record.state.value}")
