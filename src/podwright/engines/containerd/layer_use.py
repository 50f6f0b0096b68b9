"""What containers' snapshots take on the disk: where their files are, or what the snapshotter says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.node.places import Places
from podwright.errors import NotFound, PodwrightError, Unavailable
from podwright.stats.disk import FIRST_WAIT, Use, pause
from podwright.wire.containerd import containers_pb2

SIDE_BY_SIDE = 8
"""Questions to containerd at once."""


@dataclass(slots=True)
class _Known:
    snapshotter: str = ""
    key: str = ""
    upper: str = ""
    """Its directory on this host; "" when only the snapshotter can tell."""
    use: Use | None = None
    due: float = 0.0
    """When it is asked again, by time.monotonic()."""
    asking: asyncio.Task[None] | None = None


class LayerUse:
    def __init__(self, containerd: Containerd, places: Places) -> None:
        self._containerd = containerd
        self._places = places
        self._snapshots = Snapshots(containerd)
        self._known: dict[str, _Known] = {}
        self._directories: dict[str, str] = {}
        self._turns = asyncio.Semaphore(SIDE_BY_SIDE)

    async def close(self) -> None:
        asking = [each.asking for each in self._known.values() if each.asking is not None]
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    def forget(self, id: str) -> None:
        known = self._known.pop(id, None)
        if known is not None and known.asking is not None:
            known.asking.cancel()

    def directory_of(self, id: str) -> str:
        """Where the snapshotter of a container has its files; "" when that is not known."""
        known = self._known.get(id)
        return self.directory(known.snapshotter) if known is not None else ""

    def directory(self, snapshotter: str) -> str:
        """As `directory` below, which is asked once."""
        known = self._directories.get(snapshotter)
        if known is None:
            known = directory(self._containerd, snapshotter)
            if known:
                self._directories[snapshotter] = known
        return known

    def trees(self, id: str) -> tuple[str, ...]:
        """The files of a container that were looked for, and its volumes."""
        known = self._known.get(id)
        volumes = f"{self._places.container_root(id)}/volumes"
        return (known.upper, volumes) if known is not None and known.upper else (volumes,)

    async def look(self, ids: Sequence[str]) -> None:
        """Find out where the files of those are that are not known yet."""
        await asyncio.gather(*(self._look(id) for id in ids if id not in self._known))

    async def with_snapshots(self, trees: Mapping[str, Use], ids: Sequence[str]) -> dict[str, Use]:
        """Together with the snapshots that only their snapshotters know: a key is left out as long as the
        first question takes."""
        found = dict(trees)
        asked = [id for id in ids if (known := self._known.get(id)) is not None and not known.upper]
        if not asked:
            return found
        now, first = time.monotonic(), []
        for id in asked:
            known = self._known[id]
            if known.due <= now and (known.asking is None or known.asking.done()):
                known.asking = asyncio.ensure_future(self._ask(known))
            if known.use is None and known.asking is not None:
                first.append(known.asking)
        if first:
            await asyncio.wait(first, timeout=FIRST_WAIT)
        for id in asked:
            use, volumes = self._known[id].use if id in self._known else None, found.pop(id, None)
            if use is not None and volumes is not None:
                use = Use(use.at, use.bytes + volumes.bytes, use.inodes + volumes.inodes)
            if use is not None:
                found[id] = use
        return found

    async def _look(self, id: str) -> None:
        request = containers_pb2.GetContainerRequest(id=id)
        async with self._turns:
            try:
                answer = await self._containerd.ask(self._containerd.containers.Get, request, f"record {id}")
                record = answer.container
                found = await self._snapshots.mounts(record.snapshot_key, record.snapshotter)
            except PodwrightError:
                return  # it is just being made or removed
        upper = Snapshots.upper_dir(found)
        self._known[id] = _Known(record.snapshotter, record.snapshot_key, str(upper) if upper else "")

    async def _ask(self, known: _Known) -> None:
        began = time.monotonic()
        async with self._turns:
            try:
                use = await self._snapshots.usage(known.key, known.snapshotter)
            except (NotFound, Unavailable):
                return
            except PodwrightError:
                use = None  # it cannot tell, now or ever
        if use is not None:
            known.use = Use(time.time_ns(), *use)
        known.due = time.monotonic() + pause(time.monotonic() - began)


def directory(containerd: Containerd, snapshotter: str) -> str:
    """Where a snapshotter has its files. Those that come with containerd and do not say it have them beside
    the others'. "" when neither tells."""
    found = {id: each.exports.get("root", "") for id, each in containerd.plugins(SNAPSHOTTERS).items()}
    if root := found.get(snapshotter):
        return root
    usual = (Path(root).parent for id, root in found.items() if Path(root).name == f"{SNAPSHOTTERS}.{id}")
    guess = next((each / f"{SNAPSHOTTERS}.{snapshotter}" for each in usual), None)
    return str(guess) if guess is not None and guess.is_dir() else ""
