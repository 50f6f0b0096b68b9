"""What is read of an image's manifest and configuration (OCI image specification, Docker schema 2)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from podwright.errors import PodwrightError, Unimplemented

CONFIG_TYPES = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "",
}


class RootFs(msgspec.Struct):
    diff_ids: list[str]


class Document(msgspec.Struct):
    """What is read of an image's configuration (image-spec, config.md)."""

    rootfs: RootFs
    config: dict[str, Any] | None = None


class Descriptor(msgspec.Struct, rename="camel", frozen=True):
    digest: str
    media_type: str = ""
    size: int = 0
    """Bytes; 0 when nobody says."""


class Manifest(msgspec.Struct, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]


def image_files(source: str, manifest: bytes, directory: Path) -> tuple[bytes, list[Path]]:
    """The configuration and the layers' files of the image in `directory`, filled by `pull.copy`.

    Raises PodwrightError when it is no container image or an encrypted one.
    """
    try:
        tree = msgspec.json.decode(manifest, type=Manifest)
    except msgspec.DecodeError as error:
        raise PodwrightError(
            f"{source}: its manifest is none of an OCI or Docker v2 schema 2 image: {error}"
        ) from error
    if tree.config.media_type not in CONFIG_TYPES:
        raise PodwrightError(f"{source} is no container image: its configuration is {tree.config.media_type}")
    if any(layer.media_type.endswith("+encrypted") for layer in tree.layers):
        raise Unimplemented(f"{source}: its layers are encrypted")
    config = (directory / _file_name(source, tree.config.digest)).read_bytes()
    if f"sha256:{hashlib.sha256(config).hexdigest()}" != tree.config.digest:
        raise PodwrightError(f"{source}: its configuration is not what {tree.config.digest} says")
    return config, [directory / _file_name(source, layer.digest) for layer in tree.layers]


def _file_name(source: str, digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or not digits.isalnum():
        raise PodwrightError(f"{source}: the manifest has {digest!r} where a sha256 digest is needed")
    return digits


def read_document(image_id: str, config: bytes) -> Document:
    try:
        return msgspec.json.decode(config, type=Document)
    except msgspec.DecodeError as error:
        raise PodwrightError(f"image {image_id}: its configuration cannot be read: {error}") from error
