"""The volumes of pods: made, kept up to date, told to the runtime as mounts, and removed. All of it blocks
(directories, mounts) and is called through a thread, but for the planning, which is pure.

Two processes never work on one pod at once: its worker is one.
"""

from podwright.kube.volumes.container import container_mounts, planned_mounts
from podwright.kube.volumes.kinds import Bindings
from podwright.kube.volumes.removal import discard, remove
from podwright.kube.volumes.setup import make, refresh

__all__ = [
    "Bindings",
    "container_mounts",
    "discard",
    "make",
    "planned_mounts",
    "refresh",
    "remove",
]
