"""The images of the benchmark, made from the machine's own static programs: no registry is asked.

An image is one OCI archive that containerd imports; the same directory feeds podwright and the floor.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

APPLETS = ("sh", "sleep", "true", "cat", "echo", "ls")
BUSYBOX = Path("/bin/busybox")
PAUSE = Path("/usr/bin/catatonit")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def busybox_root(directory: Path) -> None:
    """A root file system with the few applets that the benchmark calls."""
    (directory / "bin").mkdir(parents=True)
    for name in ("proc", "sys", "dev", "etc", "tmp"):
        (directory / name).mkdir()
    (directory / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in APPLETS:
        os.link(directory / "bin/busybox", directory / "bin" / applet)


def pause_root(directory: Path) -> None:
    """A root file system with nothing but the pause program."""
    directory.mkdir(parents=True)
    shutil.copy(PAUSE, directory / "pause")


def oci_archive(root: Path, reference: str, entrypoint: Sequence[str], archive: Path) -> None:
    """Write `root` as a one-layer OCI archive named `reference`."""
    layer = _tar_of(root)
    config = _json(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created_by": "podwright bench"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    described["annotations"] = {"io.containerd.image.name": reference}
    index = _json({"schemaVersion": 2, "manifests": [described]})
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in (layer, config, manifest):
            _add(tar, "blobs/" + _digest(blob).replace(":", "/"), blob)


def _tar_of(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(root)), recursive=False)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(tree: Mapping[str, object]) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()
