"""What is known of one image in a store: what a pull has made, how it was served, what memory holds of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from podwright import structs
from podwright.engines.base import Image
from podwright.errors import PodwrightError
from podwright.images.documents import Manifest


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image whose layers and blobs are in place and on the disk."""

    id: str
    """Digest of its configuration (of an artifact: of its manifest)."""
    config: bytes
    chain: tuple[str, ...]
    """Chain ids of its layers, bottom first."""
    manifest: str
    """Digest of its manifest."""
    indexes: tuple[str, ...] = ()
    """Digests of the indexes that led to the manifest, outermost first."""

    @property
    def served(self) -> str:
        """Digest of what its names stand for."""
        return (*self.indexes, self.manifest)[0]


@dataclass(frozen=True, slots=True)
class Served:
    """One way in which an image came here."""

    indexes: tuple[str, ...]
    """Digests, outermost first."""
    digest: str
    """Of the manifest."""
    content: Manifest

    @property
    def served(self) -> str:
        """Digest of what its names stand for."""
        return (*self.indexes, self.digest)[0]

    @property
    def documents(self) -> tuple[str, ...]:
        """Digests of all but the layers."""
        return (*self.indexes, self.digest, self.content.config.digest)


@dataclass(slots=True)
class Entry:
    """One image in memory."""

    image: Image
    chain: tuple[str, ...]
    hidden: bool = False
    """Removed, but its layers stay for the containers that use it."""
    names: dict[str, str] = field(default_factory=dict)
    """Each with the digest that it stood for; "" when it was recorded before blobs were kept."""
    users: set[str] = field(default_factory=set)
    """Containers."""
    manifests: dict[str, Served] = field(default_factory=dict)
    """By what was served, the latest last."""


def parsed_manifest(digest: str, content: bytes) -> Manifest:
    try:
        return structs.decode(content, Manifest)
    except msgspec.DecodeError as error:
        raise PodwrightError(f"the manifest {digest} cannot be read: {error}") from error
