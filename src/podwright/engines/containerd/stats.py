"""Statistics of this engine's containers and pods: from the kernel where they are its processes, without a
question to containerd; from their shim where they are not.

What decides is whether a container's first process is in the cgroup that its spec names. Writable layers are
the upper directories of overlay snapshots, else what the snapshotter says of its snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from podwright.config import Config
from podwright.engines import cgroup_figures
from podwright.engines.base import Container, Figure, Sandbox
from podwright.engines.cgroup_stats import Statistics as CgroupStatistics
from podwright.engines.containerd import task_metrics
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.layer_use import LayerUse
from podwright.engines.containerd.task_metrics import Told
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.figures import of_stats
from podwright.engines.node.places import Places
from podwright.engines.node.sight import NodeSight
from podwright.stats import groups
from podwright.stats.disk import Use
from podwright.stats.processes import Open
from podwright.stats.rates import Rates
from podwright.stats.reading import Reading
from podwright.wire import cri_pb2 as cri

_UNTOLD = ("container_processes", "container_file_descriptors", "container_sockets")
"""Figures of which a shim tells nothing."""


class ContainerdSight(NodeSight):
    """Implements engines.cgroup_stats.Sight."""

    def __init__(self, config: Config, places: Places, tasks: Tasks, layers: LayerUse) -> None:
        super().__init__(config, places, tasks)
        self._layers = layers

    @property
    def mountpoint(self) -> str:
        return self._layers.directory(self._config.containerd.snapshotter)

    @property
    def top(self) -> Path:
        found = Path(self.mountpoint)
        return found if self.mountpoint and found.is_dir() else self._places.root

    def held(self, sandbox: Sandbox) -> bool:
        return bool(self._tasks.cgroup(sandbox.id))

    def layer(self, container_id: str) -> Sequence[str]:
        return self._layers.trees(container_id)


class Statistics(CgroupStatistics):
    def __init__(self, config: Config, places: Places, tasks: Tasks, containerd: Containerd) -> None:
        self._containerd = containerd
        self._tasks = tasks
        self._layers = LayerUse(containerd, places)
        super().__init__(ContainerdSight(config, places, tasks, self._layers))
        self._here: set[str] = set()
        """Known to be processes of this kernel."""
        self._told: dict[str, Told] = {}
        """What shims told when they were last asked, of those that are not."""
        self._rates_told = Rates()

    async def close(self) -> None:
        await self._layers.close()
        await super().close()

    def leave(self, container: Container) -> None:
        super().leave(container)
        self._layers.forget(container.id)
        self._forget(container.id)

    def leave_sandbox(self, sandbox: Sandbox) -> None:
        super().leave_sandbox(sandbox)
        self._forget(sandbox.id)

    async def of_containers(self, containers: Sequence[Container]) -> dict[str, cri.ContainerStats]:
        await self._ask([(each.id, each.facts.pid) for each in containers if each.id in self._there])
        found = await super().of_containers(containers)
        for id, stats in found.items():
            if stats.HasField("writable_layer") and (place := self._layers.directory_of(id)):
                stats.writable_layer.fs_id.mountpoint = place
        return found

    async def of_sandboxes(self, sandboxes: Sequence[Sandbox]) -> dict[str, cri.LinuxPodSandboxStats]:
        members = [id for each in sandboxes for id in self._members.get(each.id, ()) if id in self._told]
        await self._ask([(id, 0) for id in members])
        return await super().of_sandboxes(sandboxes)

    async def figures(self, containers: Sequence[Container]) -> dict[str, list[Figure]]:
        await self._ask([(each.id, each.facts.pid) for each in containers if each.id in self._there])
        told = [each for each in containers if each.id in self._told]
        found = await super().figures([each for each in containers if each.id not in self._told])
        stats = await super().of_containers(told)
        layers = await self.layers(told)
        for id, each in stats.items():
            looked = cgroup_figures.Looked(self._told[id][1], 0, Open(0, 0), None)
            of_shim = cgroup_figures.of_container(looked, each.memory)
            found[id] = [
                *of_stats(each),
                *(figure for figure in of_shim if figure.name not in _UNTOLD),
                *cgroup_figures.of_layer(layers.get(id), self._sight.top),
            ]
        return found

    async def layers(self, containers: Iterable[Container]) -> dict[str, Use]:
        there = [each for each in containers if each.id in self._there]
        await self._layers.look([each.id for each in there])
        trees = await super().layers(there)
        return await self._layers.with_snapshots(trees, [each.id for each in there])

    def read(self, id: str) -> Reading | None:
        told = self._told.get(id)
        return super().read(id) if told is None else told[0]

    def _rate(self, path: str, look: Reading) -> int | None:
        if look.cpu is None or not any(look is each[0] for each in self._told.values()):
            return super()._rate(path, look)
        rate = self._rates_told.rate(path, look.at, look.cpu)
        self._rates_told.note(path, look.at, look.cpu)
        return rate

    def _sum(self, sandbox: Sandbox) -> tuple[Reading, int | None, int | None]:
        """What a kernel of the pod's own uses on this host is all in the cgroup of the pod's process."""
        members = self._members.get(sandbox.id, set())
        if not members & self._told.keys() or super().read(sandbox.id) is None:
            return super()._sum(sandbox)
        self._members[sandbox.id] = members - self._told.keys()
        try:
            return super()._sum(sandbox)
        finally:
            self._members[sandbox.id] = members

    async def _ask(self, wanted: Sequence[tuple[str, int]]) -> None:
        """The shims of those that are not this kernel's, by id and pid of their first process."""
        unknown = [each for each in wanted if each[0] not in self._here]
        if not unknown:
            return
        elsewhere = []
        for id, pid in unknown:
            if self._is_here(id, pid):
                self._forget(id)
                self._here.add(id)
            else:
                elsewhere.append(id)
        if elsewhere:
            told = await task_metrics.ask(self._containerd, elsewhere)
            for id in elsewhere:
                self._told.pop(id, None)
            self._told.update(told)

    def _is_here(self, id: str, pid: int) -> bool:
        path = self._tasks.cgroup(id)
        return pid > 0 and bool(path) and pid in groups.processes(path)

    def _forget(self, id: str) -> None:
        self._here.discard(id)
        if self._told.pop(id, None) is not None:
            self._rates_told.drop(self._tasks.cgroup(id))
