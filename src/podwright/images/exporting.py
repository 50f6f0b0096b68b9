"""Images written to files: an OCI layout, an archive of one, or an archive of Docker's.

An OCI export has the manifest and all blobs as they were served, byte for byte, so every digest stays.
Docker's archive knows no digests: it keeps the configuration, so the image's id, and has its layers
uncompressed.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from podwright.engines.base import Image
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
from podwright.images import references
from podwright.images.blobs import Blobs
from podwright.images.entries import Entry, Served
from podwright.images.files import Archive, Interrupt, Layout, in_thread
from podwright.images.layers import Layers
from podwright.images.local import FULL_NAME, REF_NAME
from podwright.images.records import Records
from podwright.images.references import LocalSource
from podwright.linux import spawn
from podwright.linux.waiting import to_the_end

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Exporting:
    def __init__(self, records: Records, layers: Layers, blobs: Blobs, keep_layer_blobs: bool) -> None:
        self._records = records
        self._layers = layers
        self._blobs = blobs
        self._keep_layer_blobs = keep_layer_blobs

    async def export(self, reference: str, target: str) -> tuple[Image, int]:
        """See ImageService.export_image. Who gives up leaves no half archive; a layout keeps blobs."""
        image = self._records.find(reference)
        if image is None:
            raise NotFound(f"there is no image {reference!r}")
        place = references.parse_local(target, "target")
        if place is None or place.transport == "dir":
            raise InvalidArgument("target", f"{target!r}: neither oci:, oci-archive: nor docker-archive:")
        served = self._served(self._records.entry(image.id), reference)
        digests = [*served.documents, *(layer.digest for layer in served.content.layers)]
        with self._blobs.hold(digests):
            self._require_blobs(reference, served)
            if place.transport == "docker-archive":
                names = self._names(image, reference, place, every=True)
                return image, await self._docker(image, served, Path(place.path), names)
            names = self._names(image, reference, place, every=False)
            marks = _marks(place, names)
            if place.transport == "oci":
                return image, await self._layout(served, Path(place.path), marks)
            return image, await self._archive(served, Path(place.path), marks)

    # What is written

    async def _layout(self, served: Served, directory: Path, marks: dict[str, str]) -> int:
        files = self._files(served)
        descriptor = self._descriptor(served, marks)

        def write(interrupt: Interrupt) -> int:
            layout = Layout(directory, interrupt)
            for path in files:
                layout.add(path)
            layout.name(descriptor)
            return layout.written

        return await in_thread(write)

    async def _archive(self, served: Served, file: Path, marks: dict[str, str]) -> int:
        files = self._files(served)
        index = msgspec.json.encode({"schemaVersion": 2, "manifests": [self._descriptor(served, marks)]})

        def write(interrupt: Interrupt) -> int:
            with Archive(file, interrupt) as archive:
                archive.add_text("oci-layout", Layout.VERSION)
                archive.add_text("index.json", index)
                for path in files:
                    archive.add(f"blobs/sha256/{path.name}", path)
            return archive.written

        return await in_thread(write)

    async def _docker(self, image: Image, served: Served, file: Path, names: Sequence[str]) -> int:
        diff_ids, layers = self._records.diff_ids(image.id), served.content.layers
        if served.content.is_artifact or len(diff_ids) != len(layers):
            raise FailedPrecondition(f"{image.id} is no container image: Docker's archive cannot hold it")
        config = f"{_hex(image.id)}.json"
        members = {f"{_hex(diff_id)}.tar": layer for diff_id, layer in zip(diff_ids, layers, strict=True)}
        listed = {
            "Config": config,
            "RepoTags": list(names),
            "Layers": [f"{_hex(diff_id)}.tar" for diff_id in diff_ids],
        }
        document = self._records.config(image.id)
        with Archive(file, Interrupt()) as archive:
            archive.add_text(config, document)
            for name, layer in members.items():
                async with self._plain(self._blobs.path(layer.digest)) as path:

                    def add(interrupt: Interrupt, name: str = name, path: Path = path) -> None:
                        archive.interrupt = interrupt
                        archive.add(name, path)

                    await in_thread(add)
            archive.add_text("manifest.json", msgspec.json.encode([listed]))
        return archive.written

    @asynccontextmanager
    async def _plain(self, blob: Path) -> AsyncIterator[Path]:
        """The layer's tar without its compression."""
        with blob.open("rb") as file:
            first = file.read(4)
        if first[:2] != GZIP and first != ZSTD:
            yield blob
            return
        with self._layers.workplace() as work:
            try:
                target = work / "plain"
                if first == ZSTD:
                    await _zstd(blob, target)
                else:
                    await in_thread(lambda interrupt: _gunzip(blob, target, interrupt))
                yield target
            finally:
                await to_the_end(self._layers.delete([work]))

    # What there is to write

    def _served(self, entry: Entry, reference: str) -> Served:
        """The way the image came by that `reference` means, or the latest. One whose layers are here counts
        before one whose are not, as those of an archive of an image that was here: but not for a digest."""
        digest, exact = "", False
        if references.image_id_prefix(reference) is None:
            name = references.parse(reference)
            digest, exact = entry.names.get(str(name), ""), bool(name.digest)
        latest = list(reversed(entry.manifests.values()))
        if digest in entry.manifests:
            latest.insert(0, entry.manifests[digest])
        if not latest:
            raise FailedPrecondition(
                f"{reference}: its manifest is not in the store: remove and pull it again"
            )
        if exact:
            return latest[0]
        return next((served for served in latest if not self._missing(served)), latest[0])

    def _missing(self, served: Served) -> list[str]:
        return [layer.digest for layer in served.content.layers if self._blobs.get(layer.digest) is None]

    def _require_blobs(self, reference: str, served: Served) -> None:
        missing, all_ = self._missing(served), len(served.content.layers)
        if missing and not self._keep_layer_blobs:
            raise FailedPrecondition(
                f"{reference}: images.discard_unpacked_layers is set, its layers are here unpacked only, not"
                " as they were served: turn it off, remove the image and pull it again"
            )
        if missing:
            raise FailedPrecondition(
                f"{reference}: {len(missing)} of its {all_} layers are here unpacked only, for they came with"
                " another image or with an earlier podwright: remove the image and pull it again"
                f" ({', '.join(missing)})"
            )

    def _names(self, image: Image, reference: str, place: LocalSource, *, every: bool) -> list[str]:
        """The full names under which it is exported: the one asked for, else all, or the first."""
        if place.transport == "docker-archive" and place.selector:
            return [str(references.parse(place.selector, "target"))]
        if references.image_id_prefix(reference) is None:
            name = references.parse(reference)
            if not name.digest:
                return [str(name)]
        return list(image.repo_tags if every else image.repo_tags[:1])

    def _files(self, served: Served) -> list[Path]:
        """Of all blobs of the image for this platform; an index would name images that are not here."""
        layers = (layer.digest for layer in served.content.layers)
        return [
            self._blobs.path(each)
            for each in dict.fromkeys((served.digest, served.content.config.digest, *layers))
        ]

    def _descriptor(self, served: Served, marks: dict[str, str]) -> dict[str, Any]:
        content = self._blobs.read(served.digest)
        kind = msgspec.json.decode(content).get("mediaType") or MANIFEST_TYPE
        descriptor = {"mediaType": kind, "digest": served.digest, "size": len(content)}
        return descriptor | ({"annotations": marks} if marks else {})


def _marks(place: LocalSource, names: Sequence[str]) -> dict[str, str]:
    """The annotations that name an image in an OCI layout: a tag, and for containerd the full name."""
    marks = {REF_NAME: place.selector} if place.selector else {}
    for name in names:
        marks = {FULL_NAME: name, REF_NAME: name.rpartition(":")[2]} | marks
    return marks


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _gunzip(blob: Path, target: Path, interrupt: Interrupt) -> None:
    with gzip.open(blob) as source, target.open("xb") as out:
        interrupt.copy(source, out)


async def _zstd(blob: Path, target: Path) -> None:
    try:
        await spawn.check(["zstd", "-d", "-q", "-o", str(target), "--", str(blob)])
    except FileNotFoundError:
        raise FailedPrecondition(
            "the image's layers are compressed by zstd, which is not installed; an OCI export needs it not"
        ) from None
