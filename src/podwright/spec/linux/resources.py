"""Cgroup of a container: its place and its limits."""

from __future__ import annotations

from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts, SandboxInput
from podwright.spec.resources import not_set, to_oci

_FIELD = "config.linux.resources"
_ORIGINS = {
    "cpu": f"request: {_FIELD}.cpu_*, cpuset_*",
    "memory": f"request: {_FIELD}.memory_*",
    "hugepageLimits": f"request: {_FIELD}.hugepage_limits",
    "unified": f"request: {_FIELD}.unified",
}


def resources(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The request's limits; without `resources` the container may use what its pod has."""
    linux = request.config.linux
    if linux.HasField("resources"):
        minimum = request.handler.minimum_memory
        for member, value in to_oci(linux.resources, host, minimum_memory=minimum).items():
            of_base = draft.resources.get(member)
            draft.resources[member] = {**of_base, **value} if isinstance(of_base, dict) else value
            draft.note(f"linux.resources.{member}", _ORIGINS[member])
        for warning in not_set(linux.resources, host):
            draft.warn(warning)
    if host.policy.pids_limit:
        draft.resources["pids"] = {"limit": host.policy.pids_limit}
        draft.note("linux.resources.pids", "node: pids_limit")


def cgroups_path(draft: Draft, request: ContainerInput | SandboxInput, host: HostFacts) -> None:
    if request.cgroups_path:
        draft.linux["cgroupsPath"] = request.cgroups_path
        draft.note("linux.cgroupsPath", "request: sandbox linux.cgroup_parent, or the node's cgroup_parent")


def pause_resources(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    draft.resources["cpu"] = {"shares": 2}
    draft.note("linux.resources.cpu", "default: the smallest share there is, the pause process only waits")
    if host.policy.pause_cpuset:
        draft.resources["cpu"]["cpus"] = host.policy.pause_cpuset
        draft.note("linux.resources.cpu.cpus", "node: pause_cpuset")
