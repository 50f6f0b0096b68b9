"""The image store of the oci engine: which images there are, under which names, and who uses them.

An image is its configuration (whose digest is its id) over a chain of layers. Names point at images; a name
that moves leaves the old image listed without it. Reads are served from memory. A change is one transaction
whose rows are written when every file is in place, so a crash leaves files without rows, never the reverse.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from podwright.config import Config
from podwright.engines.base import Credentials, FilesystemUse, Image, Json, Orphan
from podwright.errors import InvalidArgument, NotFound, PodwrightError
from podwright.images import pull, references
from podwright.images.documents import image_files, read_document
from podwright.images.layers import EMPTY, Layer, Layers, chain_ids, to_its_end
from podwright.images.platform import ARCHITECTURE
from podwright.images.references import LocalSource, Reference
from podwright.state.database import Database

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    manifest BLOB NOT NULL,
    hidden INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS image_references (
    reference TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id)
);
CREATE TABLE IF NOT EXISTS image_uses (
    container_id TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id)
);
"""


@dataclass(slots=True)
class _Entry:
    """One image in memory."""

    image: Image
    chain: tuple[str, ...]
    """Chain ids of its layers, bottom first."""
    hidden: bool = False
    """Removed, but its layers stay for the containers that use it."""
    names: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    """Containers."""


class _Transfer:
    """A pull that several callers may await."""

    def __init__(self, task: asyncio.Task[Image]) -> None:
        self.task = task
        self.waiting = 0


