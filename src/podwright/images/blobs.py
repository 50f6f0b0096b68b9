"""The blobs of a store, as registries serve them: manifests, indexes, configurations, compressed layers.

A blob lies in `blobs/sha256/<hex>` and has a row. The file is in place before the row is written, and the row
is gone before the file is: a crash leaves files without rows, which `open` collects. A blob that no image
needs is *pending* from the moment a pull asked for it: after a failure or a crash the next try finds it here.
Nothing is synced for a pending row: what lies here from before the last start is read once against its digest
before anybody uses it. Rows of images are written after everything has been synced (`pulling.py`).

Which blobs images need is not known here (`collection.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

from podwright.errors import NotFound, PodwrightError
from podwright.images.documents import Descriptor
from podwright.linux.waiting import to_the_end
from podwright.state.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS image_blobs (
    digest TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    disk_bytes INTEGER NOT NULL,
    pending_since INTEGER
);
"""
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    bytes: int
    disk_bytes: int
    pending_since: int | None
    """Nanoseconds since the epoch, when a pull last asked for it; None when it was recorded with an image."""


class Blobs:
    def __init__(self, root: Path, database: Database) -> None:
        """`root` is the store's directory."""
        self._top = root / "blobs"
        self._home = self._top / "sha256"
        self._incoming = self._top / "incoming"
        self._database = database
        self._blobs: dict[str, Blob] = {}
        self._unread: set[str] = set()
        """Pending since before the last start, and not compared with their digest since."""
        self._held: Counter[str] = Counter()
        self._busy: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._names = 0

    @property
    def directory(self) -> Path:
        """Laid out as the blobs of an OCI layout: sha256/<hex>."""
        return self._top

    def open(self) -> list[Path]:
        """Read the rows, drop those whose file is gone or has another length; return the strays to
        `delete`."""
        self._database.ensure(SCHEMA)
        for directory in (self._home, self._incoming):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.scandir(self._home) as found:
            there = {f"sha256:{item.name}": item.stat(follow_symlinks=False).st_size for item in found}
        for blob in self._rows():
            if there.get(blob.digest) == blob.bytes:
                self._blobs[blob.digest] = blob
            else:
                self._forget(blob.digest)
        self._unread = {digest for digest, blob in self._blobs.items() if blob.pending_since is not None}
        return self.strays()

    def look(self) -> None:
        """Instead of `open`, for who only reads; an older store has no blobs."""
        if self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'image_blobs'").fetchone():
            self._blobs = {blob.digest: blob for blob in self._rows()}

    def get(self, digest: str) -> Blob | None:
        return self._blobs.get(digest)

    def all(self) -> Sequence[Blob]:
        return list(self._blobs.values())

    def path(self, digest: str) -> Path:
        """Where the blob is or would be. PodwrightError when `digest` is no sha256 digest."""
        algorithm, _, digits = digest.partition(":")
        if algorithm != "sha256" or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise PodwrightError(f"{digest!r} is no digest of sha256: <64 hex digits> are needed")
        return self._home / digits

    def read(self, digest: str) -> bytes:
        """A document's content; for what is small. NotFound when it is not here."""
        if digest not in self._blobs:
            raise NotFound(f"the blob {digest} is not in the store")
        return self.path(digest).read_bytes()

    def held(self, digest: str) -> bool:
        """Whether work under way wants it."""
        return self._held[digest] > 0

    @contextmanager
    def hold(self, digests: Iterable[str]) -> Iterator[None]:
        """While an image is being made of them, these blobs are not collected."""
        digests = list(digests)
        self._held.update(digests)
        try:
            yield
        finally:
            self._held.subtract(digests)
            self._held += Counter()

    async def ensure(self, descriptor: Descriptor, fetch: Callable[[Path], Awaitable[None]]) -> Path:
        """The file of the blob, from `fetch(target)` unless it is here.

        `fetch` writes the new file `target` and has compared it with the digest when it returns; it raises
        otherwise. One fetch for a digest at a time: who comes later waits and finds it, or tries in turn when
        it failed. Hold the digest before, and until its image is recorded. PodwrightError when the length is
        not the descriptor's.
        """
        digest, target = descriptor.digest, self.path(descriptor.digest)
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            if await self._is_whole(digest):
                self._touch(digest)
                return target
            incoming = self._new_name()
            self._busy.add(incoming.name)
            try:
                await fetch(incoming)
                status = incoming.stat()
                if descriptor.size and status.st_size != descriptor.size:
                    raise PodwrightError(
                        f"{digest} has {status.st_size} bytes, its manifest says {descriptor.size}"
                    )
                incoming.rename(target)
                self._add(digest, status)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            finally:
                self._busy.discard(incoming.name)
                incoming.unlink(missing_ok=True)
            return target

    async def put(self, content: bytes) -> str:
        """Keep a document; its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

        async def write(target: Path) -> None:
            target.write_bytes(content)

        await self.ensure(Descriptor(digest, size=len(content)), write)
        return digest

    def settle(self, digests: Iterable[str]) -> None:
        """An image needs them from now on: none is pending any more. Part of the image's transaction."""
        for digest in digests:
            blob = self._blobs.get(digest)
            if blob is not None and blob.pending_since is not None:
                self._database.execute(
                    "UPDATE image_blobs SET pending_since = NULL WHERE digest = ?", (digest,)
                )
                self._blobs[digest] = replace(blob, pending_since=None)

    async def collect(self, wanted: Collection[str], older_than: int) -> Sequence[Blob]:
        """Remove and return every blob that is neither in `wanted` nor held nor pending since
        `older_than` (nanoseconds since the epoch) or later."""
        gone = [
            blob
            for blob in self._blobs.values()
            if blob.digest not in wanted
            and not self._held[blob.digest]
            and (blob.pending_since is None or blob.pending_since < older_than)
        ]
        for blob in gone:
            self._forget(blob.digest)
        await self.delete([self.path(blob.digest) for blob in gone])
        return gone

    def use(self) -> tuple[int, int]:
        """Bytes on disk and inodes: of blobs, of what is being fetched or removed, of the directories."""
        size, inodes = sum(blob.disk_bytes for blob in self._blobs.values()), len(self._blobs)
        paths = [self._top, self._home, self._incoming, *(self._incoming / name for name in self._busy)]
        for path in paths:
            try:
                size += path.lstat().st_blocks * 512
                inodes += 1
            except FileNotFoundError:
                pass
        return size, inodes

    def strays(self) -> list[Path]:
        """Files here that belong to no row and no work under way."""
        known = {self.path(digest).name for digest in self._blobs}
        return [
            *(path for path in self._home.iterdir() if path.name not in known),
            *(path for path in self._incoming.iterdir() if path.name not in self._busy),
        ]

    async def delete(self, paths: Sequence[Path]) -> None:
        """Remove files of `blobs`; one that is not there is fine."""
        moved = []
        for path in paths:
            # At once out of the way of a pull that fetches the same blob again.
            target = self._new_name()
            try:
                path.rename(target)
            except FileNotFoundError:
                continue
            moved.append(target)
        if not moved:
            return
        names = {path.name for path in moved}
        self._busy |= names
        try:
            await to_the_end(asyncio.to_thread(_unlink, moved))
        finally:
            self._busy -= names

    async def _is_whole(self, digest: str) -> bool:
        """Whether the blob is here, with its own content."""
        if digest not in self._blobs:
            return False
        if digest in self._unread:
            if await asyncio.to_thread(_digest_of, self.path(digest)) != digest:
                self._forget(digest)
                await self.delete([self.path(digest)])
                return False
            self._unread.discard(digest)
        return True

    def _touch(self, digest: str) -> None:
        if self._blobs[digest].pending_since is not None:
            now = time.time_ns()
            self._database.execute("UPDATE image_blobs SET pending_since = ? WHERE digest = ?", (now, digest))
            self._blobs[digest] = replace(self._blobs[digest], pending_since=now)

    def _add(self, digest: str, status: os.stat_result) -> None:
        blob = Blob(digest, status.st_size, status.st_blocks * 512, time.time_ns())
        self._database.execute(
            "INSERT OR REPLACE INTO image_blobs VALUES (?, ?, ?, ?)",
            (digest, blob.bytes, blob.disk_bytes, blob.pending_since),
        )
        self._blobs[digest] = blob

    def _forget(self, digest: str) -> None:
        # The row goes first: a file without a row is garbage, a row without a file a lie.
        self._database.execute("DELETE FROM image_blobs WHERE digest = ?", (digest,))
        self._blobs.pop(digest, None)
        self._unread.discard(digest)

    def _rows(self) -> list[Blob]:
        columns = "digest, bytes, disk_bytes, pending_since"
        return [Blob(*row) for row in self._database.execute(f"SELECT {columns} FROM image_blobs").fetchall()]

    def _new_name(self) -> Path:
        self._names += 1
        return self._incoming / f"{os.getpid()}-{self._names}"


def _digest_of(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            found.update(block)
    return f"sha256:{found.hexdigest()}"


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
