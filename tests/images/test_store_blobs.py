"""Blobs: fetched once, kept as long as something needs them, pending after what did not end; older stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.errors import NotFound, PodwrightError
from podwright.images.blobs import Blobs
from podwright.images.documents import Descriptor
from podwright.images.store import ImageStore
from podwright.state.database import Database
from tests.images.conftest import Registry
from tests.images.layouts import TarMaker, digest, write_layout

OpenStore = Callable[..., Awaitable[ImageStore]]

BASE = TarMaker().add("base", b"b" * 10_000).done()
CONTENT = b"content of a blob"
DESCRIPTOR = Descriptor(digest(CONTENT), size=len(CONTENT))


class Source:
    """Counts how often it is fetched from."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.fetched = 0

    async def __call__(self, target: Path) -> None:
        self.fetched += 1
        await asyncio.sleep(0)
        target.write_bytes(self.content)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "db")


def opened(tmp_path: Path, database: Database) -> Blobs:
    blobs = Blobs(tmp_path, database)
    blobs.open()
    return blobs


async def test_a_blob_is_fetched_once_whoever_asks(tmp_path: Path, database: Database) -> None:
    blobs, source = opened(tmp_path, database), Source()
    paths = await asyncio.gather(*(blobs.ensure(DESCRIPTOR, source) for _ in range(5)))
    assert source.fetched == 1
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert blobs.read(DESCRIPTOR.digest) == CONTENT
    with pytest.raises(NotFound):
        blobs.read(digest(b"another"))


async def test_who_waited_for_a_fetch_that_failed_tries_in_turn(tmp_path: Path, database: Database) -> None:
    blobs, good = opened(tmp_path, database), Source()

    async def bad(target: Path) -> None:
        target.write_bytes(b"half")
        await asyncio.sleep(0)
        raise PodwrightError("the line is dead")

    results = await asyncio.gather(
        blobs.ensure(DESCRIPTOR, bad), blobs.ensure(DESCRIPTOR, good), return_exceptions=True
    )
    assert isinstance(results[0], PodwrightError) and results[1] == blobs.path(DESCRIPTOR.digest)
    assert good.fetched == 1
    assert list((tmp_path / "blobs/incoming").iterdir()) == []


async def test_a_cancelled_fetch_leaves_nothing(tmp_path: Path, database: Database) -> None:
    blobs, begun = opened(tmp_path, database), asyncio.Event()

    async def endless(target: Path) -> None:
        target.write_bytes(b"half")
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.ensure(DESCRIPTOR, endless))
    await begun.wait()
    assert blobs.strays() == [], "what is being fetched is no stray"
    assert blobs.use()[1] == 4, "and counts"
    task.cancel()
    await asyncio.wait([task])
    assert [path.name for path in (tmp_path / "blobs").rglob("*")] == ["sha256", "incoming"]
    assert blobs.get(DESCRIPTOR.digest) is None


async def test_a_length_that_is_not_the_manifests_is_an_error(tmp_path: Path, database: Database) -> None:
    blobs = opened(tmp_path, database)
    with pytest.raises(PodwrightError, match="has 17 bytes, its manifest says 18"):
        await blobs.ensure(Descriptor(DESCRIPTOR.digest, size=18), Source())
    assert blobs.all() == [] and blobs.strays() == []


async def test_digests_that_are_no_file_names_are_refused(tmp_path: Path, database: Database) -> None:
    blobs = opened(tmp_path, database)
    for text in ("sha256:../../x", "sha512:" + "1" * 128, "sha256:" + "A" * 64, "1" * 64, ""):
        with pytest.raises(PodwrightError, match="is no digest of sha256"):
            await blobs.ensure(Descriptor(text), Source())


async def test_a_blob_of_an_interrupted_pull_is_used_by_the_next(tmp_path: Path, database: Database) -> None:
    await opened(tmp_path, database).ensure(DESCRIPTOR, Source())
    again, source = opened(tmp_path, database), Source()
    before = again.get(DESCRIPTOR.digest)
    assert before is not None and before.pending_since is not None
    await again.ensure(DESCRIPTOR, source)
    after = again.get(DESCRIPTOR.digest)
    assert source.fetched == 0
    assert after is not None and after.pending_since is not None
    assert after.pending_since > before.pending_since, "somebody asked for it"


