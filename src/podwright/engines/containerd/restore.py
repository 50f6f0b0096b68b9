"""Containers of the containerd engine that are restored from a checkpoint: their task is made of the dump,
and CRIU brings it to life at its start."""

from __future__ import annotations

from podwright.checkpoints.layout import Checkpoint
from podwright.engines.base import Container, ContainerFacts, Json, Observation, Presence
from podwright.engines.containerd.creation import IMAGE, Creation
from podwright.engines.containerd.dumping import Dumping
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.shims import Shim
from podwright.engines.containerd.snapshots import Snapshots, shown, unsynced
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node.parts import with_process
from podwright.engines.node.places import Places
from podwright.engines.node.restoring import Waiting
from podwright.errors import FailedPrecondition, PodwrightError, Unavailable
from podwright.linux import criu
from podwright.linux.criu import Criu
from podwright.steps import step
from podwright.wire.containerd import task_types_pb2, types_pb2

OPTIONS = "tcp-close\ntcp-established\nfile-locks\n"
"""What containerd's shim tells CRIU nothing of. Connections were another pod's, with another address: one
that is closed a program can notice."""


class Restores:
    def __init__(
        self,
        places: Places,
        objects: Objects,
        snapshots: Snapshots,
        tasks: Tasks,
        creation: Creation,
        dumping: Dumping,
        criu: Criu,
    ) -> None:
        self._places = places
        self._objects = objects
        self._snapshots = snapshots
        self._tasks = tasks
        self._creation = creation
        self._dumping = dumping
        self._waiting = Waiting(places, dumping.layer, criu, OPTIONS)

    async def look(self, reference: str) -> Checkpoint:
        """See `Engine.read_checkpoint`."""
        return await self._waiting.look(reference)

    # Creating

    async def require(self, container: Container, shim: Shim) -> None:
        """FailedPrecondition when it cannot be restored here."""
        await self._waiting.require(container, shim)

    async def take_in(
        self, container: Container, shim: Shim, checkpoint: Checkpoint, found: list[types_pb2.Mount]
    ) -> None:
        """Copy what the checkpoint holds, and make its changes of files in the snapshot, which is mounted by
        `found`. Core undoes by removing the container."""
        changes = await self._waiting.take_in(container, checkpoint)
        if changes is not None:
            diff, digest = changes
            with step("rootfs diff"):
                await self._dumping.unpack_changes(found, diff, digest)
                diff.unlink()
        if self._waiting.lists_deleted(container.id):
            target = self._places.container_run(container.id) / IMAGE
            async with shown(found, target, readonly=False) as root:
                await self._waiting.remove_deleted(container.id, root)

    def with_options(self, container: Container, spec: dict[str, Json]) -> dict[str, Json]:
        return self._waiting.with_options(container, spec)

    # Starting

    def pending(self, id: str) -> bool:
        """Whether container `id` is still to be restored."""
        return self._waiting.pending(id)

    async def start(self, container: Container, shim: Shim) -> ContainerFacts:
        """Bring its processes to life. FailedPrecondition with CRIU's words."""
        id = container.id
        await self._waiting.require(container, shim)
        found = await self._snapshots.mounts(id, shim.snapshotter)
        self._waiting.under_way.add(id)
        try:
            with step("criu restore"):
                streams = await self._creation.streams(container)
                images = self._waiting.images(id)
                await self._creation.task(container, shim, unsynced(found), streams, restore=images)
                pid = await self._tasks.start(id)
        except Unavailable:
            raise
        except PodwrightError as error:
            words = criu.log_complaints(self._places.restore(id) / "restore.log") or str(error)
            raise FailedPrecondition(f"container {id[:12]} cannot be restored: {words}") from error
        finally:
            self._waiting.under_way.discard(id)
        await self._waiting.over(id)
        return with_process(container.facts, id, pid)

    # While there is no process

    async def signal(self, id: str, number: int) -> bool:
        """Whether `number` is for a container that has no process yet: SIGKILL ends it all the same."""
        if not self.pending(id) or id in self._waiting.under_way or await self._tasks.state(id) is not None:
            return False
        self._waiting.end(id, number)
        return True

    async def observe(self, id: str) -> Observation | None:
        """What there is of a container that is still to be restored; None when its processes tell."""
        if not self.pending(id) or self._places.exit_file(id).exists():
            return None
        if id in self._waiting.under_way:
            return Observation(Presence.CREATED)
        process = await self._tasks.state(id)
        if process is not None:
            if process.status != task_types_pb2.CREATED:
                return None
            # A podwright was killed before CRIU began, or at work: nobody knows how far that has come.
            await self._tasks.end(id)
            return Observation(Presence.MISSING)
        there = await self._objects.get(id) is not None
        return Observation(Presence.CREATED if there else Presence.MISSING)
