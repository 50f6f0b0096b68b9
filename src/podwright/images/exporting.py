"""Images of the house's store on their way out: which of the ways an image came by is written, and whether
all of it is here."""

from __future__ import annotations

from podwright.engines.base import Image
from podwright.errors import FailedPrecondition, NotFound
from podwright.images import references
from podwright.images.blobs import Blobs
from podwright.images.entries import Entry, Served
from podwright.images.layers import Layers
from podwright.images.records import Records
from podwright.images.written import Leaving, place_of, write


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
        place = place_of(target)
        served = self._served(self._records.entry(image.id), reference)
        digests = [*served.documents, *(layer.digest for layer in served.content.layers)]
        with self._blobs.hold(digests):
            self._require_blobs(reference, served)
            layers = (layer.digest for layer in served.content.layers)
            wanted = (served.digest, served.content.config.digest, *layers)
            leaving = Leaving(
                image,
                served.digest,
                served.content,
                self._records.config(image.id),
                self._records.diff_ids(image.id),
                {each: self._blobs.path(each) for each in wanted},
            )
            return image, await write(leaving, reference, place, self._layers.cleared_workplace)

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
