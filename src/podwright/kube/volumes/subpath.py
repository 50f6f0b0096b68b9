"""A file or directory inside a volume, mounted alone: made where it is missing, and found without being led
out of the volume.

A container may have put links into its volume, and may change them at any moment: the path is resolved and
checked, then opened component by component without following a link. What was opened is what is mounted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from podwright.kube.failures import ConfigError
from podwright.kube.models import VolumeMount
from podwright.linux import beneath, mounts, syscalls

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
PARENT_MODE = 0o750


def below(mount: VolumeMount, variables: Mapping[str, str]) -> str:
    """The part of the volume that is mounted; "" is all of it. Raises ConfigError where a variable has no
    value, or the path would lead out."""
    path = mount.subPath or _expand(mount.subPathExpr or "", variables)
    if path.startswith("/"):
        raise ConfigError(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise ConfigError(f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def bind(volume: Path, path: str, target: Path, mount: VolumeMount, container: str) -> None:
    """Bind `path` in `volume` to `target`. Raises ConfigError without a word about the host's files, as the
    kubelet's: whoever sees a pod's status need not see them. Its cause has them. Blocks."""
    where = f'for volumeMount "{mount.name}" of container "{container}"'
    try:
        base = volume.resolve(strict=True)
        inside = _inside(base, Path(os.path.realpath(base / path)))
        _make(base, inside)
    except OSError as error:
        # What is there already is not to be made, whatever it leads to.
        act = "prepare subPath" if os.path.exists(volume / path) else "create subPath directory"  # noqa: PTH110
        raise ConfigError(f"failed to {act} {where}") from error
    try:
        _bind(base, inside, target)
    except OSError as error:
        raise ConfigError(f"failed to prepare subPath {where}") from error


def _expand(text: str, variables: Mapping[str, str]) -> str:
    names = {match[1] for match in _REFERENCE.finditer(text) if match[1] is not None}
    if missing := sorted(name for name in names if not variables.get(name)):
        raise ConfigError(f"missing value for {', '.join(missing)}")
    return _REFERENCE.sub(lambda match: "$" if match[1] is None else variables[match[1]], text)


def _inside(base: Path, wanted: Path) -> str:
    if base.is_dir():
        if not wanted.is_relative_to(base):
            raise OSError(errno.EXDEV, f"it leads out of {base}", str(wanted))
        return str(wanted.relative_to(base))
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(base))


def _make(base: Path, inside: str) -> None:
    """Make the directories that are missing, as the volume is: its mode, and its group where that is
    inherited."""
    found = stat.S_IMODE(base.stat().st_mode)
    mode = found & (0o777 | stat.S_ISGID)
    here = os.open(base, os.O_PATH | os.O_CLOEXEC)
    try:
        for part in Path(inside).parts:
            try:
                os.mkdir(part, 0o700, dir_fd=here)
                made = True
            except FileExistsError:
                made = False
            step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = step
            if made:
                os.chmod(f"/proc/self/fd/{here}", mode)  # noqa: PTH101 - of what was opened
    finally:
        os.close(here)


def _bind(base: Path, inside: str, target: Path) -> None:
    root = os.open(base, os.O_PATH | os.O_CLOEXEC)
    try:
        fd = beneath.open_beneath(root, inside, os.O_PATH | os.O_NOFOLLOW)
    finally:
        os.close(root)
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISLNK(kind):
            raise OSError(errno.ELOOP, "it was made a link meanwhile", inside)
        mounts.unmount(target)
        target.parent.mkdir(mode=PARENT_MODE, parents=True, exist_ok=True)
        if target.exists() and target.is_dir() != stat.S_ISDIR(kind):
            target.rmdir() if target.is_dir() else target.unlink()
        if stat.S_ISDIR(kind):
            target.mkdir(mode=PARENT_MODE, exist_ok=True)
        else:
            target.touch(mode=0o640)
        syscalls.mount(f"/proc/self/fd/{fd}", target, None, syscalls.MS_BIND | syscalls.MS_REC)
    finally:
        os.close(fd)
