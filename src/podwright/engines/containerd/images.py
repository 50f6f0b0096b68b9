"""Images of a containerd, as core wants them (engines.base.ImageService).

They are those of the namespace, whoever has pulled them. A container needs of its image only the snapshot
that its own stands on: so a removed image's files stay as long as a container has them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext

from podwright.config import Config
from podwright.engines.base import Credentials, FilesystemUse, Image, Json
from podwright.engines.containerd import archives
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.content import GC_SNAPSHOT, Content
from podwright.engines.containerd.image_prune import Pruning
from podwright.engines.containerd.image_records import MANAGED, Entry, ImageRecords
from podwright.engines.containerd.image_trees import DIFF_ID, Tree, Trees
from podwright.engines.containerd.image_usage import SnapshotUse
from podwright.engines.containerd.image_why import Why
from podwright.engines.containerd.leases import CONTENT, PullLease, PullLeases
from podwright.engines.containerd.pause_image import REPOSITORY, PauseImage
from podwright.engines.containerd.pulls import ContainerdDestination, artifact_layer
from podwright.engines.containerd.scratch import Scratch
from podwright.engines.containerd.transfer import TransferPulls
from podwright.engines.containerd.unpack import Unpacking
from podwright.errors import FailedPrecondition, NotFound
from podwright.images import artifacts, references
from podwright.images.importing import FileFetch, Importing
from podwright.images.pinned import Pinned
from podwright.images.platform import wanted_platform
from podwright.images.progress import Pulls
from podwright.images.pulling import Pulling
from podwright.images.references import Reference
from podwright.images.transfers import Shared, Work
from podwright.steps import step
from podwright.wire import podwright_pb2 as own


class Images:
    def __init__(self, containerd: Containerd, config: Config) -> None:
        """InvalidArgument for a pattern in images.pinned that means nothing."""
        self._containerd = containerd
        settings = config.containerd
        self._snapshotter = settings.snapshotter
        several = {each.snapshotter for each in config.handlers.values()} - {"", self._snapshotter}
        self._others = sorted(several)
        # Another handler's snapshotter needs the blobs when its first container comes.
        discard = config.images.discard_unpacked_layers and not several
        sandbox = settings.sandbox_image or f"{REPOSITORY}:*"
        pinned = Pinned([*config.images.pinned, sandbox])
        self._content = Content(containerd)
        self._unpacking = Unpacking(containerd, self._content)
        self._platform = wanted_platform(config.images.platform)
        self._trees = Trees(self._content, self._platform)
        self._records = ImageRecords(containerd, self._trees, pinned)
        self._leases = PullLeases(
            containerd, str(config.root_path.absolute()), config.images.pending_blobs_for
        )
        self._scratch = Scratch(config.root_path / "containerd" / "tmp")
        self._use = SnapshotUse(containerd)
        self._destination = ContainerdDestination(
            config.images,
            self._snapshotter,
            self._content,
            self._unpacking,
            self._trees,
            self._records,
            self._leases,
            self._scratch,
            discard=discard,
        )
        self._board = Pulls()
        self._pulling = Pulling(config.images, self._destination, self._board)
        self._importing = Importing(self._destination, self._pulling)
        self._pruning = Pruning(containerd, self._content, self._use, self._leases, self._snapshotter)
        self._why = Why(
            containerd,
            self._content,
            self._records,
            self._leases,
            self._use,
            pinned,
            [self._snapshotter, *self._others],
        )
        self._pause = PauseImage(
            settings.sandbox_image,
            self.find,
            lambda name: self.pull(name, None),
            self._importing,
            self._scratch,
        )
        self._unpacks: Shared[str] = Shared()
        self._chains: dict[tuple[str, str], str] = {}
        """What images are in snapshotters, as far as they were once found there."""
        self._transfers = TransferPulls(containerd, config.images, wanted=settings.transfer)
        self._transferring: Shared[Image] = Shared()

    async def open(self) -> None:
        """Clear away what a crash left here; containerd has been looked at. FailedPrecondition when it has
        not the configured snapshotter."""
        self._unpacking.check(self._snapshotter)
        await self._scratch.open()

    async def close(self) -> None:
        """End pulls that are under way."""
        await self._pulling.close()
        await self._transferring.close()
        await self._unpacks.close()

    # Looking

    async def list(self) -> Sequence[Image]:
        return [each.image for each in await self._records.all()]

    async def find(self, reference: str) -> Image | None:
        """See `ImageRecords.find`."""
        entry = await self._records.find(reference)
        return entry.image if entry is not None else None

    async def filesystem_use(self) -> FilesystemUse:
        return await self._use.filesystems(self._snapshotter, self._others)

    async def explain_blob(self, digest: str) -> own.ExplainBlobResponse:
        return await self._why.explain(digest)

    # Pulls

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        try:
            source = references.parse_local(reference) or references.parse(reference)
            if isinstance(source, Reference) and not self._transfers.why_not(source, credentials):
                return await self._transferred(source, credentials)
            return await self._pulling.pull(reference, credentials)
        finally:
            self._use.changed()

    def watch_pulls(self, image: str = "") -> AsyncIterator[own.PullProgress]:
        return self._board.watch(image)

    # Removal

    async def remove(self, reference: str) -> None:
        """Every name of the image; what nothing else needs is gone when this returns."""
        entry = await self._records.find(reference)
        if entry is not None:
            with step("remove image"):
                await self._remove(entry)

    async def prune(self, *, dry_run: bool, untagged_only: bool) -> own.PruneImagesResponse:
        """Images that no container of the namespace uses, whoever's it is."""
        entries = await self._records.all()
        going = await self._pruning.unused(entries, untagged_only=untagged_only)
        answer = await self._pruning.told(going, entries)
        if not dry_run:
            for entry in going:
                await self._remove(entry)
            for lease in await self._leases.pending():
                await self._leases.drop(lease.id, sync=True)
            self._use.changed()
        return answer

    # Archives

    async def import_image(self, source: str, reference: str, config: Mapping[str, Json]) -> Sequence[Image]:
        return await self._importing.bring(source, reference, config)

    async def export_image(self, reference: str, target: str) -> tuple[Image, int]:
        entry = await self._records.find(reference)
        if entry is None:
            raise NotFound(f"there is no image {reference!r}")
        return await archives.export(self._content, self._leases, self._scratch, entry, reference, target)

    # For the engine

    async def chain(self, image_id: str, snapshotter: str, *, look: bool = True) -> str:
        """The name of the snapshot that the image is in `snapshotter`, "" for one without layers; unpacked
        when it is not there yet. Without a `look` one that was there once is taken to be there still.
        NotFound without the image, FailedPrecondition when its layers are not in the content store any
        more."""
        self._unpacking.check(snapshotter)
        known = self._chains.get((image_id, snapshotter), "")
        # An id is a digest of what the layers are, so what it was once is what it is.
        if known and (not look or await self._unpacking.there(known, snapshotter)):
            return known
        tree = (await self._records.with_id(image_id)).trees[-1]
        chain_id = tree.chain[-1] if tree.chain else ""
        if not chain_id and not tree.artifact:
            return ""
        if chain_id and await self._unpacking.there(chain_id, snapshotter):
            await self._tie(tree, chain_id, snapshotter)
            self._chains[image_id, snapshotter] = chain_id
            return chain_id

        async def begin(_: Work[str]) -> str:
            return await self._unpack(tree, snapshotter)

        async with self._unpacks.part((image_id, snapshotter), begin) as (work, _):
            return await work.result()

    async def pause_image(self) -> Image:
        """The image of containers that hold a pod together, pinned."""
        return await self._pause.ensure()

    # One image

    async def _transferred(self, source: Reference, credentials: Credentials | None) -> Image:
        """By containerd's own transport. Identical pulls are one."""

        async def begin(_: Work[Image]) -> Image:
            progress = self._board.begin(str(source))
            with progress.failing():
                async with self._leases.lease(str(source)) as lease:
                    await self._transfers.pull(
                        source, credentials, self._platform, self._snapshotter, MANAGED, lease, progress
                    )
                    progress.recording()
                    with step("record image"):
                        image = await self._taken_over(source)
                    lease.recorded = True
            progress.done(image.id)
            return image

        async with self._transferring.part((source, credentials), begin) as (work, joined):
            with step("wait for pull", str(source)) if joined else nullcontext():
                return await work.result()

    async def _taken_over(self, source: Reference) -> Image:
        """What a transfer has recorded as `source` gets its other names, and whatever of it is missing."""
        target = await self._records.target(str(source))
        self._trees.forget(target.digest)
        tree = await self._trees.of(target)
        await self._records.point(target, [source.at(target.digest), tree.id])
        await self.chain(tree.id, self._snapshotter)
        return (await self._records.with_id(tree.id)).image

    async def _remove(self, entry: Entry) -> None:
        await self._records.delete(entry.names)
        for tree in entry.trees:
            self._trees.forget(tree.target.digest)
        for known in [each for each in self._chains if each[0] == entry.image.id]:
            del self._chains[known]
        self._use.changed()

    async def _unpack(self, tree: Tree, snapshotter: str) -> str:
        async with self._leases.lease(f"{tree.id} for {snapshotter}") as lease:
            await lease.hold(CONTENT, tree.digests)
            if tree.artifact:
                chain_id = await self._unpack_artifact(tree, snapshotter, lease)
            else:
                chain_id = await self._unpack_layers(tree, snapshotter, lease)
            await self._tie(tree, chain_id, snapshotter)
            lease.recorded = True
        self._use.changed()
        return chain_id

    async def _unpack_layers(self, tree: Tree, snapshotter: str, lease: PullLease) -> str:
        chain = tree.chain
        await lease.hold(f"snapshots/{snapshotter}", chain)
        for index, blob in enumerate(tree.document.layers):
            if await self._unpacking.there(chain[index], snapshotter):
                continue
            if await self._content.info(blob.digest) is None:
                raise FailedPrecondition(
                    f"image {tree.id}: its layer {blob.digest} is not in containerd's content store, so it"
                    f" cannot be unpacked for {snapshotter}: remove the image and pull it again"
                )
            await self._unpacking.ensure(chain[: index + 1], tree.diff_ids[index], blob, snapshotter, lease)
        return chain[-1]

    async def _unpack_artifact(self, tree: Tree, snapshotter: str, lease: PullLease) -> str:
        """Also of one that another client has pulled, which knows nothing of layers of artifacts."""
        layers = tree.document.layers
        files = list(zip(artifacts.file_names(tree.id, layers), layers, strict=True))
        async with self._scratch.workplace() as work:
            blob = await artifact_layer(self._content, files, work)
            await lease.hold(CONTENT, [blob.digest])
            await lease.hold(f"snapshots/{snapshotter}", [blob.digest])
            await self._content.write(
                f"layer-{blob.digest}", blob, FileFetch(blob, work / "layer").pieces, {}
            )
            await self._unpacking.ensure([blob.digest], blob.digest, blob, snapshotter, lease)
        await self._content.label(tree.id, {DIFF_ID: blob.digest})
        self._trees.forget(tree.target.digest)
        return blob.digest

    async def _tie(self, tree: Tree, chain_id: str, snapshotter: str) -> None:
        """The image keeps the snapshot from now on."""
        await self._content.label(tree.id, {f"{GC_SNAPSHOT}.{snapshotter}": chain_id})
