"""Writing a checkpoint archive: an uncompressed tar of mode 0600 that is there whole, or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from podwright.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

MODE = 0o600
"""Archives hold the memory of processes."""
CHUNK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)


def location_of(location: str, field: str = "location") -> Path:
    """The file that a request names. InvalidArgument when it can be none."""
    if not location:
        raise InvalidArgument(field, "is required: the absolute path of the archive")
    path = Path(location)
    if not path.is_absolute() or location.endswith("/") or ".." in path.parts or "\0" in location:
        raise InvalidArgument(field, f"{location!r} is not the absolute path of a file")
    return path


def check_place(path: Path, field: str = "location") -> None:
    """InvalidArgument, FailedPrecondition when no file can be made, or replaced, at `path`. Blocks."""
    try:
        kind = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = stat.S_IFREG
    except OSError as error:
        raise InvalidArgument(field, f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(kind):
        raise InvalidArgument(field, f"{path} is there, and no regular file")
    if not path.parent.is_dir():
        raise FailedPrecondition(f"{field}: the directory {path.parent} does not exist")


async def write(location: Path, files: Mapping[str, Path]) -> int:
    """Make the archive at `location` of `files`, by their names in it; how many bytes it has. What was there
    is replaced in one step, at the end.

    A name that ends with "/" is a directory, of which all regular files are taken. Files that grow meanwhile
    are taken as long as they were. Cancelled, or failed, it leaves nothing. ResourceExhausted, OSError.
    """
    cancelled = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(write_at_once, location, files, cancelled))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise


class _Cancelled(Exception):
    """Nobody wants the archive any more."""


def write_at_once(location: Path, files: Mapping[str, Path], cancelled: threading.Event | None = None) -> int:
    """What `write` does, on this thread."""
    cancelled = cancelled or threading.Event()
    try:
        with _draft(location) as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as archive:
                for name, path in _entries(files):
                    _add(archive, name, path, cancelled)
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()
    except OSError as error:
        if error.errno in FULL:
            raise ResourceExhausted(f"{location}: {error.strerror}: the checkpoint does not fit") from error
        raise FailedPrecondition(f"{location}: the checkpoint cannot be written: {error}") from error


@contextmanager
def _draft(location: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `location` when the block has ended well. One without a name, where the
    file system has such: it goes with a process that is killed."""
    draft = location.with_name(f".{location.name[:200]}.{secrets.token_hex(4)}")
    named = False
    try:
        try:
            fd = os.open(location.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, MODE)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            named = True
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(fd, MODE)
            yield stream
            stream.flush()
            if not named:
                _name(fd, draft)
                named = True
        draft.rename(location)
    except BaseException:
        if named:
            draft.unlink(missing_ok=True)
        raise


def _name(fd: int, path: Path) -> None:
    """Give an open file without a name one, as linkat(2) says."""
    # With a directory Python calls linkat, which follows the link of /proc; without one it calls link.
    files = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(fd), path, src_dir_fd=files, follow_symlinks=True)
    finally:
        os.close(files)


def _entries(files: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    # In the order given: who reads an archive finds first what it looks for first.
    for name, path in files.items():
        yield name, path
        if name.endswith("/"):
            for each in sorted(path.iterdir()):
                yield name + each.name, each


def _add(archive: tarfile.TarFile, name: str, path: Path, cancelled: threading.Event) -> None:
    entry = tarfile.TarInfo(name.rstrip("/"))
    status = path.lstat()
    entry.mtime = int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        entry.type, entry.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(entry)
    elif stat.S_ISREG(status.st_mode):
        entry.size, entry.mode = status.st_size, MODE
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as content:
            archive.addfile(entry, _Watched(content, cancelled))


class _Watched:
    """A file whose reading ends when nobody wants it any more."""

    def __init__(self, stream: BinaryIO, cancelled: threading.Event) -> None:
        self._stream = stream
        self._cancelled = cancelled

    def read(self, size: int = -1, /) -> bytes:
        if self._cancelled.is_set():
            raise _Cancelled
        return self._stream.read(size)