class ImageStore:
    """Implements engines.base.ImageService over `root`, a directory of its own."""

    def __init__(self, root: Path, database: Database, config: Config) -> None:
        self._root = root
        self._database = database
        self._config = config.images
        self._pinned = [_pattern(text) for text in config.images.pinned]
        self._layers = Layers(root, database)
        self._images: dict[str, _Entry] = {}
        self._names: dict[str, str] = {}
        self._users: dict[str, str] = {}
        self._transfers: dict[object, _Transfer] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Read the records and clear away what a crash left. Only one process may have a store open."""
        # Setuid programs lie in there: no user of the host may reach them.
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        strays = self._layers.open()
        self._database.ensure(SCHEMA)
        self._load()
        if strays:
            self._later(self._layers.delete(strays))
        self._later(self._collect())

    def look(self) -> None:
        """Instead of `open`, for who only reads the records, beside the one who has the store open. The
        database may be read-only. Raises PodwrightError where there are no records."""
        self._layers.look()
        self._load(tidy=False)

    async def close(self) -> None:
        """End transfers and wait for removals that are under way."""
        tasks = [transfer.task for transfer in self._transfers.values()]
        for task in tasks:
            task.cancel()
        while waiting := [*tasks, *self._background]:
            await asyncio.wait(waiting)
            tasks.clear()
            self._background = {task for task in self._background if not task.done()}

    # ImageService

    async def list(self) -> Sequence[Image]:
        return [entry.image for entry in self._images.values() if not entry.hidden]

    async def find(self, reference: str) -> Image | None:
        """The image named `reference`: its full id, else a name, else the beginning of its id.

        InvalidArgument for a beginning that several ids have, and for what can be no reference.
        """
        digits = references.image_id_prefix(reference)
        if digits is None:
            return self._named(references.parse(reference))
        if len(digits) == 64:
            entry = self._images.get(f"sha256:{digits}")
            return entry.image if entry and not entry.hidden else None
        # An exact name beats the beginning of an id: "cafe" may be both.
        if not reference.startswith("sha256:") and (named := self._named(references.parse(reference))):
            return named
        prefix = f"sha256:{digits}"
        found = [entry.image for entry in self._visible() if entry.image.id.startswith(prefix)]
        if len(found) > 1:
            raise InvalidArgument(
                "image.image", f"{len(found)} images have ids that begin with {reference!r}"
            )
        return found[0] if found else None

    async def pull(self, reference: str, credentials: Credentials | None = None) -> Image:
        """Fetch `reference`: a name in a registry, or oci:, oci-archive:, docker-archive: or dir: with an
        absolute path. See ImageService for the errors. The last caller who gives up ends the transfer."""
        source = references.parse_local(reference) or references.parse(reference)
        key = (str(source), credentials)
        transfer = self._transfers.get(key)
        if transfer is None:
            transfer = self._transfers[key] = _Transfer(asyncio.create_task(self._pull(source, credentials)))
            transfer.task.add_done_callback(lambda task: self._forget(key, task))
        transfer.waiting += 1
        try:
            return await asyncio.shield(transfer.task)
        finally:
            transfer.waiting -= 1
            if not transfer.waiting and not transfer.task.done():
                self._forget(key, transfer.task)
                transfer.task.cancel()
                await asyncio.wait({transfer.task})

    async def remove(self, reference: str) -> None:
        """Remove the image that `reference` names with all its names; none is fine. Its layers stay as long
        as containers use them."""
        image = await self.find(reference)
        if image is None:
            return
        entry = self._images[image.id]
        with self._database.transaction():
            self._database.execute("DELETE FROM image_references WHERE image_id = ?", (image.id,))
            if entry.users:
                self._database.execute("UPDATE images SET hidden = 1 WHERE id = ?", (image.id,))
            else:
                self._database.execute("DELETE FROM images WHERE id = ?", (image.id,))
        for name in entry.names:
            del self._names[name]
        entry.names.clear()
        entry.hidden = True
        self._describe(entry)
        if not entry.users:
            del self._images[image.id]
            await self._collect()

    async def filesystem_use(self) -> FilesystemUse:
        size, inodes = self._layers.use()
        return FilesystemUse(str(self._root), size, inodes)

    # For the engine

    async def import_root(self, directory: Path, reference: str, *, config: Mapping[str, Json]) -> Image:
        """Make an image of one layer of the root directory `directory` and name it `reference`.

        `config` is the `config` section of the image (Env, Cmd, User, …). The same tree and configuration
        give the same image id. Blocks nothing.
        """
        name = references.parse(reference, "reference")
        if name.digest:
            raise InvalidArgument("reference", f"{reference!r}: an import gets a tag, its digest follows")
        if not directory.is_dir():
            raise NotFound(f"{directory} is no directory")
        async with self._workplace() as work:
            diff_id = await self._layers.pack(directory, work / "layer")
            document = {
                "architecture": ARCHITECTURE,
                "config": dict(config),
                "os": "linux",
                "rootfs": {"diff_ids": [diff_id], "type": "layers"},
            }
            try:
                encoded = msgspec.json.encode(document, order="deterministic")
            except TypeError as error:
                raise InvalidArgument("config", str(error)) from error
            return await self._adopt(encoded, b"", [work / "layer"], [str(name)])

    def lower_dirs(self, image_id: str) -> Sequence[Path]:
        """The layers for an overlay mount, topmost first; at least one. NotFound without the image."""
        layers = [self._layers.get(chain) for chain in reversed(self._entry(image_id).chain)]
        return [self._layers.directory(layer.number if layer else EMPTY) for layer in layers] or [
            self._layers.directory(EMPTY)
        ]

    def held(self, image_id: str) -> Image | None:
        """The image with this full id, also when it was removed and containers still use it."""
        entry = self._images.get(image_id)
        return entry.image if entry else None

    def acquire(self, image_id: str, container_id: str) -> None:
        """Keep the image's layers until `release`, whatever happens to its names. NotFound without it."""
        entry = self._entry(image_id)
        before = self._users.get(container_id)
        if before == image_id:
            return
        if before is not None:
            self.release(container_id)
        self._database.execute("INSERT INTO image_uses VALUES (?, ?)", (container_id, image_id))
        self._users[container_id] = image_id
        entry.users.add(container_id)

    def release(self, container_id: str) -> None:
        """End what `acquire` began for exactly this name; one that holds nothing is fine."""
        image_id = self._users.pop(container_id, None)
        if image_id is None:
            return
        entry = self._images[image_id]
        entry.users.discard(container_id)
        with self._database.transaction():
            self._database.execute("DELETE FROM image_uses WHERE container_id = ?", (container_id,))
            if entry.hidden and not entry.users:
                self._database.execute("DELETE FROM images WHERE id = ?", (image_id,))
                del self._images[image_id]
                self._later(self._collect())

    def release_all(self, container_id: str) -> None:
        """End all uses by a container: what it acquired as itself and as "<its id>#<which>"."""
        for user in [each for each in self._users if each.partition("#")[0] == container_id]:
            self.release(user)

    def orphans(self, containers: set[str]) -> Sequence[Orphan]:
        """Uses by containers that are not in `containers`, and files that belong to no record.

        Who needs several images for one container acquires them as "<container's id>#<which>".
        """
        uses = [
            Orphan("image-use", container, f"keeps the layers of {image}")
            for container, image in self._users.items()
            if container.partition("#")[0] not in containers
        ]
        return uses + [Orphan("image-directory", str(path)) for path in self._layers.strays()]

    async def remove_orphan(self, orphan: Orphan) -> None:
        if orphan.kind == "image-use":
            self.release(orphan.name)
        elif Path(orphan.name) in self._layers.strays():
            await self._layers.delete([Path(orphan.name)])

    # Pulling

    async def _pull(self, source: Reference | LocalSource, credentials: Credentials | None) -> Image:
        async with self._workplace() as work:
            with pull.access(source, self._config, credentials, work) as how:
                if isinstance(source, LocalSource):
                    names = await asyncio.to_thread(pull.names_in, source)
                    named = [references.local_name(source, name) for name in names or [""]]
                    origin, called = str(source), [str(name) for name in named if name]
                else:
                    digest = await pull.served_digest(source, how)
                    origin, called = f"docker://{source.at(digest)}", [source.at(digest)]
                    called += [] if source.digest else [str(source)]
                    known = self._with_digest(digest)
                    # What is served is here already; only a policy that looks at names could still object.
                    if known is not None and pull.accepts_anything(Path(self._config.policy)):
                        return self._record(known.image.id, None, None, known.chain, called)
                await pull.copy(origin, work / "image", how)
            manifest = (work / "image/manifest.json").read_bytes()
            config, blobs = image_files(str(source), manifest, work / "image")
            return await self._adopt(config, manifest, blobs, called)

    async def _adopt(
        self, config: bytes, manifest: bytes, blobs: Sequence[Path], names: Iterable[str]
    ) -> Image:
        """Unpack `blobs`, the layers of the image with this `config` document, and record it."""
        image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        diff_ids = read_document(image_id, config).rootfs.diff_ids
        if len(diff_ids) != len(blobs):
            raise PodwrightError(f"image {image_id} has {len(blobs)} layers, but {len(diff_ids)} diff ids")
        chain = chain_ids(diff_ids)
        with self._layers.hold(chain), self._collecting_on_failure():
            new = [chain_id for chain_id in chain if self._layers.get(chain_id) is None]
            below: list[Layer] = []
            for chain_id, diff_id, blob in zip(chain, diff_ids, blobs, strict=True):
                below.append(await self._layers.ensure(chain_id, below, diff_id, blob))
            if new:
                await self._layers.sync()
            return self._record(image_id, config, manifest, chain, names)

    @contextmanager
    def _collecting_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._later(self._collect())  # it runs when the layers are no longer held
            raise

    def _record(
        self,
        image_id: str,
        config: bytes | None,
        manifest: bytes | None,
        chain: Sequence[str],
        names: Iterable[str],
    ) -> Image:
        """Write the rows of an image whose files are in place; it takes `names` from those that have them."""
        with self._database.transaction():
            if config is None:
                self._database.execute("UPDATE images SET hidden = 0 WHERE id = ?", (image_id,))
            else:
                self._database.execute(
                    "INSERT INTO images VALUES (?, ?, ?, 0, ?) ON CONFLICT (id) DO UPDATE SET hidden = 0",
                    (image_id, config, manifest, time.time_ns()),
                )
            for name in names:
                self._database.execute(
                    "INSERT OR REPLACE INTO image_references VALUES (?, ?)", (name, image_id)
                )
        entry = self._images.get(image_id)
        if entry is None:
            assert config is not None
            entry = self._images[image_id] = self._make_entry(image_id, config, chain)
        entry.hidden = False
        for name in names:
            before = self._images.get(self._names.get(name, ""))
            if before is not None and before is not entry:
                before.names.discard(name)
                self._describe(before)
            self._names[name] = image_id
            entry.names.add(name)
        self._describe(entry)
        return entry.image

    @asynccontextmanager
    async def _workplace(self) -> AsyncIterator[Path]:
        with self._layers.workplace() as work:
            try:
                yield work
            finally:
                await to_its_end(self._layers.delete([work]))

    # Records

    def _load(self, tidy: bool = True) -> None:
        for image_id, config, hidden in self._database.execute(
            "SELECT id, config, hidden FROM images ORDER BY created_at"
        ).fetchall():
            chain = chain_ids(read_document(image_id, config).rootfs.diff_ids)
            if any(self._layers.get(chain_id) is None for chain_id in chain):
                # Its files are gone (someone else removed them): it must be pulled again.
                if not tidy:
                    continue
                with self._database.transaction():
                    for table in ("image_references", "image_uses"):
                        self._database.execute(f"DELETE FROM {table} WHERE image_id = ?", (image_id,))
                    self._database.execute("DELETE FROM images WHERE id = ?", (image_id,))
                continue
            self._images[image_id] = self._make_entry(image_id, config, chain, hidden=bool(hidden))
        for name, image_id in self._database.execute("SELECT reference, image_id FROM image_references"):
            if image_id not in self._images:
                continue
            self._names[name] = image_id
            self._images[image_id].names.add(name)
        for container, image_id in self._database.execute("SELECT container_id, image_id FROM image_uses"):
            if image_id not in self._images:
                continue
            self._users[container] = image_id
            self._images[image_id].users.add(container)
        for entry in self._images.values():
            self._describe(entry)

    def _make_entry(
        self, image_id: str, config: bytes, chain: Sequence[str], *, hidden: bool = False
    ) -> _Entry:
        layers = [self._layers.get(chain_id) for chain_id in chain]
        size = len(config) + sum(layer.bytes for layer in layers if layer)
        section = read_document(image_id, config).config or {}
        return _Entry(Image(image_id, (), (), size, section), tuple(chain), hidden)

    def _describe(self, entry: _Entry) -> None:
        """Make the image anew after its names changed."""
        old = entry.image
        digests = tuple(sorted(name for name in entry.names if "@" in name))
        tags = tuple(sorted(name for name in entry.names if "@" not in name))
        pinned = any(
            fnmatch.fnmatchcase(name, pattern)
            for pattern in self._pinned
            for name in (old.id, *tags, *digests)
        )
        entry.image = Image(old.id, tags, digests, old.size, old.config, pinned)

    def _visible(self) -> Sequence[_Entry]:
        return [entry for entry in self._images.values() if not entry.hidden]

    def _named(self, reference: Reference) -> Image | None:
        image_id = self._names.get(str(reference))
        return self._images[image_id].image if image_id else None

    def _with_digest(self, digest: str) -> _Entry | None:
        """The image that some registry served under this manifest digest."""
        for name, image_id in self._names.items():
            if name.endswith(f"@{digest}"):
                return self._images[image_id]
        return None

    def _entry(self, image_id: str) -> _Entry:
        entry = self._images.get(image_id)
        if entry is None:
            raise NotFound(f"image {image_id} is not in the store")
        return entry

    async def _collect(self) -> None:
        """Remove the layers that no image has."""
        wanted = {chain_id for entry in self._images.values() for chain_id in entry.chain}
        await self._layers.collect(wanted)

    def _forget(self, key: object, task: asyncio.Task[Image]) -> None:
        transfer = self._transfers.get(key)
        if transfer is not None and transfer.task is task:
            del self._transfers[key]

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a removal on its own; `close` waits for it."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("image files remain until the next start or `podwright doctor --fix`: %s", error)


def _pattern(text: str) -> str:
    """A pinned reference in full; one with * is compared with full names as it stands."""
    if "*" in text or references.image_id_prefix(text):
        return text
    return str(references.parse(text, "images.pinned"))
