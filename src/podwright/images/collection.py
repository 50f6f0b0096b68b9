"""What a store keeps and why it may let go: the needs of images, collecting the rest, pruning.

An image needs its layers; while it is listed also its manifests, what they were served through, and the blobs
that they name. Containers that use a removed image keep its layers, but not its blobs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podwright.engines.base import Image
from podwright.images.blobs import Blobs
from podwright.images.entries import Entry
from podwright.images.layers import Layers
from podwright.images.records import Records
from podwright.wire import podwright_pb2 as own

SECOND = 10**9
NEVER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the configuration."""

    keep_layer_blobs: bool
    pending_blobs_for: float
    """Seconds."""


class Collection:
    def __init__(self, records: Records, layers: Layers, blobs: Blobs, limits: Limits) -> None:
        self._records = records
        self._layers = layers
        self._blobs = blobs
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def needed_blobs(self, entry: Entry) -> set[str]:
        """The digests of what a listed image keeps, as far as it was ever here."""
        if entry.hidden:
            return set()
        needed = {entry.image.id}
        for manifest in entry.manifests.values():
            needed.update(manifest.documents)
            if self._limits.keep_layer_blobs:
                needed |= {layer.digest for layer in manifest.content.layers}
        return needed

    def expires(self, pending_since: int) -> int:
        """When a blob that is pending since then goes; nanoseconds since the epoch."""
        return pending_since + int(self._limits.pending_blobs_for * SECOND)

    async def collect(self, *, pending: bool = False) -> None:
        """Remove the layers that no image has, and the blobs that none needs; `pending` ones, too, or only
        those whose time is over."""
        self._records.drop_unnamed_manifests()
        images = self._records.images.values()
        await self._layers.collect({chain_id for entry in images for chain_id in entry.chain})
        oldest = NEVER if pending else time.time_ns() - int(self._limits.pending_blobs_for * SECOND)
        await self._blobs.collect({digest for entry in images for digest in self.needed_blobs(entry)}, oldest)

    def when_next_expires(self, call: Callable[[], None]) -> None:
        """Call once, when the next pending blob may go; instead of what was asked for before."""
        self.stop()
        since = [blob.pending_since for blob in self._blobs.all() if blob.pending_since is not None]
        if since:
            wait = max(0.0, (self.expires(min(since)) - time.time_ns()) / SECOND) + 1.0
            self._timer = asyncio.get_running_loop().call_later(wait, call)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def prunable(self, untagged_only: bool) -> Sequence[Image]:
        """Listed images that no container uses and that are not pinned."""
        return [
            entry.image
            for entry in self._records.visible()
            if not entry.users and not entry.image.pinned and not (untagged_only and entry.image.repo_tags)
        ]

    def pruned(self, images: Sequence[Image]) -> own.PruneImagesResponse:
        """What goes when `images` are removed, one after the other, and then every pending blob."""
        layers, blobs = Counter[str](), Counter[str]()
        for entry in self._records.images.values():
            layers.update(set(entry.chain))
            blobs.update(self.needed_blobs(entry))
        answer = own.PruneImagesResponse()
        for image in images:
            entry = self._records.entry(image.id)
            layers.subtract(set(entry.chain))
            blobs.subtract(needed := self.needed_blobs(entry))
            size = 0
            for layer in filter(None, map(self._layers.get, set(entry.chain))):
                if not layers[layer.chain_id]:
                    size += layer.bytes
                    answer.inodes += layer.inodes
            for blob in filter(None, map(self._blobs.get, needed)):
                if not blobs[blob.digest] and not self._blobs.held(blob.digest):
                    size += blob.disk_bytes
                    answer.inodes += 1
            answer.images.add(id=image.id, names=[*image.repo_tags, *image.repo_digests], bytes=size)
            answer.bytes += size
        for blob in self._blobs.all():
            if blob.digest not in blobs and not self._blobs.held(blob.digest):
                answer.blobs.append(blob.digest)
                answer.bytes += blob.disk_bytes
                answer.inodes += 1
        return answer
