"""Which static pods were begun here and are not gone yet: a file each, written before anything of the pod
exists and removed after everything. So a keeper that was killed at any instruction is followed by one that
knows what there may be; and what nobody noted here is none of ours.

All blocking.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from podwright import structs
from podwright.errors import FailedPrecondition
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Pod

MODE = 0o600
"""A manifest may hold secrets."""


class _Noted(msgspec.Struct, frozen=True):
    """What a file holds."""

    pod: Pod
    """As it was last applied."""
    source: str
    endpoint: str = ""


class StaticRecords:
    """Those below one root."""

    def __init__(self, root: Path, endpoint: str = "") -> None:
        """`endpoint`: where the pods run; "" is the server that has `root`."""
        self.root = root
        self._endpoint = endpoint
        self._directory = root / "static" / "pods"

    @property
    def files(self) -> Path:
        """Where it is kept what files said last (`static_files`)."""
        return self.root / "static" / "files"

    def read(self) -> list[Manifest]:
        """All of them. FailedPrecondition when there are pods of another endpoint: only there they can be
        ended."""
        for path in (self._directory, self.files):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                noted = structs.decode(path.read_bytes(), _Noted)
            except (OSError, msgspec.DecodeError) as error:
                logging.getLogger("podwright.static").warning("%s cannot be read: %s", path, error)
                continue
            if noted.endpoint != self._endpoint:
                raise FailedPrecondition(
                    f"{self.root} has static pods of {noted.endpoint or 'its own server'}: choose another"
                    " --root for this endpoint, or keep an empty directory there until they are gone"
                )
            found.append(Manifest(noted.pod, noted.source, static=True))
        return found

    def write(self, manifest: Manifest) -> None:
        """Raises OSError."""
        path = self._path(manifest.uid)
        content = msgspec.json.encode(_Noted(manifest.pod, manifest.source, self._endpoint))
        with suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return
        draft = path.with_name(f"{path.name}.new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        draft.replace(path)

    def remove(self, uid: str) -> None:
        self._path(uid).unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self._directory / f"{uid}.json"
