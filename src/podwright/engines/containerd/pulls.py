"""containerd as the destination of pulls: blobs to its content store, layers to its snapshotter, names last.

What has come is tied together by labels, as containerd's own clients do it, so that its garbage collector
keeps an image whole as long as a record points at it, and lets it go afterwards: index -> manifest ->
configuration and layers; configuration -> topmost snapshot.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from podwright.config import ImageConfig
from podwright.engines.base import Image
from podwright.engines.containerd.content import GC_CONTENT, GC_SNAPSHOT, SOURCE, Content
from podwright.engines.containerd.image_records import ImageRecords
from podwright.engines.containerd.image_trees import DIFF_ID, Trees, described
from podwright.engines.containerd.leases import CONTENT, PullLease, PullLeases
from podwright.engines.containerd.scratch import Scratch
from podwright.engines.containerd.unpack import LAYER_TYPE, Unpacking
from podwright.errors import NotFound
from podwright.images import artifacts
from podwright.images.destination import Coming, Fetch
from podwright.images.documents import Descriptor, Index, read_manifest
from podwright.images.entries import NewImage
from podwright.images.importing import FileFetch
from podwright.images.references import Reference


class ContainerdDestination:
    """Implements images.destination.Destination."""

    def __init__(
        self,
        config: ImageConfig,
        snapshotter: str,
        content: Content,
        unpacking: Unpacking,
        trees: Trees,
        records: ImageRecords,
        leases: PullLeases,
        scratch: Scratch,
        *,
        discard: bool,
    ) -> None:
        """`discard`: layers need no blob once they are unpacked."""
        self.config = config
        self.snapshotter = snapshotter
        self.content = content
        self.unpacking = unpacking
        self.trees = trees
        self.records = records
        self.discard = discard
        self._leases = leases
        self._scratch = scratch

    async def known(self, source: str, served: str) -> str:
        found = [tree for each in await self.records.all() for tree in each.trees]
        if served not in (tree.target.digest for tree in found):
            return ""
        try:
            tree = await self.trees.read(await self.trees.describe(served), best=True)
        except NotFound:
            return ""
        if tree.chain and not await self.unpacking.there(tree.chain[-1], self.snapshotter):
            return ""
        wanted = tree.documents if self.discard else tree.digests
        there = [await self.content.info(each) is not None for each in wanted]
        return tree.id if all(there) and (tree.diff_ids or not tree.artifact) else ""

    async def name(self, image_id: str, served: str, names: Sequence[str]) -> Image:
        await self.records.point(await self.trees.describe(served), [*names, image_id])
        return (await self.records.with_id(image_id)).image

    @asynccontextmanager
    async def intake(self, coming: Coming) -> AsyncIterator[ContainerdIntake]:
        self.unpacking.check(self.snapshotter)
        async with self._leases.lease(coming.about) as lease:
            await lease.hold(CONTENT, [*coming.documents, *(each.digest for each in coming.layers)])
            yield ContainerdIntake(self, coming, lease)

    def workplace(self) -> AbstractAsyncContextManager[Path]:
        return self._scratch.workplace()

    def ended(self, *, failed: bool) -> None:
        """containerd collects by itself."""


class ContainerdIntake:
    """Implements images.destination.Intake."""

    def __init__(self, to: ContainerdDestination, coming: Coming, lease: PullLease) -> None:
        self._to = to
        self._coming = coming
        self._lease = lease
        source = coming.source
        self._labels: Mapping[str, str] = {}
        if isinstance(source, Reference):
            self._labels = {f"{SOURCE}.{_host(source.domain)}": source.path}

    async def put(self, content: bytes) -> None:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        kind, labels = self._described(digest, content)
        ref = f"{kind}-{digest}"
        await self._to.content.put(ref, content, digest, {**labels, **self._labels})

    async def take(self, fetch: Fetch) -> None:
        blob = fetch.descriptor
        kind = "config" if blob.digest == self._coming.documents[-1] else "layer"
        ref = f"{kind}-{blob.digest}"
        await self._lease.hold("ingests", [ref])
        await self._to.content.write(ref, blob, fetch.pieces, self._labels)

    async def read(self, digest: str) -> bytes:
        return await self._to.content.read(digest)

    async def hold(self, chain: Sequence[str]) -> Sequence[bool]:
        to = self._to
        await self._lease.hold(f"snapshots/{to.snapshotter}", chain)
        there = [await to.unpacking.there(each, to.snapshotter) for each in chain]
        if to.discard:
            return there
        blobs = [await to.content.info(each.digest) is not None for each in self._coming.layers]
        return [snapshot and blob for snapshot, blob in zip(there, blobs, strict=False)]

    async def unpack(self, chain: Sequence[str], diff_id: str, blob: Descriptor) -> None:
        await self._to.unpacking.ensure(chain, diff_id, blob, self._to.snapshotter, self._lease)

    async def unpack_files(self, files: Sequence[tuple[str, Descriptor]]) -> str:
        async with self._to.workplace() as work:
            blob = await artifact_layer(self._to.content, files, work)
            await self._lease.hold(CONTENT, [blob.digest])
            await self.hold([blob.digest])
            await self.take(FileFetch(blob, work / "layer"))
            await self.unpack([blob.digest], blob.digest, blob)
        return blob.digest

    async def record(self, new: NewImage, names: Iterable[str]) -> Image:
        to = self._to
        if new.chain:
            artifact = new.id == new.manifest
            labels = {f"{GC_SNAPSHOT}.{to.snapshotter}": new.chain[-1]}
            if artifact:
                labels[DIFF_ID] = new.chain[-1]
            await to.content.label(new.id, labels)
        served = described(await to.content.read(new.served))
        await to.records.point(served, [*names, new.id])
        self._lease.recorded = True
        return (await to.records.with_id(new.id)).image

    def _described(self, digest: str, content: bytes) -> tuple[str, dict[str, str]]:
        """What a document is, and labels for what it needs."""
        documents = self._coming.documents
        if digest == documents[-1]:
            return "config", {}
        document = read_manifest(self._coming.about, content)
        if isinstance(document, Index):
            # Named by its digest: another client's pull for another platform numbers its own.
            child = documents[documents.index(digest) + 1]
            return "index", {f"{GC_CONTENT}.m.{child.partition(':')[2][:12]}": child}
        labels = {f"{GC_CONTENT}.config": document.config.digest}
        # The layer that an artifact becomes is made of its blobs.
        if not self._to.discard or document.is_artifact:
            labels |= {f"{GC_CONTENT}.l.{at}": each.digest for at, each in enumerate(document.layers)}
        return "manifest", labels


def _host(domain: str) -> str:
    """A registry as containerd's label has it: without its port."""
    return re.sub(r":[0-9]+$", "", domain).strip("[]")


async def artifact_layer(content: Content, files: Sequence[tuple[str, Descriptor]], work: Path) -> Descriptor:
    """Make the file "layer" in `work` of an artifact's blobs; what it is."""
    paths = []
    for index, (name, each) in enumerate(files):
        paths.append((name, work / str(index)))
        await copied(content, each.digest, work / str(index))
    diff_id = await artifacts.packed(paths, work / "layer")
    return Descriptor(diff_id, LAYER_TYPE, (work / "layer").stat().st_size)


async def copied(content: Content, digest: str, target: Path) -> None:
    """Write a blob to the new file `target`."""
    with target.open("xb") as file:
        async for piece in content.pieces(digest):
            await asyncio.to_thread(file.write, piece)
