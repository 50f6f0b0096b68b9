"""The house's own store as the destination of pulls: blobs as files, layers unpacked, rows at last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager

from podwright.config import ImageConfig
from podwright.engines.base import Image
from podwright.errors import NotFound
from podwright.images import artifacts
from podwright.images.blobs import Blobs
from podwright.images.destination import Coming, Fetch
from podwright.images.documents import Descriptor, Index, read_manifest
from podwright.images.entries import NewImage
from podwright.images.layers import Layers, to_its_end
from podwright.images.platform import wanted_platform
from podwright.images.records import Records
from podwright.images.remote import NESTING, chosen


class StoreDestination:
    """Implements destination.Destination."""

    def __init__(
        self,
        config: ImageConfig,
        layers: Layers,
        blobs: Blobs,
        records: Records,
        collect: Callable[[], None],
    ) -> None:
        """`collect` is called when something may have become useless."""
        self._config = config
        self._layers = layers
        self._blobs = blobs
        self._records = records
        self._collect = collect
        self.workplace = layers.cleared_workplace

    async def known(self, source: str, served: str) -> str:
        entry = self._records.with_digest(served)
        if entry is None:
            return ""
        at = served
        try:
            for _ in range(NESTING + 1):
                document = read_manifest(source, self._blobs.read(at))
                if not isinstance(document, Index):
                    break
                at = chosen(source, wanted_platform(self._config.platform), document).digest
        except NotFound:
            pass  # not all of it is kept
        before = entry.manifests.get(served)
        return entry.image.id if before is None or at in (served, before.digest) else ""

    async def name(self, image_id: str, served: str, names: Sequence[str]) -> Image:
        return self._records.name(image_id, served, names)

    @asynccontextmanager
    async def intake(self, coming: Coming) -> AsyncIterator[StoreIntake]:
        with ExitStack() as held:
            held.enter_context(
                self._blobs.hold([*coming.documents, *(layer.digest for layer in coming.layers)])
            )
            yield StoreIntake(self._layers, self._blobs, self._records, held)

    def ended(self, *, failed: bool) -> None:
        if failed or self._config.discard_unpacked_layers:
            self._collect()


class StoreIntake:
    """Implements destination.Intake."""

    def __init__(self, layers: Layers, blobs: Blobs, records: Records, held: ExitStack) -> None:
        self._layers = layers
        self._blobs = blobs
        self._records = records
        self._held = held

    async def put(self, content: bytes) -> None:
        await self._blobs.put(content)

    async def take(self, fetch: Fetch) -> None:
        await self._blobs.ensure(fetch.descriptor, fetch.save)

    async def read(self, digest: str) -> bytes:
        return self._blobs.read(digest)

    async def hold(self, chain: Sequence[str]) -> Sequence[bool]:
        self._held.enter_context(self._layers.hold(chain))
        return [self._layers.get(each) is not None for each in chain]

    async def unpack(self, chain: Sequence[str], diff_id: str, blob: Descriptor) -> None:
        below = [layer for each in chain[:-1] if (layer := self._layers.get(each)) is not None]
        # Others may wait for this layer, and have it packed otherwise, in another blob: then nobody else
        # holds this one.
        with self._blobs.hold([blob.digest]):
            await self._layers.ensure(chain[-1], below, diff_id, self._blobs.path(blob.digest))

    async def unpack_files(self, files: Sequence[tuple[str, Descriptor]]) -> str:
        with self._layers.workplace() as work:
            try:
                diff_id = await artifacts.packed(
                    [(name, self._blobs.path(each.digest)) for name, each in files], work / "layer"
                )
                await self.hold([diff_id])
                await self._layers.ensure(diff_id, [], diff_id, work / "layer")
            finally:
                await to_its_end(self._layers.delete([work]))
        return diff_id

    async def record(self, new: NewImage, names: Iterable[str]) -> Image:
        await self._layers.sync()
        return self._records.record(new, names)
