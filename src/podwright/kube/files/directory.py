"""Where the files of one pod lie: ROOT/pods/UID as a kubelet lays it out, and its logs beside. Pure but for
`new_termination_log`.

    ROOT/pods/UID/etc-hosts
                  volumes/kubernetes.io~KIND/NAME
                  volume-subpaths/VOLUME/CONTAINER/INDEX
                  containers/CONTAINER/<8 hex digits>      termination messages, one an attempt
                  pod.json, status.json, events.jsonl      podwright's own account of the pod
    POD_LOGS/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.errors import InvalidArgument

if TYPE_CHECKING:
    from podwright.kube.node import Node

_LOG = re.compile(r"(\d+)\.log(\..*)?", re.ASCII)
TERMINATION_LOG_MODE = 0o666
"""Whoever the container's user is, it may write its message."""


@dataclass(frozen=True, slots=True)
class PodDirectory:
    """Paths of a pod's files; making and removing them is `volumes`' work."""

    path: Path
    logs_root: Path

    @classmethod
    def of(cls, node: Node, namespace: str, name: str, uid: str) -> PodDirectory:
        """InvalidArgument for names that would lead elsewhere."""
        return cls.below(node.root, namespace, name, uid, node.logs)

    @classmethod
    def below(
        cls, root: Path, namespace: str, name: str, uid: str, pod_logs: Path | None = None
    ) -> PodDirectory:
        """The same without a node: files below `root`, logs below `pod_logs`, or else ROOT/logs."""
        for field, value in (("namespace", namespace), ("name", name), ("uid", uid)):
            if not value or "/" in value or value in (".", ".."):
                raise InvalidArgument(f"metadata.{field}", f"{value!r} cannot name a directory")
        return cls(root / "pods" / uid, (pod_logs or root / "logs") / f"{namespace}_{name}_{uid}")

    @property
    def own(self) -> Path:
        return self.path

    @property
    def hosts(self) -> Path:
        return self.path / "etc-hosts"

    @property
    def user_ids(self) -> Path:
        """Which range of the host's ids the pod has (`id_ranges`)."""
        return self.path / "user-ids"

    @property
    def manifest(self) -> Path:
        """The Pod with its defaults, as it was last applied."""
        return self.path / "pod.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    def volume(self, kind: str, name: str) -> Path:
        """The directory of a volume; `kind` is the plugin's name, "empty-dir" or "configmap"."""
        return self.volumes / f"kubernetes.io~{kind}" / name

    def ready(self, volume: str) -> Path:
        """Says that a volume has been made: what is in it since then is the containers'."""
        return self.path / "plugins" / "kubernetes.io~empty-dir" / volume / "ready"

    @property
    def subpaths(self) -> Path:
        return self.path / "volume-subpaths"

    def subpath(self, volume: str, container: str, index: int) -> Path:
        return self.subpaths / volume / container / str(index)

    def messages(self, container: str) -> Path:
        """Where the termination messages of a container's attempts lie."""
        return self.path / "containers" / container

    def termination_log(self, container: str) -> Path:
        """A path for the next attempt's termination message; a new one each time. An attempt's own is found
        again in the mounts of its status."""
        return self.messages(container) / secrets.token_hex(4)

    def new_termination_log(self, container: str) -> Path:
        """The same, made: an empty file that everybody may write. Blocks; raises OSError."""
        self.messages(container).mkdir(mode=0o750, parents=True, exist_ok=True)
        while True:
            path = self.termination_log(container)
            try:
                fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, TERMINATION_LOG_MODE)
            except FileExistsError:
                continue
            try:
                os.fchmod(fd, TERMINATION_LOG_MODE)
            finally:
                os.close(fd)
            return path

    def logs(self, container: str) -> Path:
        return self.logs_root / container

    def log(self, container: str, attempt: int) -> Path:
        return self.logs(container) / f"{attempt}.log"

    def kept_attempts(self, container: str) -> Iterator[int]:
        """The attempts whose log files are there, rotated ones among them, in no order. Blocks."""
        for path in self.logs(container).glob("*.log*"):
            if match := _LOG.match(path.name):
                yield int(match[1])
