"""Limits of containers that exist: the specs are in containerd's records, the cgroups are the shims'."""

from __future__ import annotations

from podwright.engines.base import Container, Json
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.shims import Shim
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node.parts import started
from podwright.errors import NotFound


class Changeable:
    """Implements engines.node.updates.Changeable."""

    def __init__(self, shims: Shims, objects: Objects, tasks: Tasks) -> None:
        self._shims = shims
        self._objects = objects
        self._tasks = tasks

    def runtime(self, container: Container) -> Shim:
        return self._shims.get(container.sandbox.handler)

    def alive(self, container: Container) -> bool:
        return self._tasks.alive(container.id, container.facts.pid, started(container))

    def cgroup(self, id: str) -> str:
        return self._tasks.cgroup(id)

    async def read_spec(self, id: str) -> bytes:
        record = await self._objects.get(id)
        if record is None:
            raise NotFound(f"containerd has no container {id}")
        return record.spec.value

    async def write_spec(self, id: str, spec: bytes) -> None:
        await self._objects.set_spec(id, spec)

    async def change(self, container: Container, resources: dict[str, Json]) -> None:
        await self._tasks.update(container.id, resources)
