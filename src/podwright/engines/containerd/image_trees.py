"""What an image's target is made of, read from containerd's content: index, manifest, configuration.

A target is content, so what was read once stays true: it is kept by its digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from podwright.checkpoints import layout
from podwright.engines.base import Image
from podwright.engines.containerd.content import Content
from podwright.errors import NotFound
from podwright.images.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    read_document,
    read_manifest,
)
from podwright.images.layers import chain_ids
from podwright.images.platform import Platform
from podwright.images.remote import NESTING, chosen

DIFF_ID = "podwright.io/diff-id"
"""A label of an artifact's manifest: the layer that was made of its files."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What one target is for the wanted platform."""

    id: str
    """Digest of its configuration; of an artifact of its manifest."""
    target: Descriptor
    indexes: tuple[str, ...]
    """Digests, outermost first."""
    manifest: str
    document: Manifest
    config: bytes
    """The configuration; b"" of an artifact."""
    diff_ids: tuple[str, ...]
    size: int
    """Bytes of all of it as content."""

    @property
    def artifact(self) -> bool:
        return self.document.is_artifact

    @property
    def chain(self) -> list[str]:
        return chain_ids(self.diff_ids)

    @property
    def documents(self) -> tuple[str, ...]:
        return (*self.indexes, self.manifest, self.document.config.digest)

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all of its content."""
        return (*self.documents, *(each.digest for each in self.document.layers))

    def image(self) -> Image:
        """Without names."""
        document = None if self.artifact else read_document(self.id, self.config)
        section = (document.config or {}) if document else {}
        checkpoint = layout.marks(section.get("Labels"), self.document.annotations)
        return Image(
            self.id,
            (),
            (),
            max(1, self.size),
            section,
            artifact=self.artifact,
            checkpoint=checkpoint,
            built=document.built if document else {},
        )


class Trees:
    def __init__(self, content: Content, platform: Platform) -> None:
        self._content = content
        self._platform = platform
        self._read: dict[str, Tree] = {}

    async def of(self, target: Descriptor) -> Tree:
        """The best for the platform of what is here; as it was when it was asked first.

        NotFound when none is here, PodwrightError when it is no image.
        """
        if target.digest not in self._read:
            self._read[target.digest] = await self.read(target, best=False)
        return self._read[target.digest]

    def forget(self, digest: str) -> None:
        """More of it may be here now, or nothing."""
        self._read.pop(digest, None)

    async def read(self, target: Descriptor, *, best: bool) -> Tree:
        """As `of`, anew; with `best` only the best that there is will do."""
        content = await self._content.read(target.digest)
        indexes, at, size = list[str](), target.digest, len(content)
        for _ in range(NESTING + 1):
            document = read_manifest(target.digest, content)
            if not isinstance(document, Index):
                break
            indexes.append(at)
            at, content = await self._chosen(target.digest, document, best)
            size += len(content)
        else:
            raise NotFound(f"{target.digest}: more than {NESTING} indexes lie in each other")
        size += document.config.size + sum(each.size for each in document.layers)
        if document.is_artifact:
            info = await self._content.info(at)
            diff_id = info.labels.get(DIFF_ID) if info else None
            diff_ids: tuple[str, ...] = (diff_id,) if diff_id else ()
            return Tree(at, target, tuple(indexes), at, document, b"", diff_ids, size)
        config = await self._content.read(document.config.digest)
        diff_ids = tuple(read_document(document.config.digest, config).rootfs.diff_ids)
        return Tree(document.config.digest, target, tuple(indexes), at, document, config, diff_ids, size)

    async def describe(self, digest: str) -> Descriptor:
        """Of an index or a manifest that is here."""
        return described(await self._content.read(digest))

    async def _chosen(self, source: str, index: Index, best: bool) -> tuple[str, bytes]:
        while True:
            entry = chosen(source, self._platform, index)
            try:
                return entry.digest, await self._content.read(entry.digest)
            except NotFound:
                if best:
                    raise
            index = Index([each for each in index.manifests if each.digest != entry.digest])


def described(content: bytes) -> Descriptor:
    """The descriptor of an index or a manifest: its own media type, or that of its shape."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    kind = str(msgspec.json.decode(content).get("mediaType") or "")
    if not kind:
        kind = (INDEX_TYPES if isinstance(read_manifest(digest, content), Index) else MANIFEST_TYPES)[0]
    return Descriptor(digest, kind, len(content))
