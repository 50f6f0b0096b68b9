"""Images of what lies on this host: made of a root directory or a tar of one, or brought from archives.

The image is an OCI image of one layer. The same tree and the same configuration give the same image id; a tar
is kept as the layer that it is, so it keeps its digest.
"""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from podwright.engines.base import Image, Json
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.images import local
from podwright.images.destination import Coming, Destination
from podwright.images.documents import Descriptor
from podwright.images.entries import NewImage
from podwright.images.layers import chain_ids, pack_root
from podwright.images.platform import ARCHITECTURE
from podwright.images.pulling import Pulling
from podwright.images.references import LocalSource, Reference, local_name, parse, parse_local
from podwright.linux import spawn
from podwright.linux.waiting import to_the_end

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CHUNK = 1 << 20
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_OF_ARCHIVES = re.compile(
    r"(\./)?([0-9a-f]{64}(\.json|\.tar|/.*)?|blobs(/.*)?|manifest\.json|index\.json|oci-layout|repositories)?/?"
)
"""Names in archives of images; a root file system has others among its first."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A layer in a file of its own."""

    digest: str
    size: int
    diff_id: str
    media_type: str = LAYER_TYPE


class Importing:
    def __init__(self, destination: Destination, pulling: Pulling) -> None:
        self._destination = destination
        self._pulling = pulling

    async def bring(self, source: str, reference: str, config: Mapping[str, Json]) -> Sequence[Image]:
        """See ImageService.import_image; without a scheme it is found out what lies at the path `source`."""
        local = parse_local(source, "source")
        if local is None:
            path = Path(source)
            kind = await asyncio.to_thread(kind_of, path)
            if kind in ("root", "tar"):
                make = self.directory if kind == "root" else self.tar
                return [await make(path, name_for(reference), config)]
            local = LocalSource(kind, str(path))
        if config:
            raise InvalidArgument("config", f"{local} holds images, which have a configuration already")
        found = await asyncio.to_thread(images_in, local)
        if reference:
            if len(found) > 1:
                raise InvalidArgument(
                    "reference",
                    f"{local} holds {len(found)} images: {', '.join(map(str, found))}; name one of them",
                )
            found = {each: [str(name_for(reference))] for each in found}
        return [await self._pulling.pull_local(each, names) for each, names in found.items()]

    async def directory(self, root: Path, name: Reference, config: Mapping[str, Json]) -> Image:
        """Name an image of one layer of the root directory `root`."""
        if not root.is_dir():
            raise NotFound(f"{root} is no directory")
        async with self._destination.workplace() as work:
            diff_id = await pack_root(root, work / "layer")
            made = _Made(diff_id, (work / "layer").stat().st_size, diff_id)
            return await self._record(work / "layer", made, name, config)

    async def tar(self, file: Path, name: Reference, config: Mapping[str, Json]) -> Image:
        """Name an image whose one layer is the tar `file`, compressed in any of the usual ways."""
        async with self._destination.workplace() as work:
            source = await _without_zstd(file, work)
            made = await to_the_end(asyncio.to_thread(_take, source, work / "layer"))
            return await self._record(work / "layer", made, name, config)

    async def _record(self, layer: Path, made: _Made, name: Reference, config: Mapping[str, Json]) -> Image:
        document = _encoded(
            {
                "architecture": ARCHITECTURE,
                "config": dict(config),
                "os": "linux",
                "rootfs": {"diff_ids": [made.diff_id], "type": "layers"},
            }
        )
        image_id = f"sha256:{hashlib.sha256(document).hexdigest()}"
        blob = Descriptor(made.digest, made.media_type, made.size)
        manifest = _encoded(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": len(document)},
                "layers": [{"mediaType": made.media_type, "digest": made.digest, "size": made.size}],
            }
        )
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        chain = chain_ids([made.diff_id])
        async with self._destination.intake(Coming(None, (digest, image_id), (blob,))) as intake:
            await intake.hold(chain)
            await intake.take(FileFetch(blob, layer))
            await intake.unpack(chain, made.diff_id, blob)
            await intake.put(document)
            await intake.put(manifest)
            return await intake.record(NewImage(image_id, document, tuple(chain), digest), [str(name)])


@dataclass(frozen=True, slots=True)
class FileFetch:
    """A blob that is a file here; taken, the file may be gone. Implements destination.Fetch."""

    descriptor: Descriptor
    _file: Path

    async def save(self, target: Path) -> None:
        self._file.rename(target)

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[bytes]]:
        with self._file.open("rb") as file:
            yield _pieces(file)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, CHUNK):
        yield piece


def name_for(reference: str) -> Reference:
    """What a new image is called. InvalidArgument for "", and for what has a digest."""
    if not reference:
        raise InvalidArgument("reference", "is required: a root file system has no name of its own")
    name = parse(reference, "reference")
    if name.digest:
        raise InvalidArgument("reference", f"{reference!r}: an import gets a tag, its digest follows")
    return name


