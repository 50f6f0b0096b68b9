"""Who is stopped after whom when a pod ends: ordinary containers together, then the sidecars, the last one
started first. Pure.

All pre-stop hooks begin at once; only the stop signals wait for their turn, and the wait is taken from the
grace period. So no sidecar outlives it because of the others.
"""

from __future__ import annotations

from collections.abc import Collection

from podwright.kube.manifest import Manifest
from podwright.kube.pod_state import Seen, SeenContainer


def to_stop(seen: Seen) -> tuple[SeenContainer, ...]:
    """The containers that run, of all sandboxes, newest first."""
    return tuple(one for one in seen.containers if one.running)


def groups(manifest: Manifest, seen: Seen) -> list[list[SeenContainer]]:
    """The running containers in the order of their stop signals: each group when the one before has ended.

    Init containers that are no sidecars, ephemeral containers and what the manifest no longer names wait for
    nobody.
    """
    running = to_stop(seen)
    sidecars = [one.name for one in manifest.sidecars]
    first = [one for one in running if one.name not in sidecars]
    later = [[one for one in running if one.name == name] for name in reversed(sidecars)]
    return [group for group in (first, *later) if group]


def prerequisites(manifest: Manifest, name: str, running: Collection[str]) -> set[str]:
    """Names of the running containers that must have ended before the stop signal of container `name`."""
    sidecars = [one.name for one in manifest.sidecars]
    if name not in sidecars:
        return set()
    before = {one.name for one in manifest.containers} | set(sidecars[sidecars.index(name) + 1 :])
    return before & set(running)
