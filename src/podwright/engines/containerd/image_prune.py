"""Which images nobody uses, and what goes with them: their layers and blobs that no other image needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.engines.containerd.content import Content
from podwright.engines.containerd.image_records import Entry
from podwright.engines.containerd.image_usage import SnapshotUse
from podwright.engines.containerd.leases import CONTENT, PullLeases
from podwright.wire import podwright_pb2 as own
from podwright.wire.containerd import containers_pb2, snapshots_pb2


class Pruning:
    def __init__(
        self, containerd: Containerd, content: Content, use: SnapshotUse, leases: PullLeases, snapshotter: str
    ) -> None:
        self._containerd = containerd
        self._content = content
        self._use = use
        self._leases = leases
        self._snapshotter = snapshotter

    async def unused(self, entries: Sequence[Entry], *, untagged_only: bool) -> list[Entry]:
        """Images that no container of this namespace uses, whoever's it is, and that are not pinned."""
        chains, names = await self._used()
        return [
            each
            for each in entries
            if not each.image.pinned
            and not (untagged_only and each.image.repo_tags)
            and not names & {each.image.id, *each.names, *each.image.repo_tags, *each.image.repo_digests}
            and not any(tree.chain and tree.chain[-1] in chains for tree in each.trees)
        ]

    async def told(self, going: Sequence[Entry], entries: Sequence[Entry]) -> own.PruneImagesResponse:
        """What goes when `going` of all `entries` are removed one after the other, and then what interrupted
        pulls have left."""
        sizes = {each.digest: each.size for each in await self._content.all()}
        blobs, layers = Counter[str](), Counter[str]()
        for entry in entries:
            blobs.update(_blobs(entry))
            layers.update(_layers(entry))
        answer = own.PruneImagesResponse()
        for entry in going:
            blobs.subtract(_blobs(entry))
            layers.subtract(_layers(entry))
            size = sum(sizes.get(each, 0) for each in _blobs(entry) if not blobs[each])
            for chain_id in _layers(entry):
                if not layers[chain_id]:
                    bytes_, inodes = await self._use.of_layer(self._snapshotter, chain_id)
                    size += bytes_
                    answer.inodes += inodes
            image = entry.image
            answer.images.add(id=image.id, names=[*image.repo_tags, *image.repo_digests], bytes=size)
            answer.bytes += size
        held = await self._pending()
        for digest in sorted(held & sizes.keys()):
            if not blobs[digest]:
                answer.blobs.append(digest)
                answer.bytes += sizes[digest]
        return answer

    async def _used(self) -> tuple[set[str], set[str]]:
        """Chain ids that containers' snapshots stand on, and what containers say that their images are."""
        chains = {
            each.parent
            for snapshotter in self._containerd.plugins(SNAPSHOTTERS)
            for each in await self._use.snapshots(snapshotter)
            # One that is being unpacked stands on a layer, too, but its name says what it is.
            if each.kind != snapshots_pb2.COMMITTED and not each.name.startswith("extract-")
        }
        listed = self._containerd.listen(
            self._containerd.containers.ListStream, containers_pb2.ListContainersRequest(), "its containers"
        )
        return chains, {each.container.image async for each in listed if each.container.image}

    async def _pending(self) -> set[str]:
        """Digests that only leases of interrupted pulls of ours hold."""
        pending = {each.id for each in await self._leases.pending()}
        ours, theirs = set[str](), set[str]()
        for lease in await self._leases.all():
            for resource in await self._leases.resources(lease.id):
                if resource.type == CONTENT:
                    (ours if lease.id in pending else theirs).add(resource.id)
        return ours - theirs


def _blobs(entry: Entry) -> set[str]:
    return {digest for tree in entry.trees for digest in tree.digests}


def _layers(entry: Entry) -> set[str]:
    return {chain_id for tree in entry.trees for chain_id in tree.chain}
