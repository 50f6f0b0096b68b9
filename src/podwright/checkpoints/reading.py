"""Reading a checkpoint that somebody else may have made: an archive, or the directory of an image's layer.

Only known names are taken, each a regular file of its own, into a directory that is the caller's alone; links
and devices in their places are refused. All that is read counts towards a limit, taken or not.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from podwright.checkpoints import layout
from podwright.checkpoints.layout import Checkpoint, ConfigDump, SpecDump
from podwright.errors import InvalidArgument, NotFound, PodwrightError, ResourceExhausted
from podwright.images.unpacking import archive as tar
from podwright.images.unpacking.faults import BadLayer, TooLarge, shown
from podwright.images.unpacking.limits import Limits
from podwright.linux.beneath import open_beneath
from podwright.linux.waiting import to_the_end

FIELD = "config.image.image"
CHUNK = 1 << 20
DOCUMENT = 16 << 20
"""Bytes of a JSON file that is read into memory."""
ENTRIES = 100_000
"""CRIU makes a few images a process."""
DOCUMENTS = (layout.CONFIG, layout.SPEC)
FILES = (layout.LOG, layout.DIFF, layout.DELETED)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

Copy = Callable[[int], None]
"""Writes a member to a descriptor."""
Known = Callable[[bytes], str | None]
"""The name of an entry if it is one that counts."""


async def look(source: str, path: Path, image: str = "") -> Checkpoint:
    """What the checkpoint at `path` is of; `source` is its name for messages.

    NotFound when nothing is there, InvalidArgument when it is no checkpoint.
    """
    return await to_the_end(asyncio.to_thread(look_at_once, source, path, image))


def look_at_once(source: str, path: Path, image: str = "") -> Checkpoint:
    """What `look` does, on this thread."""
    found = _documents(source, path, DOCUMENTS)
    for name in DOCUMENTS:
        if name not in found:
            raise InvalidArgument(FIELD, f"{source} is no checkpoint: it has no {name}")
    config = layout.read(source, layout.CONFIG, found[layout.CONFIG], ConfigDump)
    return Checkpoint(source, config, layout.read(source, layout.SPEC, found[layout.SPEC], SpecDump), image)


async def extract(source: str, path: Path, target: Path) -> None:
    """Copy what a restore needs from the checkpoint at `path` to the empty directory `target`: CRIU's images
    to its directory "checkpoint", and the files of `FILES` that there are.

    InvalidArgument when it is no checkpoint, ResourceExhausted when it does not fit.
    """
    await to_the_end(asyncio.to_thread(extract_at_once, source, path, target))


async def diff_id(source: str, diff: Path) -> str:
    """The digest of a rootfs-diff.tar without its compression, which unpacking it needs."""
    return await to_the_end(asyncio.to_thread(_diff_id, source, diff))


def _documents(source: str, path: Path, names: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with errors(source), members(path) as each:
        for name, size, copy in each:
            if name in names:
                found[name] = in_memory(copy, size)
                if len(found) == len(names):
                    break
    return found


def extract_at_once(source: str, path: Path, target: Path) -> None:
    """What `extract` does, on this thread."""
    images = target / layout.IMAGES
    images.mkdir(mode=0o700)
    with errors(source), members(path) as each:
        for name, _, copy in each:
            head, _, last = name.rpartition("/")
            place = images / last if head == layout.IMAGES else target / name if name in FILES else None
            if place is None:
                continue
            try:
                fd = os.open(place, NEW_FILE, 0o600)
            except FileExistsError:
                raise BadLayer(f"{name} is in it twice") from None
            try:
                copy(fd)
            finally:
                os.close(fd)
    if not (images / layout.INVENTORY).exists():
        raise InvalidArgument(
            FIELD, f"{source} is no whole checkpoint: it has no {layout.IMAGES}/{layout.INVENTORY}"
        )


def _diff_id(source: str, diff: Path) -> str:
    digest = hashlib.sha256()
    with errors(source), diff.open("rb", buffering=0) as stream:
        next_block = _Blocks(stream.fileno(), _limits(diff)).next
        while block := next_block():
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def errors(source: str, field: str = FIELD) -> Iterator[None]:
    """What is wrong with a checkpoint called `source`, in a request's `field`, in the house's errors."""
    front = f"{field}: " if field else ""
    try:
        yield
    except (BadLayer, ValueError, OverflowError) as error:
        raise InvalidArgument(field, f"{source}: {error}") from error
    except TooLarge as error:
        raise ResourceExhausted(f"{front}{source}: {error}") from error
    except FileNotFoundError as error:
        raise NotFound(f"{front}there is no checkpoint {source}") from error
    except OSError as error:
        kind = ResourceExhausted if error.errno in (errno.ENOSPC, errno.EDQUOT) else PodwrightError
        raise kind(f"{front}{source}: {error}") from error


@contextmanager
def members(path: Path, known: Known | None = None) -> Iterator[Iterator[tuple[str, int, Copy]]]:
    """Name, size and content of each regular file whose name counts (`known`: those of a container's
    checkpoint), one after the other. Raises what `errors` makes errors of the house."""
    # A FIFO must not hold us up.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            yield _of_directory(fd)
        elif stat.S_ISREG(kind):
            archive = tar.Archive(_Blocks(fd, _limits(path)).next, _limits(path))
            yield _of_archive(archive, known or _known)
        else:
            raise BadLayer("this is neither a file nor a directory")
    finally:
        os.close(fd)


def _of_archive(archive: tar.Archive, known: Known) -> Iterator[tuple[str, int, Copy]]:
    while (entry := archive.next()) is not None:
        name = known(entry.name)
        if name is None or entry.kind == tar.DIRECTORY:
            continue
        if entry.kind != tar.FILE or entry.pieces is not None:
            raise BadLayer(f"entry {shown(entry.name)} is no plain file")
        size = entry.size
        yield name, size, lambda fd, size=size: archive.copy(fd, size)  # type: ignore[misc]


def _of_directory(top: int) -> Iterator[tuple[str, int, Copy]]:
    names = [each for each in (*DOCUMENTS, *FILES) if _is_there(top, each)]
    try:
        images = open_beneath(top, layout.IMAGES, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    else:
        try:
            names += [f"{layout.IMAGES}/{each}" for each in sorted(os.listdir(images))]  # noqa: PTH208
        finally:
            os.close(images)
    for name in names:
        try:
            fd = open_beneath(top, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise BadLayer(f"{name}: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise BadLayer(f"{name} is no plain file")
            yield name, status.st_size, lambda target, fd=fd: _pour(fd, target)  # type: ignore[misc]
        finally:
            os.close(fd)


def _is_there(top: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def plain(raw: bytes) -> str:
    """An entry's name without "./" in front."""
    name = os.fsdecode(raw)
    while name.startswith("./"):
        name = name[2:]
    return name


