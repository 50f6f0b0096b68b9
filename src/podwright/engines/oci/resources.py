"""Changing the limits of a container that exists: its spec, its cgroup, the OOM scores of its processes.

The spec in the bundle is written first: it tells what shall hold, also of a container that has no cgroup any
more.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from podwright.config import Config
from podwright.engines.base import Container, Json
from podwright.engines.node.limit_refusals import not_the_parents, parents_cpus, too_low, unheard_of
from podwright.engines.node.parts import started
from podwright.engines.node.places import Places
from podwright.engines.oci import conmon, runtimes
from podwright.engines.oci.runtimes import Runtime, Runtimes
from podwright.engines.oci.tasks import Tasks
from podwright.errors import CommandFailed, FailedPrecondition, Unimplemented
from podwright.linux import cgroups, spawn
from podwright.spec.encode import encode
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.process import update_oom_score_adj
from podwright.spec.resources import in_spec, not_set, to_oci, unsetting
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


class Updates:
    def __init__(
        self, config: Config, places: Places, runtimes: Runtimes, tasks: Tasks, host: HostFacts
    ) -> None:
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._tasks = tasks
        self._host = host

    def check(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        """See `Engine.check_update`."""
        runtime = self._runtimes.get(container.sandbox.handler)
        if refusal := runtimes.resources_refused(runtime):
            raise Unimplemented(f"linux.resources: {refusal}")
        self._limits(container, resources)
        update_oom_score_adj(resources, self._host)
        if why := unheard_of(resources, container.config.linux.resources, self._host):
            raise FailedPrecondition(why)
        for warning in not_set(resources, self._host):
            log.warning("container %s: %s", container.id, warning)
        if cgroups.layout().version == 2 and self._alive(container):
            # v1 refuses such a limit, v2 kills.
            why = too_low(self._tasks.cgroup(container.id), resources)
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
            self._write_spec(container, resources, limits, old)
            if self._alive(container):
                await self._change_cgroup(container, resources, limits, old)
        except FileNotFoundError:
            return  # it has just been removed
        if self._alive(container) and resources.oom_score_adj != former.oom_score_adj:
            self._change_scores(container, self._score(container, resources))

    def _limits(self, container: Container, resources: cri.LinuxContainerResources) -> dict[str, Json]:
        handler = self._runtimes.get(container.sandbox.handler).handler
        minimum = self._config.handlers[handler].minimum_memory
        return to_oci(resources, self._host, "linux", minimum_memory=minimum)

    def _alive(self, container: Container) -> bool:
        return self._tasks.alive(container.id, container.facts.pid, started(container))

    def _score(self, container: Container, resources: cri.LinuxContainerResources) -> int:
        if not resources.oom_score_adj and not container.config.linux.HasField("resources"):
            return self._host.own_oom_score_adj  # it was made with
        return update_oom_score_adj(resources, self._host)

    def _write_spec(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        limits: Mapping[str, Json],
        former: Mapping[str, Json],
    ) -> None:
        file = self._places.container_run(container.id) / "config.json"
        spec = msgspec.json.decode(file.read_bytes(), type=dict[str, Json])
        linux = spec.setdefault("linux", {})
        linux["resources"] = in_spec(linux.get("resources") or {}, limits, former)
        if resources.oom_score_adj:
            spec["process"]["oomScoreAdj"] = self._score(container, resources)
        draft = file.with_name("config.json.new")
        draft.write_bytes(encode(spec))
        draft.chmod(file.stat().st_mode & 0o777)
        draft.rename(file)

    async def _change_cgroup(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        limits: Mapping[str, Json],
        former: Mapping[str, Json],
    ) -> None:
        runtime = self._runtimes.get(container.sandbox.handler)
        cgroup = self._tasks.cgroup(container.id)
        asked = unsetting(limits, former, parents_cpus(cgroup))
        if unlimited_quota_fails(asked, runtime):
            del asked["cpu"]["quota"]
            (cgroups.directory(cgroup, "cpu") / "cpu.cfs_quota_us").write_text("-1")
        file = self._places.container_run(container.id) / "resources.json"
        file.write_bytes(msgspec.json.encode(asked))
        done = await spawn.run(runtime.argv("update", "--resources", str(file), container.id))
        if done.status == 0 or not self._alive(container):
            return
        if why := too_low(cgroup, resources) or not_the_parents(resources, parents_cpus(cgroup)):
            raise FailedPrecondition(why)
        words = conmon.plain_words(done.stderr.decode(errors="replace"))
        raise CommandFailed(runtime.kind, done.status, words)

    def _change_scores(self, container: Container, score: int) -> None:
        """Give the processes that have the first one's score the new one; those that have chosen their own
        keep it. The first comes last: it tells where an update that was cut short stood."""
        first = container.facts.pid
        try:
            old = _read_score(first)
            if old == score:
                return
            for _ in range(2):  # the second time those that were just being forked
                for pid in cgroups.pids(self._tasks.cgroup(container.id)) - {first}:
                    _replace_score(pid, old, score)
            _replace_score(first, old, score)
        except ProcessLookupError:
            return  # it has just ended


def unlimited_quota_fails(resources: Mapping[str, Json], runtime: Runtime) -> bool:
    """Whether `runtime` cannot write the CPU quota "unlimited" that is in `linux.resources` of a spec: some
    crun write it unsigned, and cgroup v1 refuses that. A new cgroup has no quota anyway."""
    quota = (resources.get("cpu") or {}).get("quota") or 0
    return bool(quota < 0 and runtime.kind == "crun" and cgroups.layout().version == 1)


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
