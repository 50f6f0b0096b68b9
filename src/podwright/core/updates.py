"""Changing the resources of what exists: of a container, and what is noted of a pod.

What an update wants is written beside what holds, then the engine is asked, then it is what holds. Whatever
goes wrong, statuses tell what holds; after a crash in between the update is taken back.
"""

from __future__ import annotations

import logging

from podwright.core import validate
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.states import ContainerState, SandboxState
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.resources import merge
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


async def update_container(
    ground: Ground, record: ContainerRecord, request: cri.UpdateContainerResourcesRequest
) -> None:
    """Change what the request sets; what is zero in it stays as it is. In any state but removal: one that has
    ended tells them, too.

    InvalidArgument that names the field, before anything is changed; FailedPrecondition.
    """
    if request.HasField("windows"):
        raise InvalidArgument("windows", f"container {record.id} is a Linux container")
    if not request.HasField("linux"):
        raise InvalidArgument("linux", "is required")
    validate.resources(request.linux, "linux")
    await ground.detached(_update(ground, record, request.linux))


async def settle(ground: Ground, record: ContainerRecord) -> None:
    """Take back an update that was cut short: nobody was told that it was done. When what was before cannot
    be any more, finish it. Raises when neither can be."""
    async with record.lock:
        await _settle(ground, record)


async def update_sandbox(
    ground: Ground, record: SandboxRecord, request: cri.UpdatePodSandboxResourcesRequest
) -> None:
    """Note what the pod now has; the cgroup that its containers are in is the client's, who has changed it.

    Each of the two parts that is given takes the place of the former one.
    """
    for field in ("overhead", "resources"):
        validate.resources(getattr(request, field), field)
    async with record.lock:
        if record.state is not SandboxState.READY:
            raise FailedPrecondition(f"pod sandbox {record.id} is not ready: it is {record.state.value}")
        former = record.overhead_wire, record.resources_wire
        if request.HasField("overhead"):
            record.overhead_wire = request.overhead.SerializeToString()
        if request.HasField("resources"):
            record.resources_wire = request.resources.SerializeToString()
        try:
            ground.records.save(record)
        except BaseException:
            record.overhead_wire, record.resources_wire = former
            raise


async def _update(ground: Ground, record: ContainerRecord, change: cri.LinuxContainerResources) -> None:
    async with record.lock:
        if record.state is ContainerState.REMOVING:
            raise FailedPrecondition(f"container {record.id} is being removed")
        await _settle(ground, record)
        wanted = merge(record.resources, change)
        await ground.engine.check_update(record.seen_by_engine(), wanted)
        record.wanted = wanted
        try:
            ground.records.save(record)
        except BaseException:
            record.wanted = None
            raise
        try:
            await _carry_out(ground, record, wanted)
        except BaseException:
            try:
                await _take_back(ground, record, wanted)
            except Exception as error:
                # Tried again with the next update, and at the next start.
                log.warning("container %s: its former limits could not be set again: %s", record.id, error)
            raise


async def _settle(ground: Ground, record: ContainerRecord) -> None:
    wanted = record.wanted
    if wanted is None:
        return
    try:
        await ground.engine.check_update(record.seen_by_engine(), record.resources)
        await _take_back(ground, record, wanted)
    except Exception as error:
        log.warning("container %s: an update cut short is finished: its former limits: %s", record.id, error)
        await _carry_out(ground, record, wanted)


async def _carry_out(ground: Ground, record: ContainerRecord, wanted: cri.LinuxContainerResources) -> None:
    former = record.resources
    await ground.engine.update_container(record.seen_by_engine(), wanted, former)
    record.resources, record.wanted = wanted, None
    try:
        ground.records.save(record)
    except BaseException:
        record.resources, record.wanted = former, wanted
        raise


async def _take_back(ground: Ground, record: ContainerRecord, refused: cri.LinuxContainerResources) -> None:
    # A runtime writes one file after the other: those before the refused one hold the new values.
    await ground.engine.update_container(record.seen_by_engine(), record.resources, refused)
    record.wanted = None
    try:
        ground.records.save(record)
    except BaseException:
        record.wanted = refused
        raise
