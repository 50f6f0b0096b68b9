"""The rules of checkpoints: of which containers one may be made, where to, how long it may take; and what
must be there before a container is made from one."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Collection
from pathlib import Path

from podwright.checkpoints.layout import Checkpoint
from podwright.checkpoints.writing import location_of
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord
from podwright.core.states import ContainerState
from podwright.core.views import container_status
from podwright.engines.base import Image
from podwright.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from podwright.wire import cri_pb2 as cri

IMAGE = "config.image.image"
OWN_MOUNTS = frozenset(
    {
        *("/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"),
        *("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"),
        # Other runtimes' own, which nothing in a container needs to have open.
        *("/etc/passwd", "/etc/group", "/run/secrets", "/run/.containerenv"),
    }
)
"""Mounts of a checkpoint that no request has: every container gets its own."""


async def checkpoint(
    ground: Ground, record: ContainerRecord, request: cri.CheckpointContainerRequest
) -> None:
    """Write the checkpoint; the container runs on. One that takes longer than `timeout` seconds (0: as long
    as it likes) or that nobody waits for leaves nothing."""
    if request.timeout < 0:
        raise InvalidArgument("timeout", f"{request.timeout} s is negative")
    location = location_of(request.location)
    _require_running(record)
    try:
        async with ground.clock.timeout(request.timeout or None):
            while (other := ground.checkpoints.get(record.id)) is not None:
                # Perhaps one that its client has given up, and that is being taken back.
                await asyncio.wait([other])
            _require_running(record)
            await _made(ground, record, location)
    except TimeoutError:
        raise DeadlineExceeded(
            f"container {record.id}: not checkpointed within {request.timeout} s"
        ) from None


async def _made(ground: Ground, record: ContainerRecord, location: Path) -> None:
    work = ground.start(
        ground.engine.checkpoint_container(record.seen_by_engine(), container_status(record), location)
    )
    ground.checkpoints[record.id] = work
    work.add_done_callback(lambda _: ground.checkpoints.pop(record.id))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if work.cancelled() and not _cancelling():
            raise FailedPrecondition(
                f"container {record.id} was ended before its checkpoint was complete"
            ) from None
        raise
    finally:
        # It ends by itself, for processes must not be left half frozen; nobody has to wait for that.
        work.cancel()
        work.add_done_callback(_seen)


async def origin(ground: Ground, reference: str) -> tuple[Image, Checkpoint | None]:
    """The image that a container's files come from, and the checkpoint that it is restored from, if
    `reference` names one: the absolute path of an archive, or an image that holds one.

    NotFound, which says what to pull; InvalidArgument, FailedPrecondition.
    """
    if reference.startswith("/"):
        return await _base(ground, await ground.engine.read_checkpoint(reference))
    image = await ground.engine.images.find(reference)
    if image is None:
        raise NotFound(f"{IMAGE}: no image {reference!r} is here; pull it first")
    if image.artifact:
        raise FailedPrecondition(
            f"{IMAGE}: {reference!r} is an artifact, no container image:"
            f" it can only be mounted (config.mounts[].image)"
        )
    if image.checkpoint:
        return await _base(ground, await ground.engine.read_checkpoint(image.id))
    return image, None


def check_mounts(checkpoint: Checkpoint, config: cri.ContainerConfig, image: Image) -> None:
    """InvalidArgument when processes of the checkpoint had mounts that the request does not have: an archive
    shall not choose what of the host is mounted."""
    missing = missing_mounts(
        checkpoint, [each.container_path for each in config.mounts], image.config.get("Volumes") or {}
    )
    if missing:
        raise InvalidArgument(
            "config.mounts",
            f"the checkpoint {checkpoint.source} expects mounts that the request lacks: {', '.join(missing)}",
        )


def missing_mounts(checkpoint: Checkpoint, asked: Collection[str], volumes: Collection[str]) -> list[str]:
    known = {posixpath.normpath(each) for each in (*asked, *volumes)} | OWN_MOUNTS
    bound = [each.destination for each in checkpoint.spec.mounts if each.type == "bind"]
    return [each for each in dict.fromkeys(bound) if posixpath.normpath(each) not in known]


async def _base(ground: Ground, checkpoint: Checkpoint) -> tuple[Image, Checkpoint]:
    for reference in checkpoint.base_images:
        try:
            image = await ground.engine.images.find(reference)
        except InvalidArgument:
            continue  # other runtimes write here what is no reference to us
        if image is not None and not image.artifact and not image.checkpoint:
            return image, checkpoint
    config = checkpoint.config
    name = config.rootfs_image_name or config.rootfs_image or config.rootfs_image_ref or "(it names none)"
    exactly = f" ({config.rootfs_image_ref})" if config.rootfs_image_ref not in ("", name) else ""
    raise NotFound(
        f"{IMAGE}: the checkpoint {checkpoint.source} is of a container of image {name}{exactly},"
        " which is not here; pull it first"
    )


def _require_running(record: ContainerRecord) -> None:
    if record.state is not ContainerState.RUNNING:
        raise FailedPrecondition(
            f"container {record.id} is {record.state.value}: only a running one can be checkpointed"
        )


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _seen(work: asyncio.Task[None]) -> None:
    if not work.cancelled():
        work.exception()
