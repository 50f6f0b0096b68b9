"""OCI artifacts (image-spec, manifest.md): files under a digest that are no container image.

The store keeps an artifact as an image of one layer, which has its files, so that it can be listed, mounted
as a volume and removed like others. Its id is the digest of its manifest: it has no configuration of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from podwright.errors import PodwrightError
from podwright.images.documents import Descriptor
from podwright.linux.waiting import to_the_end

if TYPE_CHECKING:
    from hashlib import _Hash

TITLE = "org.opencontainers.image.title"
"""The annotation of a layer that names its file (image-spec, annotations.md)."""


def file_names(source: str, layers: Sequence[Descriptor]) -> list[str]:
    """What the files of the layers are called: their titles, or the hex digits of their digests.

    A title may lead into directories. PodwrightError when one leads out of the artifact, or two are the same.
    """
    names: list[str] = []
    for layer in layers:
        name = (layer.annotations or {}).get(TITLE) or layer.digest.rpartition(":")[2]
        parts = name.split("/")
        if name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise PodwrightError(
                f"{source}: {name!r} ({TITLE} of {layer.digest}) is no name for a file in it"
            )
        if name in names:
            raise PodwrightError(f"{source}: two of its files are called {name!r}")
        names.append(name)
    return names


def pack(files: Sequence[tuple[str, Path]], target: Path) -> str:
    """Make the uncompressed layer `target` of files, each with its name; return its diff id. Blocks."""
    digest = hashlib.sha256()
    with target.open("xb") as stream:
        hashed = cast(BinaryIO, _Hashed(stream, digest))
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name, path in files:
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as content:
                    tar.addfile(entry, content)
    return f"sha256:{digest.hexdigest()}"


async def packed(files: Sequence[tuple[str, Path]], target: Path) -> str:
    """`pack`, in a thread that a cancellation waits for."""
    return await to_the_end(asyncio.to_thread(pack, files, target))


def configuration(diff_id: str) -> bytes:
    """What stands in the place of an image's configuration."""
    return msgspec.json.encode({"config": {}, "rootfs": {"diff_ids": [diff_id], "type": "layers"}})


def is_artifact(image_id: str, config: bytes) -> bool:
    """Of what is recorded: only an image's id is the digest of its configuration."""
    return image_id != f"sha256:{hashlib.sha256(config).hexdigest()}"


class _Hashed:
    def __init__(self, stream: BinaryIO, digest: _Hash) -> None:
        self._stream = stream
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._stream.write(data)
