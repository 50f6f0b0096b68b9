"""What a snapshotter's snapshots take on the disk, asked for seldom: a devmapper or zfs has to look each up.

As containerd's own CRI plugin counts it: all of the snapshotter's snapshots, containers' as well as layers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from podwright.engines.base import FilesystemUse
from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.engines.containerd.layer_use import directory
from podwright.errors import NotFound, PodwrightError
from podwright.wire.containerd import snapshots_pb2

log = logging.getLogger(__name__)

AGAIN = 10.0
"""Seconds for which an answer counts, as containerd has it."""
SIDE_BY_SIDE = 16


@dataclass(frozen=True, slots=True)
class _Use:
    bytes: int
    inodes: int


class SnapshotUse:
    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self._committed: dict[tuple[str, str], _Use] = {}
        """Of layers, by snapshotter and name: they do not change."""
        self._answers: dict[str, tuple[float, FilesystemUse]] = {}
        self._turns = asyncio.Semaphore(SIDE_BY_SIDE)
        self._asking = asyncio.Lock()

    def changed(self) -> None:
        """Layers have come or gone: the next question is answered anew."""
        self._answers.clear()

    async def filesystem(self, snapshotter: str) -> FilesystemUse:
        async with self._asking:
            asked, answer = self._answers.get(snapshotter, (0.0, None))
            if answer is None or time.monotonic() - asked > AGAIN:
                asked, answer = time.monotonic(), await self._ask(snapshotter)
                self._answers[snapshotter] = asked, answer
        return answer

    async def filesystems(self, first: str, others: Sequence[str]) -> FilesystemUse:
        """Of all these snapshotters; of the others only those that the daemon has and that answer."""
        found = []
        for each in others:
            if self._containerd.has(SNAPSHOTTERS, each):
                try:
                    found.append(await self.filesystem(each))
                except PodwrightError as error:
                    log.warning("what the snapshotter %s holds is not told: %s", each, error)
        return replace(await self.filesystem(first), others=found)

    async def snapshots(self, snapshotter: str) -> Sequence[snapshots_pb2.Info]:
        """All of this snapshotter's in the namespace."""
        listed = self._containerd.listen(
            self._containerd.snapshots.List,
            snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter),
            f"snapshots of {snapshotter}",
        )
        return [info async for answer in listed for info in answer.info]

    async def of_layer(self, snapshotter: str, name: str) -> tuple[int, int]:
        """Bytes and inodes of a committed snapshot; nothing of one that is gone."""
        if (snapshotter, name) not in self._committed:
            self._committed[snapshotter, name] = await self._usage(snapshotter, name)
        use = self._committed[snapshotter, name]
        return use.bytes, use.inodes

    async def _ask(self, snapshotter: str) -> FilesystemUse:
        infos = await self.snapshots(snapshotter)
        names = {each.name for each in infos}
        for key in [key for key in self._committed if key[0] == snapshotter and key[1] not in names]:
            del self._committed[key]
        uses = await asyncio.gather(*(self._of(snapshotter, each) for each in infos))
        return FilesystemUse(
            directory(self._containerd, snapshotter),
            sum(each.bytes for each in uses),
            sum(each.inodes for each in uses),
        )

    async def _of(self, snapshotter: str, info: snapshots_pb2.Info) -> _Use:
        if info.kind != snapshots_pb2.COMMITTED:
            return await self._usage(snapshotter, info.name)
        return _Use(*await self.of_layer(snapshotter, info.name))

    async def _usage(self, snapshotter: str, key: str) -> _Use:
        request = snapshots_pb2.UsageRequest(snapshotter=snapshotter, key=key)
        async with self._turns:
            try:
                answer = await self._containerd.ask(
                    self._containerd.snapshots.Usage, request, f"use of snapshot {key}"
                )
            except NotFound:
                return _Use(0, 0)
        return _Use(int(answer.size), int(answer.inodes))
