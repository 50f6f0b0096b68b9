"""User namespaces of pods: which ids they have on the host, and who can have one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from podwright.engines.base import Container, Sandbox
from podwright.engines.node.places import Places
from podwright.engines.node.runtimes import Runtimes
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux.user_namespaces import IdMap
from podwright.spec.linux.namespaces import mappings
from podwright.wire import cri_pb2 as cri

_OPTIONS = "config.linux.security_context.namespace_options"


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The ids of a pod that has a user namespace."""

    uids: IdMap
    gids: IdMap
    namespace: Path
    """Where it is pinned."""

    @property
    def root(self) -> tuple[int, int]:
        """The pod's root as the host sees it."""
        return self.to_host(0, 0)

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """InvalidArgument for a user or a group that the pod does not have."""
        try:
            return self.uids.to_host(uid), self.gids.to_host(gid)
        except ValueError:
            raise InvalidArgument(
                "config.linux.security_context.run_as_user",
                f"the pod's user namespace has no user {uid} with group {gid}: it has {self.uids.length}"
                f" users and {self.gids.length} groups",
            ) from None


def rootfs(places: Places, container: Container) -> Path:
    """Where the root of `container` is mounted."""
    if wanted(container.sandbox):
        return places.mapped(container.id) / "rootfs"
    return places.rootfs(container.id)


def wanted(sandbox: Sandbox) -> bool:
    asked = sandbox.config.linux.security_context.namespace_options
    return asked.HasField("userns_options") and asked.userns_options.mode == cri.NamespaceMode.POD


def id_maps(places: Places, sandbox: Sandbox) -> IdMaps | None:
    """None for a pod in the host's user namespace. InvalidArgument for mappings that cannot be."""
    found = mappings(sandbox.config.linux.security_context.namespace_options, _OPTIONS)
    if found is None:
        return None
    uids, gids = (IdMap(each[0]["containerID"], each[0]["hostID"], each[0]["size"]) for each in found)
    return IdMaps(uids, gids, places.pin(sandbox.id, "user"))


async def check(places: Places, runtimes: Runtimes, sandbox: Sandbox) -> None:
    """InvalidArgument for a user namespace that cannot be, FailedPrecondition for one that the handler's
    runtime cannot make; fine for a pod without one."""
    if id_maps(places, sandbox) is None:
        return
    if refusal := await runtimes.no_user_namespaces(sandbox.handler):
        raise FailedPrecondition(f"{_OPTIONS}.userns_options: {refusal}")
