"""Changing the limits of a container that exists: its spec, its cgroup, the OOM scores of its processes.

The spec is written first: it tells what shall hold, also of a container that has no cgroup any more.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from podwright.config import Config
from podwright.engines.base import Container, Json
from podwright.engines.node.building import unlimited_quota_fails
from podwright.engines.node.limit_refusals import not_the_parents, parents_cpus, too_low, unheard_of
from podwright.engines.node.runtimes import Runtime
from podwright.errors import FailedPrecondition, NotFound, PodwrightError, Unavailable, Unimplemented
from podwright.linux import cgroups
from podwright.spec.encode import encode
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.process import update_oom_score_adj
from podwright.spec.resources import in_spec, not_set, to_oci, unsetting
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


class Changeable(Protocol):
    """An engine's containers, for who changes their limits."""

    def runtime(self, container: Container, /) -> Runtime:
        """Errors as `Engine.check_handler`."""

    def alive(self, container: Container, /) -> bool: ...

    def cgroup(self, id: str, /) -> str: ...

    async def read_spec(self, id: str, /) -> bytes:
        """NotFound for one that has just been removed."""

    async def write_spec(self, id: str, spec: bytes, /) -> None:
        """Whole, or not at all. NotFound."""

    async def change(self, container: Container, resources: dict[str, Json], /) -> None:
        """Have its runtime write these limits of the OCI to its cgroup. PodwrightError with its own words."""


class Updates:
    def __init__(self, config: Config, containers: Changeable, host: HostFacts) -> None:
        self._config = config
        self._containers = containers
        self._host = host

    def check(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        """See `Engine.check_update`."""
        runtime = self._containers.runtime(container)
        if runtime.kind == "runsc":
            raise Unimplemented(f"linux.resources: handler {runtime.handler!r}: gVisor has no `update`")
        self._limits(container, resources)
        update_oom_score_adj(resources, self._host)
        if why := unheard_of(resources, container.config.linux.resources, self._host):
            raise FailedPrecondition(why)
        for warning in not_set(resources, self._host):
            log.warning("container %s: %s", container.id, warning)
        if cgroups.layout().version == 2 and self._containers.alive(container):
            # v1 refuses such a limit, v2 kills.
            why = too_low(self._containers.cgroup(container.id), resources)
            if why:
                raise FailedPrecondition(why)

    async def apply(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None,
    ) -> None:
        """See `Engine.update_container`."""
        former = former if former is not None else resources
        limits, old = self._limits(container, resources), self._limits(container, former)
        try:
            await self._write_spec(container, resources, limits, old)
            if self._containers.alive(container):
                await self._change_cgroup(container, resources, limits, old)
        except (NotFound, FileNotFoundError):
            return  # it has just been removed
        if self._containers.runtime(container).sandboxed:
            return  # its processes are not this kernel's
        if self._containers.alive(container) and resources.oom_score_adj != former.oom_score_adj:
            self._change_scores(container, self._score(container, resources))

    def _limits(self, container: Container, resources: cri.LinuxContainerResources) -> dict[str, Json]:
        handler = self._containers.runtime(container).handler
        minimum = self._config.handlers[handler].minimum_memory
        return to_oci(resources, self._host, "linux", minimum_memory=minimum)

    def _score(self, container: Container, resources: cri.LinuxContainerResources) -> int:
        if not resources.oom_score_adj and not container.config.linux.HasField("resources"):
            return self._host.own_oom_score_adj  # it was made with
        return update_oom_score_adj(resources, self._host)

    async def _write_spec(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        limits: Mapping[str, Json],
        former: Mapping[str, Json],
    ) -> None:
        text = await self._containers.read_spec(container.id)
        spec = msgspec.json.decode(text, type=dict[str, Json])
        linux = spec.setdefault("linux", {})
        linux["resources"] = in_spec(linux.get("resources") or {}, limits, former)
        if resources.oom_score_adj:
            spec["process"]["oomScoreAdj"] = self._score(container, resources)
        await self._containers.write_spec(container.id, encode(spec))

    async def _change_cgroup(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        limits: Mapping[str, Json],
        former: Mapping[str, Json],
    ) -> None:
        runtime, cgroup = self._containers.runtime(container), self._containers.cgroup(container.id)
        asked = unsetting(limits, former, parents_cpus(cgroup))
        if unlimited_quota_fails(asked, runtime):
            del asked["cpu"]["quota"]
            (cgroups.directory(cgroup, "cpu") / "cpu.cfs_quota_us").write_text("-1")
        try:
            await self._containers.change(container, asked)
        except Unavailable:
            raise
        except PodwrightError:
            if not self._containers.alive(container):
                return
            if why := too_low(cgroup, resources) or not_the_parents(resources, parents_cpus(cgroup)):
                raise FailedPrecondition(why) from None
            raise

    def _change_scores(self, container: Container, score: int) -> None:
        """Give the processes that have the first one's score the new one; those that have chosen their own
        keep it. The first comes last: it tells where an update that was cut short stood."""
        first = container.facts.pid
        try:
            old = _read_score(first)
            if old == score:
                return
            for _ in range(2):  # the second time those that were just being forked
                for pid in cgroups.pids(self._containers.cgroup(container.id)) - {first}:
                    _replace_score(pid, old, score)
            _replace_score(first, old, score)
        except ProcessLookupError:
            return  # it has just ended


def _read_score(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"no process {pid}") from None


def _replace_score(pid: int, old: int, new: int) -> None:
    try:
        if _read_score(pid) == old:
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(new))
    except (FileNotFoundError, ProcessLookupError):
        pass
    except OSError as error:
        raise FailedPrecondition(
            f"linux.oom_score_adj: process {pid} cannot have {new}: {error.strerror}"
        ) from error
