"""The unpacked layers of a store: one directory each, named by a short number, shared by all images.

A layer is known by its chain id (image-spec, config.md): the digests of everything from the bottom up to
it, for what it unpacks to may depend on the layers below. It is unpacked once, under `tmp`, and renamed into
place before its row is written; a directory without a row is what a crash left, and `open` collects it.
Directories have short names because an overlay mount must name all of them within one page.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from podwright.config import ImageConfig
from podwright.errors import FailedPrecondition, PodwrightError, ResourceExhausted
from podwright.images import pack, unpack
from podwright.linux import spawn
from podwright.state.database import Database
from podwright.steps import step

SCHEMA = """
CREATE TABLE IF NOT EXISTS image_layers (
    number INTEGER PRIMARY KEY,
    chain_id TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    inodes INTEGER NOT NULL
);
"""
UNPACKERS = 2
"""Layers unpacked at the same time; each keeps one processor busy."""
EMPTY = 0
"""The number of the directory that stands for an image without layers."""
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}

_DEFAULT = ImageConfig()


@dataclass(frozen=True, slots=True)
class Layer:
    number: int
    chain_id: str
    bytes: int
    """On disk."""
    inodes: int


class Layers:
    def __init__(self, root: Path, database: Database, config: ImageConfig = _DEFAULT) -> None:
        self._limits = (str(config.max_layer_bytes), str(config.max_layer_entries))
        self._home = root / "l"
        self._scratch = root / "tmp"
        self._database = database
        self._layers: dict[str, Layer] = {}
        self._held: Counter[str] = Counter()
        self._leaving: list[Layer] = []
        self._busy: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unpackers = asyncio.Semaphore(UNPACKERS)
        self._names = 0
        self._number = EMPTY

    def open(self) -> list[Path]:
        """Read the rows, drop those whose directory is gone, return the leftovers to `delete`."""
        self._database.ensure(SCHEMA)
        for directory in (self._home, self._scratch, self.directory(EMPTY)):
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        there = {name for name in os.listdir(self._home) if name != str(EMPTY)}  # noqa: PTH208
        rows = self._database.execute("SELECT number, chain_id, bytes, inodes FROM image_layers").fetchall()
        for row in rows:
            layer = Layer(*row)
            if str(layer.number) in there:
                self._layers[layer.chain_id] = layer
            else:
                self._database.execute("DELETE FROM image_layers WHERE number = ?", (layer.number,))
        self._number = max((int(name) for name in there if name.isdecimal()), default=EMPTY)
        return self.strays()

    def look(self) -> None:
        """Instead of `open`, for who only reads: nothing is made, and no row is dropped."""
        rows = self._database.execute("SELECT number, chain_id, bytes, inodes FROM image_layers").fetchall()
        self._layers = {layer.chain_id: layer for layer in (Layer(*row) for row in rows)}

    def get(self, chain_id: str) -> Layer | None:
        return self._layers.get(chain_id)

    def directory(self, number: int) -> Path:
        return self._home / str(number)

    def held(self, chain_id: str) -> bool:
        """Whether work under way wants it."""
        return self._held[chain_id] > 0

    def use(self) -> tuple[int, int]:
        """Bytes and inodes of all layers, also of those that are being removed, and of the directories that
        they are in. What is being unpacked counts when it is a layer."""
        layers = [*self._layers.values(), *self._leaving]
        size, inodes = sum(layer.bytes for layer in layers), sum(layer.inodes for layer in layers)
        for directory in (self._home, self._scratch, self.directory(EMPTY)):
            size, inodes = size + directory.lstat().st_blocks * 512, inodes + 1
        return size, inodes

    @contextmanager
    def hold(self, chain_ids: Sequence[str]) -> Iterator[None]:
        """While an image is being made of them, these layers are not collected."""
        self._held.update(chain_ids)
        try:
            yield
        finally:
            self._held.subtract(chain_ids)
            self._held += Counter()

    async def ensure(self, chain_id: str, below: Sequence[Layer], diff_id: str, blob: Path) -> Layer:
        """The layer `chain_id`, unpacked from the file `blob` over the layers `below` (bottom first) unless
        it is there.

        ResourceExhausted when it is larger than the limits or the disk, FailedPrecondition when zstd is
        needed and missing, PodwrightError when it is no layer or not `diff_id`; nothing is left then.
        """
        lock = self._locks.setdefault(chain_id, asyncio.Lock())
        async with lock:
            known = self._layers.get(chain_id)
            if known is not None:
                return known
            async with self._unpackers:
                return await self._unpack(chain_id, below, diff_id, blob)

    async def unpack_changes(self, image_chain: Sequence[str], diff_id: str, file: Path, work: Path) -> Path:
        """Unpack the layer `file` of digest `diff_id` over an image's layers (bottom first) into a directory
        of `work`, as it can be the upper directory of an overlay. Errors as `ensure`."""
        (target := work / "layer").mkdir(mode=0o755)
        below = [layer for each in image_chain if (layer := self._layers.get(each)) is not None]
        lowers = [str(self.directory(layer.number)) for layer in reversed(below)]
        async with self._unpackers:
            await self._run(work, lowers, diff_id, file)
        (work / "place").rmdir()
        return target

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A new private directory under `tmp`, on the same file system. `delete` it afterwards."""
        self._names += 1
        path = self._scratch / f"{os.getpid()}-{self._names}"
        path.mkdir(mode=0o700)
        self._busy.add(path.name)
        try:
            yield path
        finally:
            self._busy.discard(path.name)

    @asynccontextmanager
    async def cleared_workplace(self) -> AsyncIterator[Path]:
        """A `workplace` that is gone at the end."""
        with self.workplace() as work:
            try:
                yield work
            finally:
                await to_its_end(self.delete([work]))

    async def collect(self, wanted: Collection[str]) -> None:
        """Remove every layer that is neither in `wanted` nor held."""
        gone = [
            layer for chain, layer in self._layers.items() if chain not in wanted and not self._held[chain]
        ]
        paths = []
        for layer in gone:
            # The row goes first: a directory without a row is garbage, a row without a directory a lie.
            self._database.execute("DELETE FROM image_layers WHERE number = ?", (layer.number,))
            del self._layers[layer.chain_id]
            paths.append(self.directory(layer.number))
        self._leaving += gone
        try:
            await self.delete(paths)
        finally:
            self._leaving = [layer for layer in self._leaving if layer not in gone]

    def strays(self) -> list[Path]:
        """What lies in the store's directories and belongs to no row and no work under way."""
        numbers = {str(layer.number) for layer in self._layers.values()} | {str(EMPTY)}
        return [
            *(path for path in self._home.iterdir() if path.name not in numbers),
            *(path for path in self._scratch.iterdir() if path.name not in self._busy),
        ]

    async def delete(self, paths: Sequence[Path]) -> None:
        """Remove directories of the store; one that is not there is fine."""
        if not paths:
            return
        moved = []
        for path in paths:
            if path.parent == self._home:
                # Out of sight at once, so that its number is free and a crash leaves a stray only.
                self._names += 1
                target = self._scratch / f"gone-{os.getpid()}-{self._names}"
                try:
                    path = path.rename(target)
                except FileNotFoundError:
                    continue
            moved.append(path)
        # Not shutil: a hostile layer may nest deeper than Python's stack.
        self._busy.update(path.name for path in moved)
        try:
            await spawn.check(["rm", "-rf", "--one-file-system", "--", *map(str, moved)], env=ENVIRONMENT)
        finally:
            self._busy.difference_update(path.name for path in moved)

    async def sync(self) -> None:
        """Bring all files to the disk: the row of an image that outlives a power failure must be true."""
        await spawn.check(["sync", "-f", str(self._home)], env=ENVIRONMENT)

    async def _unpack(self, chain_id: str, below: Sequence[Layer], diff_id: str, blob: Path) -> Layer:
        with self.workplace() as work:
            try:
                target = work / "layer"
                target.mkdir(mode=0o755)
                lowers = [str(self.directory(layer.number)) for layer in reversed(below)]
                with step("unpack layer", diff_id):
                    size, inodes = await self._run(work, lowers, diff_id, blob)
                self._number += 1
                layer = Layer(self._number, chain_id, size, inodes)
                target.rename(self.directory(layer.number))
                self._database.execute(
                    "INSERT INTO image_layers VALUES (?, ?, ?, ?)", (layer.number, chain_id, size, inodes)
                )
                # Known as soon as it is recorded: a pull cancelled during the cleaning below must find it.
                self._layers[chain_id] = layer
            finally:
                if not _is_gone(work):
                    await to_its_end(self.delete([work]))
        return layer

    async def _run(self, work: Path, lowers: list[str], diff_id: str, blob: Path) -> tuple[int, int]:
        place = work / "place"
        place.mkdir(mode=0o700)
        with blob.open("rb", buffering=0) as file:
            fd = file.fileno()
            job = [
                str(os.getpid()),
                str(fd),
                diff_id,
                *self._limits,
                str(place),
                str(work / "layer"),
                *lowers,
            ]
            done = await spawn.run(_program(unpack.__file__, *job), env=ENVIRONMENT, pass_fds=[fd])
        kind, _, words = done.stdout.decode(errors="replace").partition(" ")
        if kind == "ok":
            size, inodes = map(int, words.split())
            return size, inodes
        if not words:  # its interpreter failed, or somebody killed it
            words = done.stderr.decode(errors="replace").strip() or f"it ended with status {done.status}"
        raise _FAULTS.get(kind, PodwrightError)(f"cannot unpack the layer {diff_id}: {words}")


