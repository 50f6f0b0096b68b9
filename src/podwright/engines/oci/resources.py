"""Limits of the oci engine's containers: the spec in the bundle, and the OCI runtime's `update`."""

from __future__ import annotations

import msgspec

from podwright.engines.base import Container, Json
from podwright.engines.node.parts import started
from podwright.engines.node.places import Places
from podwright.engines.oci import conmon
from podwright.engines.oci.runtimes import Runtime, Runtimes
from podwright.engines.oci.tasks import Tasks
from podwright.errors import CommandFailed, NotFound
from podwright.linux import spawn


class Changeable:
    """Implements engines.node.updates.Changeable."""

    def __init__(self, places: Places, handlers: Runtimes, tasks: Tasks) -> None:
        self._places = places
        self._runtimes = handlers
        self._tasks = tasks

    def runtime(self, container: Container) -> Runtime:
        return self._runtimes.get(container.sandbox.handler)

    def alive(self, container: Container) -> bool:
        return self._tasks.alive(container.id, container.facts.pid, started(container))

    def cgroup(self, id: str) -> str:
        return self._tasks.cgroup(id)

    async def read_spec(self, id: str) -> bytes:
        try:
            return (self._places.container_run(id) / "config.json").read_bytes()
        except FileNotFoundError:
            raise NotFound(f"container {id} has no bundle any more") from None

    async def write_spec(self, id: str, spec: bytes) -> None:
        file = self._places.container_run(id) / "config.json"
        draft = file.with_name("config.json.new")
        try:
            draft.write_bytes(spec)
            draft.chmod(file.stat().st_mode & 0o777)
            draft.rename(file)
        except FileNotFoundError:
            raise NotFound(f"container {id} has no bundle any more") from None

    async def change(self, container: Container, resources: dict[str, Json]) -> None:
        runtime = self.runtime(container)
        file = self._places.container_run(container.id) / "resources.json"
        try:
            file.write_bytes(msgspec.json.encode(resources))
        except FileNotFoundError:
            raise NotFound(f"container {container.id} has no bundle any more") from None
        done = await spawn.run(runtime.argv("update", "--resources", str(file), container.id))
        if done.status != 0:
            words = conmon.plain_words(done.stderr.decode(errors="replace"))
            raise CommandFailed(runtime.kind, done.status, words)