async def test_what_a_power_failure_spoilt_is_fetched_again(tmp_path: Path, database: Database) -> None:
    """Pending blobs are not synced: their rows may be on the disk without their content."""
    path = await opened(tmp_path, database).ensure(DESCRIPTOR, Source())
    path.write_bytes(b"\0" * len(CONTENT))
    again, source = opened(tmp_path, database), Source()
    await again.ensure(DESCRIPTOR, source)
    await again.ensure(DESCRIPTOR, source)
    assert source.fetched == 1 and path.read_bytes() == CONTENT


async def test_rows_without_files_and_files_without_rows_go(tmp_path: Path, database: Database) -> None:
    blobs = opened(tmp_path, database)
    gone = await blobs.ensure(DESCRIPTOR, Source())
    short = await blobs.ensure(Descriptor(digest(b"other")), Source(b"other"))
    gone.unlink()
    short.write_bytes(b"oth")
    (tmp_path / "blobs/sha256" / ("f" * 64)).write_bytes(b"stray")
    (tmp_path / "blobs/incoming/1-1").write_bytes(b"half")
    again = Blobs(tmp_path, database)
    strays = again.open()
    assert {path.name for path in strays} == {short.name, "f" * 64, "1-1"}
    await again.delete(strays)
    assert again.strays() == [] and again.all() == []
    assert database.execute("SELECT count(*) FROM image_blobs").fetchone() == (0,)


async def test_what_goes_is_what_nobody_needs(tmp_path: Path, database: Database) -> None:
    blobs = opened(tmp_path, database)
    digests = [await blobs.put(name) for name in (b"needed", b"held", b"pending", b"old", b"dropped")]
    needed, held, pending, old, dropped = digests
    blobs.settle([needed, dropped])
    database.execute("UPDATE image_blobs SET pending_since = 5 WHERE digest = ?", (old,))
    blobs = opened(tmp_path, database)
    with blobs.hold([held, old]), blobs.hold([held]):
        gone = await blobs.collect({needed}, older_than=10)
        assert [blob.digest for blob in gone] == [dropped]
    assert [blob.digest for blob in await blobs.collect({needed}, older_than=10)] == [old]
    assert {blob.digest for blob in blobs.all()} == {needed, held, pending}
    assert {f"sha256:{path.name}" for path in (tmp_path / "blobs/sha256").iterdir()} == {
        needed,
        held,
        pending,
    }
    await blobs.collect(set(), older_than=2**62)
    assert blobs.all() == [] and list((tmp_path / "blobs/incoming").iterdir()) == []


@pytest.mark.root
async def test_an_interrupted_pull_resumes_with_the_complete_blobs(
    open_store: OpenStore, registry: Registry, tmp_path: Path
) -> None:
    good, bad = TarMaker().add("good", b"g").done(), TarMaker().add("bad", b"b").done()
    write_layout(tmp_path / "l", [good, bad], diff_ids=[digest(good), digest(b"nonsense")])
    registry.push(tmp_path / "l", "store/half:v1")
    store = await open_store()
    with pytest.raises(PodwrightError):
        await store.pull(f"{registry.address}/store/half:v1", None)
    store = await open_store()
    before = registry.blob_requests()
    with pytest.raises(PodwrightError):
        await store.pull(f"{registry.address}/store/half:v1", None)
    assert registry.blob_requests() == before, "a blob that was complete was fetched again"
    assert len((await store.prune(dry_run=True, untagged_only=False)).blobs) == 4
    store = await open_store(pending_blobs_for=0.0)
    await store.close()
    assert list((tmp_path / "images/blobs/sha256").iterdir()) == []
    assert await store.list() == []