_FAULTS: dict[str, type[PodwrightError]] = {
    "large": ResourceExhausted,
    "full": ResourceExhausted,
    "missing": FailedPrecondition,
}


async def pack_root(directory: Path, target: Path) -> str:
    """Make an uncompressed layer `target` of the root directory `directory`; return its diff id."""
    with step("pack layer"):
        done = await spawn.run(
            _program(pack.__file__, str(directory.absolute()), str(target)), env=ENVIRONMENT
        )
    if done.status != 0:
        raise PodwrightError(f"cannot make a layer of {directory}: {done.stderr.decode().strip()}")
    return done.stdout.decode().strip()


async def pack_changes(upper: Path, target: Path) -> None:
    """Make an uncompressed layer `target` of what an overlay has in its upper directory. PodwrightError
    when that cannot be put into a layer."""
    done = await spawn.run(
        _program(pack.__file__, str(upper.absolute()), str(target), "changes"), env=ENVIRONMENT
    )
    if done.status != 0:
        raise PodwrightError(f"cannot make a layer of {upper}: {done.stderr.decode().strip()}")


async def to_its_end(cleaning: Coroutine[Any, Any, None]) -> None:
    """Await `cleaning`; a cancellation meanwhile takes effect when it has ended, not before."""
    task = asyncio.ensure_future(cleaning)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain id of every layer, bottom first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(diff_id)
        else:
            chain.append(f"sha256:{hashlib.sha256(f'{chain[-1]} {diff_id}'.encode()).hexdigest()}")
    return chain


def _program(file: str, *arguments: str) -> list[str]:
    # Isolated and without site-packages: it needs the standard library only, and starts in half the time.
    return [sys.executable, "-I", "-S", "-B", "-X", "utf8", file, *arguments]


def _is_gone(work: Path) -> bool:
    """Whether nothing was left in a workplace, which saves a program that removes it."""
    try:
        (work / "place").rmdir()
        work.rmdir()
    except OSError:
        return False
    return True
