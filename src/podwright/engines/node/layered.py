"""Reading an image's files in its layers, as an overlay of them would show them, without mounting one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from podwright.engines.node.rootfs import MAX_DATABASE, followed
from podwright.errors import FailedPrecondition, ImageVolumeMountFailed
from podwright.spec.inputs import RootfsFiles

OPAQUE = "trusted.overlay.opaque"


def user_files(lower: Sequence[Path]) -> RootfsFiles:
    """The image's own user databases; `lower` topmost first. PermissionError when this user may not look."""
    return RootfsFiles(_text(lower, "etc/passwd"), _text(lower, "etc/group"))


def directory(lower: Sequence[Path], path: str, field: str) -> tuple[str, ...]:
    """Where the directory `path` is; ImageVolumeMountFailed when it is none. `field` is where the request has
    the image."""
    try:
        parts = inside(lower, path)
    except FailedPrecondition as error:
        raise ImageVolumeMountFailed(f"{field}_sub_path: {error}") from error
    found = _find(lower, parts)
    if found is None or not found.is_dir():
        raise ImageVolumeMountFailed(f"{field}_sub_path: {path!r} is no directory of the image")
    return parts


def inside(lower: Sequence[Path], path: str) -> tuple[str, ...]:
    """As `rootfs.followed`; the rest as it stands where something is missing."""

    def link(parts: Sequence[str]) -> str | None:
        found = _find(lower, parts)
        return str(found.readlink()) if found is not None and found.is_symlink() else None

    return followed(path, link)


def _text(lower: Sequence[Path], path: str) -> str | None:
    try:
        found = _find(lower, inside(lower, path))
    except FailedPrecondition:
        return None
    if found is None or not found.is_file():
        return None
    with found.open("rb") as file:
        return file.read(MAX_DATABASE).decode(errors="surrogateescape")


def _find(lower: Sequence[Path], parts: Sequence[str]) -> Path | None:
    """The file at `parts`, whose parents are no links, in the topmost layer that has it."""
    for layer in lower:
        path, covers = layer, False
        for part in parts:
            # An opaque directory is all there is of it: what lower layers have there is not seen.
            covers = covers or _opaque(path)
            path = path / part
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                break
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                return None
            if path != layer.joinpath(*parts) and not stat.S_ISDIR(status.st_mode):
                return None
        else:
            return path
        if covers:
            return None
    return None


def _opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT, errno.ENOTDIR):
            raise
        return False