def kind_of(path: Path) -> str:
    """What lies at `path`: "root" (a directory), "oci", "tar" (of a root), "oci-archive" or "docker-archive".

    Reads until it is sure. NotFound when nothing is there or it cannot be read. Blocks.
    """
    try:
        if path.is_dir():
            return "oci" if (path / "oci-layout").is_file() else "root"
        found = set()
        with tarfile.open(path, "r:*") as tar:
            for entry in tar:
                if not _OF_ARCHIVES.fullmatch(entry.name):
                    return "tar"
                found.add(entry.name.removeprefix("./"))
                tar.members.clear()  # type: ignore[attr-defined]  # a list of all entries, which nobody needs
        if "index.json" in found and "oci-layout" in found:
            # What Docker writes today is both; only as an OCI archive it keeps its digests.
            return "oci-archive"
        return "docker-archive" if "manifest.json" in found else "tar"
    except tarfile.ReadError as error:
        with path.open("rb") as file:
            if file.read(4) == _ZSTD:
                return "tar"
        raise NotFound(f"{path} is neither a directory nor a tar archive") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise NotFound(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def images_in(source: LocalSource) -> dict[LocalSource, list[str]]:
    """What `source` selects, or each image of an archive or layout, with the names that it is given there.

    NotFound when none can be read, InvalidArgument when they cannot be told apart. Blocks.
    """
    if source.selector or source.transport == "dir":
        return {source: _full_names(source, local.names_in(source))}
    if source.transport == "docker-archive":
        entries = local.docker_entries(source)
        if len(entries) == 1:
            return {source: _full_names(source, entries[0])}
        return {
            replace(source, selector=f"@{index}"): _full_names(source, names, alone=False)
            for index, names in enumerate(entries)
        }
    marks = local.marks_in(source)
    if len(marks) == 1:
        return {source: _full_names(source, local.names_in(source))}
    found = {
        replace(source, selector=each[local.REF_NAME]): _full_names(
            source, [each.get(local.FULL_NAME) or each[local.REF_NAME]], alone=False
        )
        for each in marks
        if each.get(local.REF_NAME)
    }
    if len(found) == len(marks):
        return found
    if source.transport == "oci-archive":
        # Docker gives images of different names the same mark, "latest"; its own list tells them apart.
        try:
            return images_in(replace(source, transport="docker-archive"))
        except NotFound:
            pass
    raise InvalidArgument(
        "source", f"{source} holds {len(marks)} images, of which only {len(found)} can be told by their names"
    )


def _full_names(source: LocalSource, names: Sequence[str], *, alone: bool = True) -> list[str]:
    """Names in full; an image that has none and is alone is called as its file is."""
    found = [local_name(source, name) for name in names or ([""] if alone else [])]
    return [str(name) for name in found if name is not None]


def _encoded(document: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document, order="deterministic")
    except TypeError as error:
        raise InvalidArgument("config", str(error)) from error


async def _without_zstd(file: Path, work: Path) -> Path:
    """`file`, or what it holds if it is compressed in a way that the standard library cannot read."""
    try:
        with file.open("rb") as opened:
            if opened.read(4) != _ZSTD:
                return file
        await spawn.check(["zstd", "-d", "-q", "-o", str(work / "plain"), "--", str(file)])
    except FileNotFoundError as error:
        if error.filename == "zstd":
            raise FailedPrecondition(f"{file} is compressed by zstd, which is not installed") from None
        raise NotFound(f"{file} is not there") from error
    return work / "plain"


def _take(source: Path, target: Path) -> _Made:
    """Copy the tar `source` to `target`: as it is when that is a layer's form (plain, gzip), else plain."""
    with source.open("rb") as file:
        first = file.read(len(_XZ))
    openers = ((_GZIP, gzip.open), (_BZIP2, bz2.open), (_XZ, lzma.open))
    opener: Any = next((opener for mark, opener in openers if first.startswith(mark)), open)
    try:
        if opener is not gzip.open:
            digest, size = _copied(source, opener, target)
            return _Made(digest, size, digest)
        digest, size = _copied(source, open, target)
        diff_id, _ = _copied(source, gzip.open, None)
        return _Made(digest, size, diff_id, f"{LAYER_TYPE}+gzip")
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise PodwrightError(f"{source} cannot be decompressed: {error}") from error


def _copied(source: Path, opener: Any, target: Path | None) -> tuple[str, int]:
    """The digest and length of what `opener` reads in `source`, which is written to `target`."""
    found, size = hashlib.sha256(), 0
    with opener(source, "rb") as file, open(target or os.devnull, "wb") as out:
        while block := file.read(CHUNK):
            found.update(block)
            size += out.write(block)
    return f"sha256:{found.hexdigest()}", size
