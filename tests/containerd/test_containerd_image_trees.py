"""What images are made of, whoever made them: one that is no image is told as that, and spoils no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from podwright.engines.containerd.content import Content
from podwright.engines.containerd.image_trees import Trees, described
from podwright.errors import NotFound, PodwrightError
from podwright.images.platform import wanted_platform

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
GOOD = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}


class Store:
    """Content by digest."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._blobs[digest] = content
        return digest

    def image(self, config: bytes) -> bytes:
        """The manifest of one with this configuration."""
        about = {"digest": self.put(config), "size": len(config)}
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": []}).encode()

    async def read(self, digest: str) -> bytes:
        if digest not in self._blobs:
            raise NotFound(digest)
        return self._blobs[digest]


def _config(**changed: Any) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"\x00",
        b"[]",
        b"[" * 100_000,
        _config(config=[]),
        _config(rootfs=None),
        _config(config={"Labels": {"by": "?"}}).replace(b"?", b"\xff"),
    ],
    ids=["empty", "binary", "list", "deep", "section", "rootfs", "encoding"],
)
async def test_what_is_no_configuration_is_an_error_in_words(config: bytes) -> None:
    store = Store()
    manifest = store.image(config)
    store.put(manifest)
    with pytest.raises(PodwrightError, match="cannot be read"):
        await Trees(cast(Content, store), wanted_platform("")).of(described(manifest))


async def test_what_is_no_manifest_is_an_error_in_words() -> None:
    store = Store()
    good = described(store.image(_config()))
    trees = Trees(cast(Content, store), wanted_platform(""))
    for content in (b"", b"[" * 100_000, b'{"mediaType": "\xff"}'):
        target = type(good)(store.put(content), good.media_type, len(content))
        with pytest.raises(PodwrightError, match="its manifest is none"):
            await trees.of(target)


@pytest.mark.parametrize("section", [{"Labels": 5}, {"Labels": ["a"]}, {"Labels": None}, {}])
async def test_labels_that_are_none_are_no_reason_to_refuse_an_image(section: Mapping[str, Any]) -> None:
    store = Store()
    manifest = store.image(_config(config=section))
    store.put(manifest)
    tree = await Trees(cast(Content, store), wanted_platform("")).of(described(manifest))
    image = tree.image()
    assert image.config == section and not image.checkpoint