def _known(raw: bytes) -> str | None:
    name = plain(raw)
    if name in DOCUMENTS or name in FILES:
        return name
    head, slash, last = name.partition("/")
    if head != layout.IMAGES or not slash or not last:
        return None
    if "/" in last or last in (".", ".."):
        raise BadLayer(f"entry {shown(raw)}: CRIU has no directories in its images")
    return name


def _limits(path: Path) -> Limits:
    disk = os.statvfs(path)
    # What is unpacked goes to another disk, perhaps; that one says itself when it is full.
    size = max(disk.f_blocks * disk.f_frsize, path.stat().st_size)
    return Limits(size, f"it unpacks to more than {size} bytes", ENTRIES, f"more than {ENTRIES} entries", 512)


class _Blocks:
    """A file's bytes without its compression."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self._fd = fd
        self._limits = limits
        self._left = limits.bytes
        self._inflate = None
        self._rest = b""
        head = os.pread(fd, 4, 0)
        if head == _ZSTD:
            raise BadLayer("it is compressed with zstd: decompress it first (zstd -d)")
        if head[:2] == _GZIP:
            self._inflate = zlib.decompressobj(31)

    def next(self) -> bytes:
        block = os.read(self._fd, CHUNK) if self._inflate is None else self._inflated()
        self._left -= len(block)
        if self._left < 0:
            raise TooLarge(self._limits.bytes_words)
        return block

    def _inflated(self) -> bytes:
        assert self._inflate is not None
        while True:
            data = self._rest or os.read(self._fd, CHUNK)
            if not data:
                if not self._inflate.eof:
                    raise BadLayer("its compressed data ends too early")
                return b""
            if self._inflate.eof:
                # Several members follow each other, or zeros.
                if not data.strip(b"\0"):
                    self._rest = b""
                    continue
                self._inflate = zlib.decompressobj(31)
            try:
                block = self._inflate.decompress(data, CHUNK)
            except zlib.error as error:
                raise BadLayer(f"its compressed data is damaged: {error}") from error
            self._rest = self._inflate.unused_data or self._inflate.unconsumed_tail
            if block:
                return block


def in_memory(copy: Copy, size: int) -> bytes:
    """What a member holds. BadLayer when that is more than any document has."""
    if size > DOCUMENT:
        raise BadLayer(f"a document has {size} bytes, {DOCUMENT} are allowed")
    fd = os.memfd_create("document", os.MFD_CLOEXEC)
    try:
        copy(fd)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _pour(source: int, target: int) -> None:
    while data := os.read(source, CHUNK):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(target, rest) :]
