"""Removing all files of a pod, and nothing that is not the pod's."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwright.errors import FailedPrecondition
from podwright.kube.files.directory import PodDirectory
from podwright.linux import mounts, trees
from podwright.wire import cri_pb2 as cri

GRAVES = "pods-removed"
"""Directory beside "pods" for what is being removed: a pod's directory is there whole or not at all, also
when a removal does not come to its end. The next one does what is left."""


def remove(directory: PodDirectory) -> None:
    """Unmount and remove the pod's files and logs; fine when there are none, or only part of them.

    Raises FailedPrecondition where something stays mounted below, for removing through a mount would delete
    what is not the pod's; OSError. Blocks.
    """
    _remove(directory.path)
    trees.remove(directory.logs_root)


def discard(root: Path, metadata: cri.PodSandboxMetadata, pod_logs: Path | None = None) -> None:
    """Remove the files below `root` of the pod whose sandbox had `metadata`, also those of earlier versions
    of podwright, and its logs (below `root`/logs, or `pod_logs`). Blocks; raises as `remove`."""
    names = (metadata.namespace, metadata.name, metadata.uid)
    # Any client may have made the sandbox: such names are no pod's of ours, and could lead elsewhere.
    if not all(names) or any("/" in name or name in (".", "..") for name in names):
        return
    remove(PodDirectory.below(root, *names, pod_logs))
    _remove(root / "pods" / "_".join(names))


def _remove(path: Path) -> None:
    graves = path.parent.with_name(GRAVES)
    if path.is_dir():
        mounts.unmount_below(path)
        if left := mounts.mounts_below(path):
            raise FailedPrecondition(f"{left[0].target} is still mounted; {path} was left as it is")
        graves.mkdir(mode=0o700, exist_ok=True)
        with _locked(path):
            grave = path.rename(graves / f"{path.name}.{secrets.token_hex(4)}")
            trees.remove(grave)
    # The directories themselves stay: somebody may be about to use them.
    for grave in list(graves.iterdir()) if graves.is_dir() else ():
        with _locked(grave) as ours:
            if ours:
                trees.remove(grave)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether nobody else is removing `directory`; they keep off while this holds it."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(fd)
