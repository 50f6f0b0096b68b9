"""Who is stopped after whom when a pod ends: ordinary containers together, then the sidecars, the last one
started first. Pure.

All pre-stop hooks begin at once; only the stop signals wait for their turn, and the wait is taken from the
grace period. So no sidecar outlives it because of the others.
"""

from __future__ import annotations

from collections.abc import Collection

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.state.pod_state import Seen, SeenContainer


def to_stop(seen: Seen) -> tuple[SeenContainer, ...]:
    """The containers that run, of all sandboxes, newest first."""
    return tuple(one for one in seen.containers if one.running)


def prerequisites(manifest: Manifest, name: str, running: Collection[str]) -> set[str]:
    """Names of the running containers that must have ended before the stop signal of container `name`."""
    sidecars = [one.name for one in manifest.sidecars]
    if name not in sidecars:
        return set()
    before = {one.name for one in manifest.containers} | set(sidecars[sidecars.index(name) + 1 :])
    return before & set(running)
