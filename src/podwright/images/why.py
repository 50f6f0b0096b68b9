"""Why something is in the store: what a digest is here, and everything that keeps it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from podwright.engines.base import Image
from podwright.errors import InvalidArgument, NotFound
from podwright.images import references
from podwright.images.blobs import Blobs
from podwright.images.collection import SECOND, Collection
from podwright.images.entries import Entry, Served
from podwright.images.layers import Layers
from podwright.images.pinned import Pinned
from podwright.images.records import Records
from podwright.wire import podwright_pb2 as own

Keeper = tuple[str, str, str, str]
"""Kind, name, how, and the id of the image by which it keeps it, if any."""


class Why:
    def __init__(
        self, records: Records, layers: Layers, blobs: Blobs, collection: Collection, pinned: Pinned
    ) -> None:
        self._records = records
        self._layers = layers
        self._blobs = blobs
        self._collection = collection
        self._pinned = pinned

    def explain(self, text: str) -> own.ExplainBlobResponse:
        """See ImageService.explain_blob. What a digest is several times (the only layer of an image, not
        compressed, is a blob, a diff id and a chain id) is told in one answer."""
        digest = self._digest_of(text)
        answer, kinds, seen = own.ExplainBlobResponse(digest=digest), [], set[tuple[str, str, str]]()
        for meaning, size, path, keepers in self._meanings(digest):
            kinds.append(meaning)
            answer.bytes += size
            answer.path = answer.path or str(path or "")
            for kind, name, how, image_id in keepers:
                # What is a blob and a layer is not kept twice.
                if (kind, name, image_id) not in seen:
                    seen.add((kind, name, image_id))
                    answer.keepers.add(kind=kind, name=name, how=how)
        answer.kind = ", ".join(dict.fromkeys(kinds))
        return answer

    def _meanings(self, digest: str) -> Iterator[tuple[str, int, Path | None, Iterator[Keeper]]]:
        """What `digest` is: a kind, bytes on disk, a path, and its keepers."""
        if digest in self._records.images:
            image = self._records.images[digest]
            yield "image", image.image.size, None, self._of_image(image, "")
        if self._blobs.get(digest) is not None:
            blob = self._blobs.get(digest)
            assert blob is not None
            keepers = chain(self._of_needed(digest), self._of_unfinished(digest))
            yield self._blob_kind(digest), blob.disk_bytes, self._blobs.path(digest), keepers
        for chain_id, diff_id in self._diff_ids().items():
            layer = self._layers.get(chain_id)
            if layer is not None and digest in (chain_id, diff_id):
                yield "layer", layer.bytes, self._layers.directory(layer.number), self._of_layer(chain_id)

    # What keeps it

    def _of_image(self, entry: Entry, how: str) -> Iterator[Keeper]:
        """Of an image, and so of its layers, of which `how` tells the part."""
        image, of = entry.image, f"{how} of image {_short(entry.image.id)}" if how else ""
        yield from self._of_listing(entry, tuple(entry.names), of)
        for user in sorted(entry.users):
            container, mounted, _ = user.partition("#")
            verb = "mounts it as a volume" if mounted else "runs on it"
            yield "container", container, f"{verb}; {of}" if of else verb, image.id

    def _of_listing(self, entry: Entry, names: Sequence[str], of: str) -> Iterator[Keeper]:
        image = entry.image
        for name in sorted(names, key=lambda name: ("@" in name, name)):
            yield "name", name, of or "names it", image.id
        if not names and not entry.hidden:
            yield "image", image.id, of or "is listed without a name until it is removed", image.id
        for pattern in self._pinned.matching(image.id, (*image.repo_tags, *image.repo_digests)):
            yield "pinned", pattern, of or "keeps it from `podwright image prune`", image.id

    def _of_needed(self, digest: str) -> Iterator[Keeper]:
        """Blobs are kept by names, not by containers: those need the layers."""
        for entry in self._records.visible():
            # Of an image's own digest it has been told already.
            if digest == entry.image.id or digest not in self._collection.needed_blobs(entry):
                continue
            latest = next(reversed(entry.manifests), "")
            for served in entry.manifests.values():
                if digest in (*served.documents, *(layer.digest for layer in served.content.layers)):
                    names = [
                        name
                        for name, stands_for in entry.names.items()
                        if (stands_for if stands_for in entry.manifests else latest) == served.served
                    ]
                    of = f"{self._part(served, digest)} of image {_short(entry.image.id)}"
                    yield from self._of_listing(entry, names, of)

    def _of_unfinished(self, digest: str) -> Iterator[Keeper]:
        if self._blobs.held(digest):
            yield "pull", "", "a pull, an import or an export that is under way needs it", ""
        blob = self._blobs.get(digest)
        if blob is not None and blob.pending_since is not None:
            since, until = _time(blob.pending_since), _time(self._collection.expires(blob.pending_since))
            yield (
                "pending",
                since,
                f"a pull that did not end asked for it; it goes at {until}, or by prune",
                "",
            )

    def _of_layer(self, chain_id: str) -> Iterator[Keeper]:
        for entry in self._records.images.values():
            if chain_id in entry.chain:
                place = entry.chain.index(chain_id) + 1
                yield from self._of_image(entry, f"layer {place} of {len(entry.chain)}")
        if self._layers.held(chain_id):
            yield "pull", "", "a pull or an import that is under way needs it", ""

    # What it is

    def _blob_kind(self, digest: str) -> str:
        for entry in self._records.images.values():
            for served in entry.manifests.values():
                if digest in served.indexes:
                    return "index"
                if digest == served.digest:
                    return "manifest"
                if digest == served.content.config.digest:
                    return "configuration"
                if any(layer.digest == digest for layer in served.content.layers):
                    return "layer blob"
        return "blob"

    def _part(self, served: Served, digest: str) -> str:
        layers = [layer.digest for layer in served.content.layers]
        if digest in layers:
            return f"blob of layer {layers.index(digest) + 1} of {len(layers)}"
        return self._blob_kind(digest)

    def _diff_ids(self) -> Mapping[str, str]:
        """Diff ids of the layers by their chain ids."""
        return {
            chain_id: diff_id
            for image_id, entry in self._records.images.items()
            for chain_id, diff_id in zip(entry.chain, self._records.diff_ids(image_id), strict=False)
        }

    def _digest_of(self, text: str) -> str:
        """The one digest that `text` is, begins, or names. NotFound, InvalidArgument."""
        digits = references.image_id_prefix(text)
        if digits is not None:
            prefix = f"sha256:{digits}"
            found = {each for each in self._digests() if each.startswith(prefix)}
            if len(found) > 1:
                raise InvalidArgument("digest", f"{len(found)} digests here begin with {text!r}")
            if found:
                return found.pop()
        if digits is None or len(digits) < 64:
            image = self._named(text)
            if image is not None:
                return image.id
        raise NotFound(f"{text} is neither a blob, a layer nor an image here")

    def _named(self, text: str) -> Image | None:
        return None if text.startswith("sha256:") else self._records.find(text)

    def _digests(self) -> Iterator[str]:
        yield from self._records.images
        yield from (blob.digest for blob in self._blobs.all())
        for chain_id, diff_id in self._diff_ids().items():
            yield from (chain_id, diff_id)


def _time(nanoseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // SECOND))


def _short(image_id: str) -> str:
    return image_id.partition(":")[2][:12]
