"""Where the files of one pod lie: ROOT/pods/<namespace>_<name>_<uid>/, laid out as a kubelet would. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PodDirectory:
    """Paths of a pod's files; making and removing them is `volumes`' work.

    Log files lie at <this>/<container>/<attempt>.log: a container's name holds no dot, so the pod's own
    files, below ".pod", can never meet it.
    """

    path: Path

    @classmethod
    def of(cls, root: Path, namespace: str, name: str, uid: str) -> PodDirectory:
        return cls(root / "pods" / f"{namespace}_{name}_{uid}")

    @property
    def own(self) -> Path:
        return self.path / ".pod"

    @property
    def hosts(self) -> Path:
        return self.own / "etc-hosts"

    @property
    def user_ids(self) -> Path:
        """Which range of the host's ids the pod has (`id_ranges`)."""
        return self.own / "user-ids"

    def logs(self, container: str) -> Path:
        return self.path / container

    def log(self, container: str, attempt: int) -> Path:
        return self.logs(container) / f"{attempt}.log"

    def empty_dir(self, volume: str) -> Path:
        return self.own / "volumes" / "kubernetes.io~empty-dir" / volume

    def subpath(self, volume: str, container: str, index: int) -> Path:
        return self.own / "volume-subpaths" / volume / container / str(index)

    def termination_log(self, container: str, attempt: int) -> Path:
        return self.own / "containers" / container / str(attempt)
