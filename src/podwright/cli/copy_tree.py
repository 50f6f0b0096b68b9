"""A file or a directory as a tar stream, and back: what cp does on this side. Blocks: for threads.

The other side may be hostile, and may change its files meanwhile. Everything is opened through directories
that are open already, without following a link, and nothing that is there is written through: it is replaced.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from podwright.errors import PodwrightError
from podwright.linux.beneath import open_beneath

COPY_SIZE = 1 << 18

Report = Callable[[str], None]
"""Hears of what is left out."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the files become, and whether their set-user-id bits and their like stay."""

    uid: int
    gid: int
    special_modes: bool = True


def pack(parent: int, name: str, as_name: str, out: BinaryIO, report: Report) -> None:
    """Write what is called `name` in the directory `parent` to `out`, where it is called `as_name`.

    The owners are left out: the files become those of who unpacks them. Links stay links. Devices, sockets
    and pipes are reported and left out.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        seen: dict[tuple[int, int], str] = {}
        pending = [""]
        while pending:
            below = pending.pop()
            path = f"{name}/{below}" if below else name
            fd = open_beneath(parent, path, os.O_PATH | os.O_NOFOLLOW)
            try:
                found = os.fstat(fd)
                member = tarfile.TarInfo(f"{as_name}/{below}" if below else as_name)
                member.mode, member.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
                if stat.S_ISDIR(found.st_mode):
                    member.type = tarfile.DIRTYPE
                    archive.addfile(member)
                    with _opened(fd, os.O_DIRECTORY) as directory:
                        names = sorted(os.listdir(directory), reverse=True)  # noqa: PTH208
                    pending += [f"{below}/{each}" if below else each for each in names]
                elif stat.S_ISLNK(found.st_mode):
                    member.type, member.linkname = tarfile.SYMTYPE, os.readlink("", dir_fd=fd)
                    archive.addfile(member)
                elif not stat.S_ISREG(found.st_mode):
                    report(f"{path} is no file, directory or link: left out")
                elif found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen:
                    member.type, member.linkname = tarfile.LNKTYPE, seen[found.st_dev, found.st_ino]
                    archive.addfile(member)
                else:
                    if found.st_nlink > 1:
                        seen[found.st_dev, found.st_ino] = member.name
                    member.size = found.st_size
                    with _opened(fd, 0) as content, open(content, "rb", closefd=False) as file:
                        archive.addfile(member, file)
            finally:
                os.close(fd)
            _forget(archive)


def unpack(
    source: BinaryIO, parent: int, prefix: str, as_name: str, owner: Owner | None, report: Report
) -> None:
    """Make in the directory `parent` what `source` has under the name `prefix`, and call it `as_name`.

    Files keep their permissions and times. Without `owner` they are the caller's and lose what would lend his
    rights to others (set-user-id). PodwrightError for an archive that is cut short or wants to write anywhere
    else, OSError when something in the way cannot be replaced.
    """
    made = _Made(parent, owner)
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            while (member := archive.next()) is not None:
                path = _renamed(member.name, prefix, as_name)
                if member.isdir():
                    made.directory(path, member)
                elif member.isreg():
                    made.file(path, member, archive)
                elif member.issym():
                    made.link(path, member)
                elif member.islnk():
                    made.hard_link(path, _renamed(member.linkname, prefix, as_name))
                else:
                    report(f"{member.name} is no file, directory or link: left out")
                _forget(archive)
        made.finish()
        while source.read(COPY_SIZE):
            pass  # the padding: who writes it must not find a closed pipe
    except tarfile.TarError as error:
        raise PodwrightError(f"what arrives is no whole tar archive: {error}") from None
    finally:
        made.close()


class _Made:
    """What has been unpacked: one directory is kept open, for most members lie beside the one before."""

    def __init__(self, top: int, owner: Owner | None) -> None:
        self._top = top
        self._owner = owner
        self._directories: list[tuple[str, int, float]] = []
        self._path: str | None = None
        self._fd = -1

    def directory(self, path: str, member: tarfile.TarInfo) -> None:
        if path != ".":
            parent, name = self._parent(path)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                # Like everything else in the way, a link is not followed.
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise NotADirectoryError(20, "is in the way, and no directory", path) from None
            else:
                self._own(name, parent)
        # Its mode may forbid to write into it: last.
        self._directories.append((path, member.mode, member.mtime))

    def file(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        parent, name = self._cleared(path)
        content = archive.extractfile(member)
        assert content is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb", buffering=0) as file:
            while data := content.read(COPY_SIZE):
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) or 0 :]
            self._own(file.fileno())
            os.fchmod(file.fileno(), self._mode(member.mode))
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def link(self, path: str, member: tarfile.TarInfo) -> None:
        parent, name = self._cleared(path)
        os.symlink(member.linkname, name, dir_fd=parent)
        self._own(name, parent)

    def hard_link(self, path: str, target: str) -> None:
        directory, _, base = target.rpartition("/")
        source = open_beneath(self._top, directory or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            parent, name = self._cleared(path)
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def finish(self) -> None:
        """The modes and times of directories, the deepest first."""
        for path, mode, mtime in reversed(self._directories):
            fd = open_beneath(self._top, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fchmod(fd, self._mode(mode))
                os.utime(fd, (mtime, mtime))
            finally:
                os.close(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _parent(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        if directory != self._path or self._fd < 0:
            self.close()
            self._fd = open_beneath(self._top, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
            self._path = directory
        return self._fd, name

    def _cleared(self, path: str) -> tuple[int, str]:
        """The directory and the name of what is to be made, with nothing of that name in it any more."""
        parent, name = self._parent(path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise IsADirectoryError(21, "is in the way, and a directory", path) from None
        return parent, name

    def _own(self, what: str | int, parent: int | None = None) -> None:
        if self._owner is not None:
            os.chown(what, self._owner.uid, self._owner.gid, dir_fd=parent, follow_symlinks=parent is None)

    def _mode(self, mode: int) -> int:
        return mode & (0o7777 if self._owner is not None and self._owner.special_modes else 0o777)


def _forget(archive: tarfile.TarFile) -> None:
    """tarfile keeps every member for those who look one up later."""
    archive.members.clear()  # type: ignore[attr-defined]


def _renamed(name: str, prefix: str, as_name: str) -> str:
    """The path of a member where it is made. PodwrightError for one that was not asked for."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    wanted = [part for part in prefix.split("/") if part not in ("", ".")]
    if ".." in parts or parts[: len(wanted)] != wanted:
        raise PodwrightError(
            f"the archive names {name!r}, which is not below {prefix!r}: nothing more is taken"
        )
    return "/".join([part for part in (as_name, *parts[len(wanted) :]) if part not in ("", ".")]) or "."


@contextmanager
def _opened(path_fd: int, flags: int) -> Iterator[int]:
    """What an O_PATH descriptor stands for, opened to be read: it has been looked at and cannot change."""
    fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)
