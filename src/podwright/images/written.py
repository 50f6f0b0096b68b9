"""Images written to files: an OCI layout, an archive of one, or an archive of Docker's.

An OCI export has the manifest and all blobs as they were served, byte for byte, so every digest stays.
Docker's archive knows no digests: it keeps the configuration, so the image's id, and has its layers
uncompressed. Where the files come from is the caller's.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from podwright.engines.base import Image
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.images import references
from podwright.images.documents import Manifest
from podwright.images.files import Archive, Interrupt, Layout, in_thread
from podwright.images.local import FULL_NAME, REF_NAME
from podwright.images.references import LocalSource
from podwright.linux import spawn

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Leaving:
    """An image that is to be written."""

    image: Image
    digest: str
    """Of its manifest."""
    content: Manifest
    config: bytes
    diff_ids: Sequence[str]
    files: Mapping[str, Path]
    """Its manifest, its configuration and its layers, each a file called as the hex digits of its digest, by
    digest; of this platform alone: an index would name images that are not here."""


def place_of(target: str) -> LocalSource:
    """InvalidArgument when nothing can be written there."""
    place = references.parse_local(target, "target")
    if place is None or place.transport == "dir":
        raise InvalidArgument("target", f"{target!r}: neither oci:, oci-archive: nor docker-archive:")
    return place


async def write(
    leaving: Leaving,
    reference: str,
    place: LocalSource,
    workplace: Callable[[], AbstractAsyncContextManager[Path]],
) -> int:
    """Write the image that `reference` names; how many bytes. Who gives up leaves no half archive; a layout
    keeps blobs. `workplace` gives private directories."""
    if place.transport == "docker-archive":
        names = _names(leaving.image, reference, place, every=True)
        return await _docker(leaving, Path(place.path), names, workplace)
    marks = _marks(place, _names(leaving.image, reference, place, every=False))
    if place.transport == "oci":
        return await _layout(leaving, Path(place.path), marks)
    return await _archive(leaving, Path(place.path), marks)


async def _layout(leaving: Leaving, directory: Path, marks: dict[str, str]) -> int:
    files = list(leaving.files.values())
    descriptor = _descriptor(leaving, marks)

    def write(interrupt: Interrupt) -> int:
        layout = Layout(directory, interrupt)
        for path in files:
            layout.add(path)
        layout.name(descriptor)
        return layout.written

    return await in_thread(write)


async def _archive(leaving: Leaving, file: Path, marks: dict[str, str]) -> int:
    files = list(leaving.files.values())
    index = msgspec.json.encode({"schemaVersion": 2, "manifests": [_descriptor(leaving, marks)]})

    def write(interrupt: Interrupt) -> int:
        with Archive(file, interrupt) as archive:
            archive.add_text("oci-layout", Layout.VERSION)
            archive.add_text("index.json", index)
            for path in files:
                archive.add(f"blobs/sha256/{path.name}", path)
        return archive.written

    return await in_thread(write)


async def _docker(
    leaving: Leaving,
    file: Path,
    names: Sequence[str],
    workplace: Callable[[], AbstractAsyncContextManager[Path]],
) -> int:
    image, diff_ids, layers = leaving.image, leaving.diff_ids, leaving.content.layers
    if leaving.content.is_artifact or len(diff_ids) != len(layers):
        raise FailedPrecondition(f"{image.id} is no container image: Docker's archive cannot hold it")
    config = f"{_hex(image.id)}.json"
    members = {f"{_hex(diff_id)}.tar": layer for diff_id, layer in zip(diff_ids, layers, strict=True)}
    listed = {
        "Config": config,
        "RepoTags": list(names),
        "Layers": [f"{_hex(diff_id)}.tar" for diff_id in diff_ids],
    }
    with Archive(file, Interrupt()) as archive:
        archive.add_text(config, leaving.config)
        for name, layer in members.items():
            async with _plain(leaving.files[layer.digest], workplace) as path:

                def add(interrupt: Interrupt, name: str = name, path: Path = path) -> None:
                    archive.interrupt = interrupt
                    archive.add(name, path)

                await in_thread(add)
        archive.add_text("manifest.json", msgspec.json.encode([listed]))
    return archive.written


@asynccontextmanager
async def _plain(
    blob: Path, workplace: Callable[[], AbstractAsyncContextManager[Path]]
) -> AsyncIterator[Path]:
    """The layer's tar without its compression."""
    with blob.open("rb") as file:
        first = file.read(4)
    if first[:2] != GZIP and first != ZSTD:
        yield blob
        return
    async with workplace() as work:
        target = work / "plain"
        if first == ZSTD:
            await _zstd(blob, target)
        else:
            await in_thread(lambda interrupt: _gunzip(blob, target, interrupt))
        yield target


def _names(image: Image, reference: str, place: LocalSource, *, every: bool) -> list[str]:
    """The full names under which it is exported: the one asked for, else all, or the first."""
    if place.transport == "docker-archive" and place.selector:
        return [str(references.parse(place.selector, "target"))]
    if references.image_id_prefix(reference) is None:
        name = references.parse(reference)
        if not name.digest:
            return [str(name)]
    return list(image.repo_tags if every else image.repo_tags[:1])


def _descriptor(leaving: Leaving, marks: dict[str, str]) -> dict[str, Any]:
    content = leaving.files[leaving.digest].read_bytes()
    kind = msgspec.json.decode(content).get("mediaType") or MANIFEST_TYPE
    descriptor = {"mediaType": kind, "digest": leaving.digest, "size": len(content)}
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
