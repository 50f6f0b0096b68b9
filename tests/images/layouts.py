"""Layers and OCI layouts made by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


def gzipped(content: bytes) -> bytes:
    """The same bytes in every second: gzip would write down the time."""
    return gzip.compress(content, mtime=0)


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class TarMaker:
    """A layer, entry by entry."""

    buffer: io.BytesIO = field(default_factory=io.BytesIO)
    format: int = tarfile.PAX_FORMAT

    def __post_init__(self) -> None:
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=self.format)  # noqa: SIM115

    def add(self, name: str, content: bytes = b"", **attributes: object) -> TarMaker:
        entry = tarfile.TarInfo(name)
        entry.mode, entry.size = 0o644, len(content)
        for key, value in attributes.items():
            setattr(entry, key, value)
        self.tar.addfile(entry, io.BytesIO(content))
        return self

    def directory(self, name: str, mode: int = 0o755, **attributes: object) -> TarMaker:
        return self.add(name, b"", type=tarfile.DIRTYPE, mode=mode, **attributes)

    def symlink(self, name: str, target: str) -> TarMaker:
        return self.add(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)

    def link(self, name: str, target: str) -> TarMaker:
        return self.add(name, type=tarfile.LNKTYPE, linkname=target)

    def done(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


def write_layout(
    directory: Path,
    layers: Sequence[bytes],
    *,
    config: dict[str, object] | None = None,
    pack: Callable[[bytes], bytes] | None = gzipped,
    media: str = "application/vnd.oci.image.layer.v1.tar+gzip",
    diff_ids: Sequence[str] | None = None,
    tag: str = "v1",
) -> str:
    """Write an OCI layout with one image of these uncompressed tars; return its id."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(content: bytes, kind: str) -> dict[str, object]:
        name = digest(content)
        (blobs / name.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": kind, "digest": name, "size": len(content)}

    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(layer) for layer in layers]},
    }
    encoded = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(encoded, "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(pack(layer) if pack else layer, media) for layer in layers],
    }
    top = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return digest(encoded)
