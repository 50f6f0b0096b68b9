"""Statistics of containers and pods on a Docker Engine: read where the kernel has them, not asked of Docker.

Docker's own take a second or lack what a kubelet wants (working sets, major faults, pressure, a pod's sum).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from podwright.config import Config
from podwright.engines.base import Container, ContainerFacts, Sandbox
from podwright.engines.cgroup_stats import Statistics as CgroupStatistics
from podwright.engines.docker.api import Docker
from podwright.engines.docker.objects import DOCKER_ID, Objects
from podwright.stats.disk import Use
from podwright.wire import cri_pb2 as cri

_LINE = re.compile(r"^\d+:(.*?):(/.*)$", re.MULTILINE)


class Statistics(CgroupStatistics):
    def __init__(self, docker: Docker, objects: Objects, config: Config) -> None:
        self._docker = docker
        self._objects = objects
        self._here = DockerSight()
        super().__init__(self._here)

    def enter(self, container: Container) -> None:
        self._here.meet(container)
        super().enter(container)

    def started(self, container: Container, facts: ContainerFacts | None) -> None:
        """It has a process now, which `facts` tell."""
        self._here.meet(replace(container, facts=facts or container.facts))

    def leave(self, container: Container) -> None:
        super().leave(container)
        self._here.forget(container.id)

    def leave_sandbox(self, sandbox: Sandbox) -> None:
        super().leave_sandbox(sandbox)
        self._here.forget(sandbox.id)

    async def of_containers(self, containers: Sequence[Container]) -> dict[str, cri.ContainerStats]:
        for each in containers:
            if each.id in self._there:
                self._here.meet(each)
        return await super().of_containers(containers)

    async def of_sandboxes(self, sandboxes: Sequence[Sandbox]) -> dict[str, cri.LinuxPodSandboxStats]:
        for each in sandboxes:
            self._here.meet(each)
        return await super().of_sandboxes(sandboxes)

    async def layers(self, containers: Iterable[Container]) -> dict[str, Use]:
        if not self._here.mountpoint:
            info = await self._docker.call("GET", "/info")
            self._here.mountpoint = str(info["DockerRootDir"])
        there = [each for each in containers if each.id in self._there]
        unknown = [each for each in there if not (self._here.layer(each.id) and self._here.cgroup(each.id))]
        await asyncio.gather(*map(self._look, unknown))
        return await super().layers(there)

    async def _look(self, container: Container) -> None:
        """Have its process known, and its trees: its overlay and volumes. Other storage drivers have none."""
        found = await self._objects.inspect(container)
        if found is None or container.id not in self._there:
            return
        self._here.see(container.id, int(found["State"]["Pid"]), found["Id"])
        upper = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
        volumes = [each["Source"] for each in found.get("Mounts") or () if each.get("Type") == "volume"]
        if upper:
            self._here.trees[container.id] = (upper, *volumes)


class DockerSight:
    """Implements engines.cgroup_stats.Sight by what /proc says of the first processes."""

    def __init__(self) -> None:
        self.mountpoint = ""
        self.trees: dict[str, tuple[str, ...]] = {}
        self._processes: dict[str, tuple[int, str]] = {}
        """Pid, and Docker's id: a pid alone may be another process by now."""
        self._cgroups: dict[str, str] = {}

    @property
    def top(self) -> Path:
        return Path(self.mountpoint)

    def meet(self, subject: Container | Sandbox) -> None:
        """`subject` is asked for: what its facts say counts."""
        if isinstance(subject, Container):
            self.meet(subject.sandbox)
        self.see(subject.id, subject.facts.pid, str(subject.facts.own.get(DOCKER_ID, "")))

    def see(self, id: str, pid: int, docker_id: str) -> None:
        """The first process of `id`, as far as there is one."""
        if pid and docker_id:
            self._processes[id] = pid, docker_id

    def forget(self, id: str) -> None:
        for kept in (self.trees, self._processes, self._cgroups):
            kept.pop(id, None)

    def cgroup(self, id: str) -> str:
        """It outlives the process that it was found by: what is known stays."""
        known = self._cgroups.get(id, "")
        if not known and id in self._processes:
            known = found_cgroup(*self._processes[id])
            if known:
                self._cgroups[id] = known
        return known

    def parent(self, sandbox: Sandbox) -> str:
        self.meet(sandbox)
        own = self.cgroup(sandbox.id)
        return str(PurePosixPath(own).parent) if own else ""

    def held(self, sandbox: Sandbox) -> bool:
        return True

    def network(self, sandbox: Sandbox) -> str:
        options = sandbox.config.linux.security_context.namespace_options
        pid, docker_id = self._processes.get(sandbox.id, (0, ""))
        if options.network == cri.NamespaceMode.NODE or not found_cgroup(pid, docker_id):
            return ""
        return f"/proc/{pid}/ns/net"

    def layer(self, container_id: str) -> Sequence[str]:
        return self.trees.get(container_id, ())


def found_cgroup(pid: int, docker_id: str) -> str:
    """The cgroup of Docker's container `docker_id`, of which `pid` is a process; "" when it is none any more.

    The process may have gone into one below. With cgroup v1 the one that has the memory counts.
    """
    if not pid or not docker_id:
        return ""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
    found = {controllers: path for controllers, path in _LINE.findall(text) if docker_id in path}
    path = next((path for controllers, path in found.items() if "memory" in controllers), "")
    path = path or next(iter(found.values()), "")
    if not path:
        return ""
    parts = PurePosixPath(path).parts
    last = next(place for place, part in enumerate(parts) if docker_id in part)
    return str(PurePosixPath(*parts[: last + 1]))
