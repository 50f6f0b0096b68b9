"""hostPath: is the path what its type says? Some types make it."""

from __future__ import annotations

import stat
from pathlib import Path

from podwright.kube.models import HostPathVolumeSource

NEW_DIRECTORY_MODE, NEW_FILE_MODE = 0o755, 0o644

_CHECKS = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


def check(source: HostPathVolumeSource) -> None:
    """ValueError in the kubelet's words where the path does not fit its type; OSError where it cannot be
    made. Without a type anything goes: the runtime makes a directory where there is nothing."""
    path, kind = Path(source.path), source.type or ""
    if kind == "DirectoryOrCreate":
        if not path.exists():
            path.mkdir(mode=NEW_DIRECTORY_MODE, parents=True)
            path.chmod(NEW_DIRECTORY_MODE)
        kind = "Directory"
    elif kind == "FileOrCreate":
        if not path.exists():
            path.touch(mode=NEW_FILE_MODE)
            path.chmod(NEW_FILE_MODE)
        kind = "File"
    if not kind:
        return
    test, what = _CHECKS[kind]
    try:
        fits = test(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        fits = False
    if not fits:
        raise ValueError(f"hostPath type check failed: {source.path} is not a {what}")
