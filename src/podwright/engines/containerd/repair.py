"""What containerd and the host still have of this state root and no record knows: found, removed one by one.

Orphans come in the order in which they can go: tasks before what they run on, containers before sandboxes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

from podwright.config import Config
from podwright.engines.base import Orphan
from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.engines.containerd.host import SANDBOXES, SERVICE
from podwright.engines.containerd.objects import KIND, OF_SANDBOX, ROOT, Objects, quoted
from podwright.engines.containerd.sandbox_service import SandboxService
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node.leftovers import Leftovers
from podwright.engines.node.places import ID, Places
from podwright.errors import PodwrightError
from podwright.network.cni import Cni
from podwright.steps import step

log = logging.getLogger(__name__)


class Repair:
    def __init__(
        self,
        config: Config,
        containerd: Containerd,
        places: Places,
        objects: Objects,
        snapshots: Snapshots,
        tasks: Tasks,
        network: Cni,
    ) -> None:
        self._config = config
        self._containerd = containerd
        self._objects = objects
        self._snapshots = snapshots
        self._tasks = tasks
        self._network = network
        self._sandboxes = SandboxService(containerd)
        self._leftovers = Leftovers(config, places, network)

    async def forget_others(self, sandboxes: set[str]) -> None:
        """As Engine.forget_others."""
        with step("release networks"):
            removed = await self._network.gc(sandboxes, sole_user=self._config.cni.sole_user)
        if removed:
            log.warning("networks of sandboxes that are gone were released: %s", ", ".join(removed))

    async def orphans(self, known: set[str]) -> Sequence[Orphan]:
        """Everything that names an id which is not in `known`."""
        return [
            *[each async for each in self._tasks_and_records(known)],
            *[each async for each in self._held(known)],
            *[
                Orphan("guard", each, "a record in containerd's sandbox store that keeps a task")
                for each in await self._tasks.guards.list()
                if each not in known
            ],
            *[each async for each in self._snapshots_of(known)],
            *self._leftovers.orphans(known),
        ]

    async def remove(self, orphan: Orphan) -> None:
        """Fine when it is gone by now."""
        if orphan.kind == "task":
            await self._tasks.end(orphan.name)
        elif orphan.kind == "record":
            await self._objects.delete(orphan.name)
        elif orphan.kind == "guard":
            await self._tasks.guards.take(orphan.name)
        elif orphan.kind == "sandbox":
            await self._sandboxes.stop(orphan.name, 0)
            await self._sandboxes.shut_down(orphan.name)
            await self._sandboxes.leave(orphan.name)
        elif orphan.kind == "snapshot":
            snapshotter, _, key = orphan.name.partition("/")
            await self._snapshots.remove(key, snapshotter)
        else:
            await self._leftovers.remove(orphan)

    async def _tasks_and_records(self, known: set[str]) -> AsyncIterator[Orphan]:
        left = [each for each in await self._objects.list() if each.id not in known]
        # A shim that serves a whole pod ends with the pod's first task.
        left.sort(key=lambda each: each.labels.get(KIND) == OF_SANDBOX)
        for each in left:
            if await self._tasks.state(each.id) is not None:
                yield Orphan("task", each.id, f"of a {each.labels.get(KIND, 'container')}")
        for each in left:
            yield Orphan("record", each.id, f"of a {each.labels.get(KIND, 'container')}, {each.image}")

    async def _held(self, known: set[str]) -> AsyncIterator[Orphan]:
        """Sandboxes that their shims hold."""
        if not all(self._containerd.has(SERVICE, each) for each in SANDBOXES):
            return
        guards = await self._tasks.guards.list()
        for each in await self._sandboxes.list(self._ours()):
            if each.sandbox_id not in known and each.sandbox_id not in guards:
                yield Orphan("sandbox", each.sandbox_id, f"held by the shim {each.runtime.name}")

    async def _snapshots_of(self, known: set[str]) -> AsyncIterator[Orphan]:
        for snapshotter in sorted(self._containerd.plugins(SNAPSHOTTERS)):
            try:
                found = await self._snapshots.list(snapshotter, self._ours())
            except PodwrightError as error:
                # One that its configuration spoils must not hide what the others have.
                log.warning("snapshots of %s cannot be listed: %s", snapshotter, error)
                continue
            for each in found:
                owner = ID.match(each.name)
                if owner is not None and owner.group() not in known:
                    yield Orphan("snapshot", f"{snapshotter}/{each.name}", f"on {each.parent}")

    def _ours(self) -> str:
        return f'labels."{ROOT}"=={quoted(self._objects.root)}'
