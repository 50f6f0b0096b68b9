"""Where this engine's containers and pods are measured: their cgroups, pinned namespaces and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from podwright.config import Config
from podwright.engines.base import Sandbox
from podwright.engines.node.places import Places
from podwright.engines.node.requests import cgroups_path, has_pause, options
from podwright.engines.oci.tasks import Tasks
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri


class OciSight:
    """Implements engines.cgroup_stats.Sight."""

    def __init__(self, config: Config, places: Places, tasks: Tasks, mountpoint: str) -> None:
        self._config = config
        self._places = places
        self._tasks = tasks
        self.mountpoint = mountpoint

    @property
    def top(self) -> Path:
        return self._places.root

    def cgroup(self, id: str) -> str:
        return self._tasks.cgroup(id)

    def parent(self, sandbox: Sandbox) -> str:
        """Where the kernel has it."""
        of_container = cgroups.location(cgroups_path(self._config, sandbox, sandbox.id))
        return str(PurePosixPath(of_container).parent)

    def held(self, sandbox: Sandbox) -> bool:
        return has_pause(sandbox)

    def network(self, sandbox: Sandbox) -> str:
        if options(sandbox).network == cri.NamespaceMode.NODE:
            return ""
        return str(self._places.pin(sandbox.id, "net"))

    def layer(self, container_id: str) -> Sequence[str]:
        top = self._places.container_root(container_id)
        return (f"{top}/upper", f"{top}/volumes")
