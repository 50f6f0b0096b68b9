"""The seam of pulls: what one asks of the place where images go, the house's own store or an engine's.

A pull decides what is fetched, in which order and how often (`pulling.py`); a destination keeps it. What both
know is in the terms of the image specification: digests, chain ids, descriptors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from podwright.engines.base import Image
from podwright.images.documents import Descriptor
from podwright.images.entries import NewImage
from podwright.images.references import LocalSource, Reference


@dataclass(frozen=True, slots=True)
class Coming:
    """An image that is about to come."""

    source: Reference | LocalSource | None
    """None when it is made here."""
    documents: tuple[str, ...]
    """Digests of its indexes, outermost first, of its manifest and of its configuration."""
    layers: tuple[Descriptor, ...]

    @property
    def about(self) -> str:
        return str(self.source) if self.source is not None else self.documents[-1]


class Fetch(Protocol):
    """One blob where it comes from. It waits for its turn when it is taken, in one of two ways; both raise
    what `Remote` raises."""

    @property
    def descriptor(self) -> Descriptor: ...

    async def save(self, target: Path) -> None:
        """Write it to the new file `target`, which is gone when this raises; it has the digest that it must
        have."""

    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """All of it from its beginning, piece by piece; nobody has compared it with its digest."""


class Intake(Protocol):
    """One image on its way in. What it has taken and held is not collected while its context lasts."""

    async def put(self, content: bytes) -> None:
        """Keep an index, a manifest or a configuration."""

    async def take(self, fetch: Fetch) -> None:
        """Keep a blob, unless it is here. PodwrightError when it is not what its descriptor says."""

    async def read(self, digest: str) -> bytes:
        """A document that was taken."""

    async def hold(self, chain: Sequence[str]) -> Sequence[bool]:
        """These layers, bottom first, are wanted; which of them need neither their blob nor unpacking."""

    async def unpack(self, chain: Sequence[str], diff_id: str, blob: Descriptor) -> None:
        """Make the topmost layer of `chain` of a blob that was taken, unless it is there. The ones below are.

        ResourceExhausted, FailedPrecondition, or PodwrightError when it is no layer or not `diff_id`.
        """

    async def unpack_files(self, files: Sequence[tuple[str, Descriptor]]) -> str:
        """Make one layer of an artifact's blobs, each a file with its name; its diff id."""

    async def record(self, new: NewImage, names: Iterable[str]) -> Image:
        """All of it is here: from now on it is listed, and has `names`."""


class Destination(Protocol):
    async def known(self, source: str, served: str) -> str:
        """The id of the image that was served before under this digest, if all of it is here and it is for
        the platform of today; "" otherwise."""

    async def name(self, image_id: str, served: str, names: Sequence[str]) -> Image:
        """An image that is known was served again: it takes `names`."""

    def intake(self, coming: Coming) -> AbstractAsyncContextManager[Intake]: ...

    def workplace(self) -> AbstractAsyncContextManager[Path]:
        """A new private directory, gone at the end."""

    def ended(self, *, failed: bool) -> None:
        """A pull is over: something may have become useless."""
