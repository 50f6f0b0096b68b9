"""Which images a store has: their rows, their names, the manifests they came by, and who uses them.

An image is its configuration (whose digest is its id) over a chain of layers. Names point at images; a name
that moves leaves the old image listed without it. One image may have been served in several ways (compressed
otherwise, through an index or directly): each is a manifest of its own, kept as long as a name needs it.
Reads are served from memory. Files are other rooms' (`layers.py`, `blobs.py`); rows are written when they are
in place.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from podwright.checkpoints import layout
from podwright.engines.base import Image
from podwright.errors import InvalidArgument, NotFound, PodwrightError
from podwright.images import references
from podwright.images.artifacts import is_artifact
from podwright.images.blobs import Blobs
from podwright.images.documents import read_document
from podwright.images.entries import Entry, NewImage, Served, parsed_manifest
from podwright.images.layers import Layers, chain_ids
from podwright.images.pinned import Pinned
from podwright.images.references import Reference
from podwright.state.database import Database

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
CREATE TABLE IF NOT EXISTS image_manifests (
    image_id TEXT NOT NULL REFERENCES images (id),
    served TEXT NOT NULL,
    digest TEXT NOT NULL,
    indexes TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (image_id, served)
);
"""
ADDED = (("images", "chain"), ("image_references", "served"))
"""Columns that came later; images.manifest is of the time before there were blobs."""


