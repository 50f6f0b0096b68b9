"""Where this engine's containers and pods are measured: their cgroups, pinned namespaces and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Sandbox
from podwright.engines.node.places import Places
from podwright.engines.node.requests import has_pause
from podwright.engines.node.sight import NodeSight
from podwright.engines.oci.tasks import Tasks


class OciSight(NodeSight):
    """Implements engines.cgroup_stats.Sight."""

    def __init__(self, config: Config, places: Places, tasks: Tasks, mountpoint: str) -> None:
        super().__init__(config, places, tasks)
        self.mountpoint = mountpoint

    @property
    def top(self) -> Path:
        return self._places.root

    def held(self, sandbox: Sandbox) -> bool:
        return has_pause(sandbox)

    def layer(self, container_id: str) -> Sequence[str]:
        top = self._places.container_root(container_id)
        return (f"{top}/upper", f"{top}/volumes")
