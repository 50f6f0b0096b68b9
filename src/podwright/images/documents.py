"""What is read of an image's manifest and configuration (OCI image specification, Docker schema 2)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from podwright import structs
from podwright.errors import PodwrightError, Unimplemented
from podwright.images.platform import Platform

CONFIG_TYPES = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "",
}


MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading somebody's JSON may end with."""


class RootFs(msgspec.Struct):
    diff_ids: list[str]


class Document(msgspec.Struct):
    """What is read of an image's configuration (image-spec, config.md)."""

    rootfs: RootFs
    config: dict[str, Any] | None = None
    # Only shown: what is no text here makes no image unusable.
    architecture: Any = None
    os: Any = None
    variant: Any = None

    @property
    def built(self) -> dict[str, Any]:
        """See `Image.built`."""
        made_for = {"architecture": self.architecture, "os": self.os, "variant": self.variant}
        told = {key: value for key, value in made_for.items() if isinstance(value, str) and value}
        return {**told, "rootfs": {"type": "layers", "diff_ids": self.rootfs.diff_ids}}


class Descriptor(msgspec.Struct, rename="camel", frozen=True):
    digest: str
    media_type: str = ""
    size: int = 0
    """Bytes; 0 when nobody says."""
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]
    artifact_type: str = ""
    annotations: dict[str, str] | None = None

    @property
    def is_artifact(self) -> bool:
        """Whether it holds files that are no container image (image-spec, artifacts-guidance.md)."""
        return bool(self.artifact_type) or self.config.media_type not in CONFIG_TYPES


class PlatformEntry(msgspec.Struct, rename="camel"):
    os: str = ""
    architecture: str = ""
    variant: str = ""

    def platform(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant)


class Entry(Descriptor, rename="camel", frozen=True):
    """One of an index's manifests."""

    platform: PlatformEntry | None = None


class Index(msgspec.Struct, rename="camel"):
    """An OCI image index or a Docker manifest list."""

    manifests: list[Entry]


def read_manifest(source: str, content: bytes) -> Manifest | Index:
    """What is served under an image's name; its shape counts, for the media type may be left out.

    Raises PodwrightError when it is neither, and for what could be read as both: two readers of the same
    digest would see two images.
    """
    try:
        tree = msgspec.json.decode(content)
        if not isinstance(tree, dict):
            raise PodwrightError(f"{source}: its manifest is no JSON object")
        if "fsLayers" in tree or tree.get("schemaVersion") == 1:
            raise PodwrightError(
                f"{source}: its manifest is Docker's schema 1, which is not supported: push the image again "
                "with a newer tool"
            )
        listed = "manifests" in tree
        if listed and ("layers" in tree or "config" in tree):
            raise PodwrightError(f"{source}: its manifest is both an index and an image's")
        kind = str(tree.get("mediaType") or "")
        if kind and (kind in INDEX_TYPES) != listed and kind in (*INDEX_TYPES, *MANIFEST_TYPES):
            raise PodwrightError(f"{source}: its manifest says that it is {kind}, which it is not")
        if listed:
            return structs.convert(tree, Index)
        return structs.convert(tree, Manifest)
    except UNREADABLE as error:
        raise PodwrightError(
            f"{source}: its manifest is none of an OCI or Docker v2 schema 2 image: {error}"
        ) from error


def check_layers(source: str, manifest: Manifest) -> None:
    """Raises Unimplemented when its layers are encrypted, PodwrightError when a digest is none of sha256."""
    if any(layer.media_type.endswith("+encrypted") for layer in manifest.layers):
        raise Unimplemented(f"{source}: its layers are encrypted")
    for each in (manifest.config, *manifest.layers):
        _check_digest(source, each.digest)
        if each.size < 0:
            raise PodwrightError(f"{source}: the manifest gives {each.digest} a size of {each.size}")


def _check_digest(source: str, digest: str) -> None:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise PodwrightError(f"{source}: the manifest has {digest!r} where a sha256 digest is needed")


def read_document(image_id: str, config: bytes) -> Document:
    try:
        return structs.decode(config, Document)
    except UNREADABLE as error:
        raise PodwrightError(f"image {image_id}: its configuration cannot be read: {error}") from error