class Records:
    def __init__(self, database: Database, layers: Layers, blobs: Blobs, pinned: Pinned) -> None:
        self._database = database
        self._layers = layers
        self._blobs = blobs
        self._pinned = pinned
        self.images: dict[str, Entry] = {}
        self.names: dict[str, str] = {}
        self.users: dict[str, str] = {}

    async def open(self) -> None:
        """Read the rows; forget images whose layers are gone. Layers and blobs are open before."""
        self._database.ensure(SCHEMA)
        for table, column in ADDED:
            if column not in self._columns(table):
                self._database.ensure(f"ALTER TABLE {table} ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
        await self._take_over()
        self._load(tidy=True)

    def look(self) -> None:
        """Instead of `open`, for who only reads. Files of blobs are not looked at."""
        self._load(tidy=False)

    # Reading

    def visible(self) -> Sequence[Entry]:
        return [entry for entry in self.images.values() if not entry.hidden]

    def find(self, reference: str) -> Image | None:
        """The image named `reference`: its full id, else a name, else the beginning of its id.

        InvalidArgument for a beginning that several ids have, and for what can be no reference.
        """
        digits = references.image_id_prefix(reference)
        if digits is None:
            return self._named(references.parse(reference))
        if len(digits) == 64:
            entry = self.images.get(f"sha256:{digits}")
            return entry.image if entry and not entry.hidden else None
        # An exact name beats the beginning of an id: "cafe" may be both.
        if not reference.startswith("sha256:") and (named := self._named(references.parse(reference))):
            return named
        prefix = f"sha256:{digits}"
        found = [entry.image for entry in self.visible() if entry.image.id.startswith(prefix)]
        if len(found) > 1:
            raise InvalidArgument(
                "image.image", f"{len(found)} images have ids that begin with {reference!r}"
            )
        return found[0] if found else None

    def with_digest(self, digest: str) -> Entry | None:
        """The image that some registry served under this digest, of a manifest or an index."""
        for name, image_id in self.names.items():
            if name.endswith(f"@{digest}"):
                return self.images[image_id]
        return None

    def config(self, image_id: str) -> bytes:
        """The document of an image that is here."""
        row = self._database.execute("SELECT config FROM images WHERE id = ?", (image_id,)).fetchone()
        return bytes(row[0])

    def diff_ids(self, image_id: str) -> Sequence[str]:
        """Of its layers, bottom first; of an artifact the one that its files were made."""
        return read_document(image_id, self.config(image_id)).rootfs.diff_ids

    def entry(self, image_id: str) -> Entry:
        """By full id, also when it was removed and is still used. NotFound without it."""
        entry = self.images.get(image_id)
        if entry is None:
            raise NotFound(f"image {image_id} is not in the store")
        return entry

    # Writing

    def record(self, new: NewImage, names: Iterable[str]) -> Image:
        """Write the rows of an image; it takes `names` from those that have them."""
        now = time.time_ns()
        content = parsed_manifest(new.manifest, self._blobs.read(new.manifest))
        served = Served(new.indexes, new.manifest, content)
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO images (id, config, manifest, hidden, created_at, chain) "
                "VALUES (?, ?, x'', 0, ?, ?) ON CONFLICT (id) DO UPDATE SET hidden = 0",
                (new.id, new.config, now, " ".join(new.chain)),
            )
            self._database.execute(
                "INSERT OR REPLACE INTO image_manifests VALUES (?, ?, ?, ?, ?)",
                (new.id, new.served, new.manifest, " ".join(new.indexes), now),
            )
            self._point(new.id, new.served, names)
            self._blobs.settle([*served.documents, *(layer.digest for layer in content.layers)])
        entry = self.images.get(new.id)
        if entry is None:
            entry = self.images[new.id] = self._make_entry(new.id, new.config, new.chain)
        entry.manifests.pop(new.served, None)
        entry.manifests[new.served] = served
        return self._show(entry, new.served, names)

    def name(self, image_id: str, served: str, names: Iterable[str]) -> Image:
        """An image that is here was served again, as `served`: it takes `names`."""
        entry = self.entry(image_id)
        with self._database.transaction():
            self._database.execute("UPDATE images SET hidden = 0 WHERE id = ?", (image_id,))
            self._point(image_id, served, names)
        return self._show(entry, served, names)

    def remove(self, image_id: str) -> bool:
        """Take the image's names and, unless containers use it, its rows. Whether nothing is left of it."""
        entry = self.images[image_id]
        with self._database.transaction():
            self._database.execute("DELETE FROM image_references WHERE image_id = ?", (image_id,))
            if entry.users:
                self._database.execute("UPDATE images SET hidden = 1 WHERE id = ?", (image_id,))
            else:
                self._delete(image_id)
        for name in entry.names:
            del self.names[name]
        entry.names.clear()
        entry.hidden = True
        self._describe(entry)
        if not entry.users:
            del self.images[image_id]
        return not entry.users

    def acquire(self, image_id: str, user: str) -> None:
        """Keep the image's layers until `release`, whatever happens to its names. NotFound without it."""
        entry = self.entry(image_id)
        before = self.users.get(user)
        if before == image_id:
            return
        if before is not None:
            self.release(user)
        self._database.execute("INSERT INTO image_uses VALUES (?, ?)", (user, image_id))
        self.users[user] = image_id
        entry.users.add(user)

    def release(self, user: str) -> bool:
        """End what `acquire` began; one that holds nothing is fine. Whether an image went with it."""
        image_id = self.users.pop(user, None)
        if image_id is None:
            return False
        entry = self.images[image_id]
        entry.users.discard(user)
        last = entry.hidden and not entry.users
        with self._database.transaction():
            self._database.execute("DELETE FROM image_uses WHERE container_id = ?", (user,))
            if last:
                self._delete(image_id)
                del self.images[image_id]
        return last

    def drop_unnamed_manifests(self) -> None:
        """Forget manifests that no name stands for; each image keeps its latest, or it had no export."""
        for image_id, entry in self.images.items():
            wanted = {*entry.names.values(), *list(entry.manifests)[-1:]}
            for served in [each for each in entry.manifests if each not in wanted]:
                self._database.execute(
                    "DELETE FROM image_manifests WHERE image_id = ? AND served = ?", (image_id, served)
                )
                del entry.manifests[served]

    # Rows

    def _point(self, image_id: str, served: str, names: Iterable[str]) -> None:
        for name in names:
            self._database.execute(
                "INSERT OR REPLACE INTO image_references (reference, image_id, served) VALUES (?, ?, ?)",
                (name, image_id, _served(name, served)),
            )

    def _delete(self, image_id: str) -> None:
        for table in ("image_references", "image_uses", "image_manifests"):
            self._database.execute(f"DELETE FROM {table} WHERE image_id = ?", (image_id,))
        self._database.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._database.execute(f"PRAGMA table_info({table})").fetchall()}

    async def _take_over(self) -> None:
        """Of a store from before blobs were kept: its manifests and configurations become blobs."""
        rows = self._database.execute(
            "SELECT id, config, manifest, created_at FROM images WHERE length(manifest) > 0"
        ).fetchall()
        for image_id, config, manifest, created_at in rows:
            await self._blobs.put(config)
            digest = await self._blobs.put(manifest)
            with self._database.transaction():
                self._database.execute(
                    "INSERT OR REPLACE INTO image_manifests VALUES (?, ?, ?, '', ?)",
                    (image_id, digest, digest, created_at),
                )
                self._database.execute("UPDATE images SET manifest = x'' WHERE id = ?", (image_id,))
                self._blobs.settle([image_id, digest])

    def _load(self, tidy: bool) -> None:
        chains = "chain" if "chain" in self._columns("images") else "''"
        for image_id, config, hidden, chain_text in self._database.execute(
            f"SELECT id, config, hidden, {chains} FROM images ORDER BY created_at"
        ).fetchall():
            chain = chain_text.split() or chain_ids(read_document(image_id, config).rootfs.diff_ids)
            if any(self._layers.get(chain_id) is None for chain_id in chain):
                # Its files are gone (someone else removed them): it must be pulled again.
                if tidy:
                    with self._database.transaction():
                        self._delete(image_id)
                continue
            self.images[image_id] = self._make_entry(image_id, config, chain, hidden=bool(hidden))
        if tidy:
            self._load_manifests()
        served = "served" if "served" in self._columns("image_references") else "''"
        for name, image_id, digest in self._database.execute(
            f"SELECT reference, image_id, {served} FROM image_references"
        ):
            if image_id in self.images:
                self.names[name] = image_id
                self.images[image_id].names[name] = digest
        for user, image_id in self._database.execute("SELECT container_id, image_id FROM image_uses"):
            if image_id in self.images:
                self.users[user] = image_id
                self.images[image_id].users.add(user)
        for entry in self.images.values():
            self._describe(entry)

    def _load_manifests(self) -> None:
        rows = self._database.execute(
            "SELECT image_id, served, digest, indexes FROM image_manifests ORDER BY recorded_at"
        ).fetchall()
        for image_id, served, digest, indexes in rows:
            try:
                content = parsed_manifest(digest, self._blobs.read(digest))
                self.images[image_id].manifests[served] = Served(tuple(indexes.split()), digest, content)
            except (OSError, PodwrightError):
                # The image runs without it; only its export needs it.
                self._database.execute(
                    "DELETE FROM image_manifests WHERE image_id = ? AND served = ?", (image_id, served)
                )

    # Memory

    def _show(self, entry: Entry, served: str, names: Iterable[str]) -> Image:
        image_id, entry.hidden = entry.image.id, False
        for name in names:
            before = self.images.get(self.names.get(name, ""))
            if before is not None and before is not entry:
                del before.names[name]
                self._describe(before)
            self.names[name] = image_id
            entry.names[name] = _served(name, served)
        self._describe(entry)
        return entry.image

    def _make_entry(
        self, image_id: str, config: bytes, chain: Sequence[str], *, hidden: bool = False
    ) -> Entry:
        layers = [self._layers.get(chain_id) for chain_id in chain]
        size = len(config) + sum(layer.bytes for layer in layers if layer)
        document, artifact = read_document(image_id, config), is_artifact(image_id, config)
        built = {} if artifact else document.built
        image = Image(image_id, (), (), size, document.config or {}, artifact=artifact, built=built)
        return Entry(image, tuple(chain), hidden)

    def _describe(self, entry: Entry) -> None:
        """Make the image anew after its names changed."""
        old = entry.image
        digests = tuple(sorted(name for name in entry.names if "@" in name))
        tags = tuple(sorted(name for name in entry.names if "@" not in name))
        pinned = self._pinned.matches(old.id, (*tags, *digests))
        checkpoint = layout.marks(
            old.config.get("Labels"), *(each.content.annotations for each in entry.manifests.values())
        )
        entry.image = replace(old, repo_tags=tags, repo_digests=digests, pinned=pinned, checkpoint=checkpoint)

    def _named(self, reference: Reference) -> Image | None:
        image_id = self.names.get(str(reference))
        return self.images[image_id].image if image_id else None


def _served(name: str, served: str) -> str:
    """What `name` stands for: a name with a digest says so itself."""
    return name.partition("@")[2] or served