@pytest.mark.root
async def test_pending_blobs_go_while_the_store_is_open(open_store: OpenStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", [BASE], diff_ids=[digest(b"nonsense")])
    store = await open_store(pending_blobs_for=0.1)
    with pytest.raises(PodwrightError):
        await store.pull(f"oci:{tmp_path / 'l'}:v1")
    deadline = time.monotonic() + 60
    # On their way out of the disk they are in the other directory.
    blobs = tmp_path / "images/blobs"
    while list((blobs / "sha256").iterdir()) or list((blobs / "incoming").iterdir()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


OLDER = """
CREATE TABLE images (
    id TEXT PRIMARY KEY, config BLOB NOT NULL, manifest BLOB NOT NULL, hidden INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE TABLE image_references (reference TEXT PRIMARY KEY, image_id TEXT NOT NULL REFERENCES images (id));
CREATE TABLE image_uses (container_id TEXT PRIMARY KEY, image_id TEXT NOT NULL REFERENCES images (id));
"""
"""The schema of the time before blobs were kept."""


@pytest.mark.root
async def test_a_store_from_before_blobs_works_on(store: ImageStore, tmp_path: Path) -> None:
    """Made by putting a store of today back into the form of then."""
    write_layout(tmp_path / "l", [BASE], config={"User": "7"})
    image = await store.pull(f"oci:{tmp_path / 'l'}:v1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_text("imported")
    plain = await store.import_root(tmp_path / "root", "plain:1", config={})
    store.acquire(plain.id, "container")
    manifest = next(
        path.read_bytes()
        for path in (tmp_path / "images/blobs/sha256").iterdir()
        if b'"schemaVersion"' in path.read_bytes() and image.id.encode() in path.read_bytes()
    )
    await store.close()
    old = tmp_path / "old"
    old.mkdir()
    (tmp_path / "images").rename(old / "images")
    for path in (old / "images/blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    await asyncio.to_thread(_as_of_then, tmp_path / "podwright.db", old / "podwright.db", image.id, manifest)

    for _ in range(2):
        database = Database.open(old / "podwright.db")
        again = ImageStore(old / "images", database, Config())
        await again.open()
        assert list(await again.list()) == [image, plain]
        await again.close()
        assert again.orphans({"container"}) == []
        told = await again.explain_blob(digest(manifest))
        assert (told.kind, [keeper.name for keeper in told.keepers]) == ("manifest", ["localhost/l:v1"])
        with pytest.raises(PodwrightError, match="1 of its 1 layers are here unpacked only"):
            await again.export_image("localhost/l:v1", f"oci:{tmp_path / 'out'}")
        with pytest.raises(PodwrightError, match="its manifest is not in the store"):
            await again.export_image("plain:1", f"oci:{tmp_path / 'out'}")
        database.close()
    database = Database.open(old / "podwright.db")
    again = ImageStore(old / "images", database, Config())
    await again.open()
    await again.remove(image.id)
    assert (await again.pull(f"oci:{tmp_path / 'l'}:v1")) == image
    await again.export_image("localhost/l:v1", f"oci:{tmp_path / 'out'}")
    await again.remove("plain:1")
    again.release("container")
    await again.close()
    assert len(list((old / "images/l").iterdir())) == 2
    database.close()


def _as_of_then(now: Path, then: Path, image_id: str, manifest: bytes) -> None:
    database, old = Database.open(now), Database.open(then)
    old.ensure(OLDER)
    old.ensure(
        "CREATE TABLE image_layers (number INTEGER PRIMARY KEY, chain_id TEXT NOT NULL UNIQUE,"
        " bytes INTEGER NOT NULL, inodes INTEGER NOT NULL)"
    )
    for table, columns in (
        ("images", "id, config, manifest, hidden, created_at"),
        ("image_references", "reference, image_id"),
        ("image_uses", "container_id, image_id"),
        ("image_layers", "number, chain_id, bytes, inodes"),
    ):
        for row in database.execute(f"SELECT {columns} FROM {table}").fetchall():
            marks = ", ".join("?" * len(row))
            old.execute(f"INSERT INTO {table} VALUES ({marks})", row)
    old.execute("UPDATE images SET manifest = ? WHERE id = ?", (manifest, image_id))
    database.close()
    old.close()
