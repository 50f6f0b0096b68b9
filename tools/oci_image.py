"""Makes a one-layer OCI image from a root directory, as a layout directory: for the tests and the benchmark.

The same root and configuration give the same digests: times are not written, entries are sorted. Later
variants of one root share its layer: `add` to the same layout writes only what is new.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Layout:
    """An OCI image layout under construction."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._manifests: list[dict[str, object]] = []

    def layer(self, root: Path) -> dict[str, object]:
        """Store `root` as a layer; its descriptor."""
        return self._store(LAYER, _tar_of(root))

    def add(self, name: str, layers: list[dict[str, object]], config: Mapping[str, object]) -> str:
        """Add the image `name` with the OCI image `config` section; the image's id (its config's digest)."""
        described = self._store(
            CONFIG,
            _json(
                {
                    "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
                    "os": "linux",
                    "config": dict(config),
                    "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
                }
            ),
        )
        manifest = self._store(
            MANIFEST,
            _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}),
        )
        manifest["annotations"] = {
            "org.opencontainers.image.ref.name": name,
            "io.containerd.image.name": name,
        }
        self._manifests.append(manifest)
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.directory / "index.json").write_bytes(_json(index))
        return str(described["digest"])

    def archive(self, file: Path) -> Path:
        """The layout as one tar file."""
        with tarfile.open(file, "w") as tar:
            for path in sorted(self.directory.rglob("*")):
                tar.add(path, arcname=str(path.relative_to(self.directory)), recursive=False)
        return file

    def _store(self, media_type: str, blob: bytes) -> dict[str, object]:
        digest = hashlib.sha256(blob).hexdigest()
        (self.directory / "blobs/sha256" / digest).write_bytes(blob)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(blob)}


def _tar_of(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            member = tar.gettarinfo(path, arcname=str(path.relative_to(root)))
            member.mtime = 0
            if member.isreg():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    return buffer.getvalue()


def _json(tree: Mapping[str, object]) -> bytes:
    return json.dumps(tree, separators=(",", ":"), sort_keys=True).encode()
