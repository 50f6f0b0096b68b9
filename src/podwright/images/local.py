"""Images in files and directories of this host: their manifests and the names they have there.

Of OCI layouts (also in a tar archive) and of skopeo's own directories the manifest is read here, byte for
byte; their blobs come through skopeo like a registry's. An archive of Docker's has no manifest of its own.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from podwright import structs
from podwright.errors import NotFound, PodwrightError
from podwright.images.documents import Entry, Index
from podwright.images.references import LocalSource

REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
MAX_DOCUMENT = 4 << 20
"""Bytes that a manifest or an index may have, as in registries."""

Read = Callable[[str], bytes]
"""Reads the file of this name in a layout."""


@contextmanager
def reading(source: LocalSource) -> Iterator[Read]:
    """Reads files of the layout, archive or directory `source`. Blocks; NotFound when there is none."""
    if source.transport in ("oci", "dir"):
        top = Path(source.path)

        def from_directory(name: str) -> bytes:
            with (top / name).open("rb") as file:
                return _bounded(source, name, file.read(MAX_DOCUMENT + 1))

        with _explained(source):
            yield from_directory
        return
    with _explained(source), tarfile.open(source.path, "r:*") as tar:

        def from_archive(name: str) -> bytes:
            for spelled in (name, f"./{name}"):
                try:
                    file = tar.extractfile(spelled)
                except KeyError:
                    continue
                if file is not None:
                    return _bounded(source, name, file.read(MAX_DOCUMENT + 1))
            raise NotFound(f"{source}: there is no {name} in it")

        yield from_archive


def entry_of(source: LocalSource, read: Read) -> Entry:
    """What the layout's index.json lists as the image that `source` selects."""
    index = structs.decode(read("index.json"), Index)
    if not source.selector:
        if len(index.manifests) == 1:
            return index.manifests[0]
        names = [name for entry in index.manifests if (name := (entry.annotations or {}).get(REF_NAME))]
        raise NotFound(
            f"{source}: there are {len(index.manifests)} images in it, name one after a colon: "
            + ", ".join(names)
        )
    for entry in index.manifests:
        if (entry.annotations or {}).get(REF_NAME) == source.selector:
            return entry
    raise NotFound(f"{source}: no image in it is called {source.selector}")


def names_in(source: LocalSource) -> list[str]:
    """The names that an archive or layout gives to the image `source` selects; may be none. Blocks."""
    if source.transport == "dir":
        return []
    if source.transport == "docker-archive":
        if source.selector:
            return [] if source.selector.startswith("@") else [source.selector]
        with reading(source) as read:
            entries: list[Mapping[str, Any]] = msgspec.json.decode(read("manifest.json"))
            return list(entries[0].get("RepoTags") or []) if len(entries) == 1 else []
    if source.selector:
        return [source.selector]
    with reading(source) as read:
        marks = entry_of(source, read).annotations or {}
        name = marks.get(FULL_NAME) or marks.get(REF_NAME)
        return [name] if name else []


def docker_entries(source: LocalSource) -> list[list[str]]:
    """The names of each image in a Docker archive, in its order. Blocks."""
    with reading(source) as read:
        return [list(each.get("RepoTags") or []) for each in msgspec.json.decode(read("manifest.json"))]


def marks_in(source: LocalSource) -> list[Mapping[str, str]]:
    """The annotations that the index.json of an OCI layout or archive has of each image, in order. Blocks."""
    with reading(source) as read:
        index = structs.decode(read("index.json"), Index)
        return [entry.annotations or {} for entry in index.manifests]


def _bounded(source: LocalSource, name: str, content: bytes) -> bytes:
    if len(content) > MAX_DOCUMENT:
        raise PodwrightError(f"{source}: its {name} has more than {MAX_DOCUMENT >> 20} MiB")
    return content


@contextmanager
def _explained(source: LocalSource) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError, msgspec.DecodeError, LookupError, AttributeError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFound(f"{source}: no image can be read there: {reason}") from error
