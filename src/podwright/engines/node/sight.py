"""Where containers and pods of this node are measured, as far as that is the same for each engine: their
cgroups and pinned namespaces."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Protocol

from podwright.config import Config
from podwright.engines.base import Sandbox
from podwright.engines.node.places import Places
from podwright.engines.node.requests import cgroups_path, options
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri


class Located(Protocol):
    def cgroup(self, id: str) -> str: ...


class NodeSight:
    """A part of engines.cgroup_stats.Sight."""

    def __init__(self, config: Config, places: Places, tasks: Located) -> None:
        self._config = config
        self._places = places
        self._tasks = tasks

    def cgroup(self, id: str) -> str:
        return self._tasks.cgroup(id)

    def parent(self, sandbox: Sandbox) -> str:
        """Where the kernel has it."""
        of_container = cgroups.location(cgroups_path(self._config, sandbox, sandbox.id))
        return str(PurePosixPath(of_container).parent)

    def network(self, sandbox: Sandbox) -> str:
        if options(sandbox).network == cri.NamespaceMode.NODE:
            return ""
        return str(self._places.pin(sandbox.id, "net"))
