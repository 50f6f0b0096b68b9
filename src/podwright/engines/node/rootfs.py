"""A container's root file system: an overlay of the image's layers, and directories for its volumes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from podwright.engines.base import Container
from podwright.engines.node import user_namespaces
from podwright.engines.node.places import Places
from podwright.engines.node.user_namespaces import IdMaps
from podwright.errors import FailedPrecondition
from podwright.linux import mounts
from podwright.spec.inputs import RootfsFiles

MAX_LINKS = 40
"""Symbolic links followed on the way to one path, as many as the kernel does (path_resolution(7))."""
MAX_DATABASE = 1 << 20
"""Bytes read of an image's /etc/passwd or /etc/group."""


def mount(
    places: Places,
    container: Container,
    lower: Sequence[Path],
    ids: IdMaps | None,
    written: tuple[Path, Path] | None = None,
) -> Path:
    """Mount the root of `container` and return where; errors as `overlay`. `written` are the directories for
    what is changed and for the kernel's work on that; None: our own."""
    target = user_namespaces.rootfs(places, container)
    places.container_run(container.id).mkdir(parents=True, exist_ok=True)
    if ids is not None:
        open_way(places.mapped(container.id), ids)
    keep = places.container_root(container.id)
    upper, work = written or (keep / "upper", keep / "work")
    _overlay(lower, upper, work, target, places.mapped_layers(container.id), ids)
    return target


def open_way(directory: Path, ids: IdMaps) -> None:
    """Make a directory that the pod's root can pass through: its runtime goes on as that before it enters the
    rootfs."""
    directory.mkdir(mode=0o710, parents=True, exist_ok=True)
    os.chown(directory, 0, ids.root[1])
    directory.chmod(0o710)


def overlay(lower: Sequence[Path], keep: Path, target: Path, shown: Path, ids: IdMaps | None = None) -> None:
    """Mount the layers `lower`, topmost first, on `target`; what is changed goes below `keep`. In a pod with
    a user namespace the files belong to the ids that are the layers' owners there: `shown` maps them.

    Raises OSError; FailedPrecondition when the file system of the layers cannot be mapped.
    """
    _overlay(lower, keep / "upper", keep / "work", target, shown, ids)


def _overlay(
    lower: Sequence[Path], upper: Path, work: Path, target: Path, shown: Path, ids: IdMaps | None
) -> None:
    for each in (upper, work, target):
        each.mkdir(parents=True, exist_ok=True)
    if ids is None:
        _mount(target, lower, upper, work)
        return
    # The layers as the pod's ids own them are only shown while the overlay is made: it keeps them itself.
    base = Path(os.path.commonpath(lower))
    shown.mkdir(exist_ok=True)
    try:
        try:
            mounts.bind_mapped(base, shown, ids.namespace)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise FailedPrecondition(
                f"the file system of {base} cannot map ids: pods with user namespaces need the images on one"
                f" that can, such as ext4, xfs or btrfs"
            ) from error
        _mount(target, [shown / each.relative_to(base) for each in lower], upper, work)
    finally:
        mounts.unmount(shown)
        shown.rmdir()


def _mount(target: Path, lower: Sequence[Path], upper: Path, work: Path) -> None:
    if len(lower) > 0:
        # The container's / is what its image says, not what we made.
        origin = lower[0].stat()
        upper.chmod(stat.S_IMODE(origin.st_mode))
        os.chown(upper, origin.st_uid, origin.st_gid)
    # Without `volatile` each unmount would sync the whole disk below; what a container wrote is never
    # used again after a crash of the host.
    mounts.overlay(target, lower, upper, work, options="volatile")


def unmount(places: Places, id: str) -> None:
    for each in (places.rootfs(id), places.mapped(id) / "rootfs", places.mapped_layers(id)):
        mounts.unmount(each)


def user_files(root: Path) -> RootfsFiles:
    """The image's own user databases."""
    return RootfsFiles(_text(root, "etc/passwd"), _text(root, "etc/group"))


def inside(root: Path, path: str) -> Path:
    """Where `path` of the image is on the host: its links are followed as if `root` were /.

    Ends where something is missing; the rest is appended as it stands. FailedPrecondition as `followed`.
    """

    def link(parts: Sequence[str]) -> str | None:
        candidate = root.joinpath(*parts)
        return str(candidate.readlink()) if candidate.is_symlink() else None

    return root.joinpath(*followed(path, link))


def followed(path: str, link: Callable[[Sequence[str]], str | None]) -> tuple[str, ...]:
    """The components of `path` with its links followed as if the image were /; `link` tells where the one at
    some components leads, None when there is none. FailedPrecondition for more links than the kernel follows:
    a loop, or links made to multiply."""
    here: list[str] = []
    links = 0
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    while todo:
        part = todo.pop()
        if part == "..":
            del here[-1:]
            continue
        target = link((*here, part))
        if target is not None:
            links += 1
            if links > MAX_LINKS:
                raise FailedPrecondition(f"{path} of the image leads through more than {MAX_LINKS} links")
            if target.startswith("/"):
                here.clear()
            todo.extend(each for each in reversed(target.split("/")) if each not in ("", "."))
            continue
        here.append(part)
    return tuple(here)


def fill_volume(root: Path, path: str, volume: Path, owner: tuple[int, int] = (0, 0)) -> None:
    """Make `volume`, the directory for the image's VOLUME `path`, with what the image has there; an empty one
    that is `owner`'s when it has nothing."""
    source = inside(root, path)
    if not source.is_dir():
        volume.mkdir(parents=True, exist_ok=True)
        os.chown(volume, *owner)
        return
    volume.parent.mkdir(parents=True, exist_ok=True)
    _copy(source, volume)


def _text(root: Path, path: str) -> str | None:
    try:
        fd = os.open(inside(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, FailedPrecondition):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, MAX_DATABASE).decode(errors="surrogateescape")
    finally:
        os.close(fd)


def _copy(source: Path, target: Path) -> None:
    """A copy of directory `source` with owners, modes, times, links, devices and extended attributes."""
    target.mkdir(exist_ok=True)
    links: dict[tuple[int, int], Path] = {}
    pending = [(source, target)]
    made: list[tuple[Path, Path]] = []
    while pending:
        here, there = pending.pop()
        made.append((here, there))
        with os.scandir(here) as entries:
            for entry in entries:
                old, new = here / entry.name, there / entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    new.mkdir()
                    pending.append((old, new))
                    continue
                known = links.setdefault((status.st_dev, status.st_ino), new)
                if known != new:
                    os.link(known, new, follow_symlinks=False)
                    continue
                if stat.S_ISREG(status.st_mode):
                    shutil.copyfile(old, new, follow_symlinks=False)
                elif stat.S_ISLNK(status.st_mode):
                    new.symlink_to(old.readlink())
                else:
                    os.mknod(new, status.st_mode, status.st_rdev)
                made.append((old, new))
    # Directories last and from the bottom: filling one changes its times.
    for old, new in reversed(made):
        status = old.lstat()
        os.chown(new, status.st_uid, status.st_gid, follow_symlinks=False)
        shutil.copystat(old, new, follow_symlinks=False)
