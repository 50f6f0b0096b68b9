"""What must hold of a store at rest, looked up on the disk, in the database and in mounts of its images."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from podwright.config import Config, ImageConfig
from podwright.images.store import ImageStore
from podwright.linux import mounts
from podwright.state.database import Database

Tree = Mapping[str, bytes]
"""Files of an image by their paths, with their content."""


def du(directory: Path) -> tuple[int, int]:
    """Bytes on disk and inodes, as du(1) counts them."""
    sizes = []
    for option in ("--block-size=1", "--inodes"):
        done = subprocess.run(
            ["du", "-s", option, str(directory)], check=True, capture_output=True, text=True
        )
        sizes.append(int(done.stdout.split()[0]))
    return sizes[0], sizes[1]


def files_in(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def mounted(store: ImageStore, image_id: str, at: Path) -> dict[str, bytes]:
    """The files of an image as a container would see them."""
    for name in ("upper", "work", "merged"):
        (at / name).mkdir(parents=True, exist_ok=True)
    mounts.overlay(at / "merged", store.lower_dirs(image_id), at / "upper", at / "work")
    try:
        return files_in(at / "merged")
    finally:
        mounts.unmount(at / "merged")


async def examine(root: Path, expected: Mapping[str, Tree], at: Path) -> int:
    """Start a store after whatever happened to it, and compare everything with everything; how many images
    it has. `expected`: the content of each image that may be there, by id. Mounts are made in `at`."""
    database = Database.open(root / "podwright.db")
    store = ImageStore(root / "images", database, Config(images=ImageConfig()))
    try:
        await store.open()
        await store.close()  # the removal of what a crash left has ended
        _compare(root / "images", database, store)
        images = await store.list()
        for image in images:
            assert mounted(store, image.id, at) == expected[image.id], image.id
        use, real = await store.filesystem_use(), du(root / "images")
        assert abs(use.used_bytes - real[0]) <= real[0] / 100, (use, real)
        assert use.inodes_used == real[1], (use, real)
        return len(images)
    finally:
        database.close()


def _compare(home: Path, database: Database, store: ImageStore) -> None:
    rows: Callable[[str], list[tuple[object, ...]]] = lambda sql: database.execute(sql).fetchall()  # noqa: E731
    assert rows("PRAGMA integrity_check") == [("ok",)]
    assert rows("PRAGMA foreign_key_check") == []
    assert list(store.orphans({"container"})) == []
    assert _names(home / "tmp") == _names(home / "blobs/incoming") == set()

    layers = rows("SELECT number, chain_id FROM image_layers")
    assert {str(number) for number, _ in layers} | {"0"} == _names(home / "l")
    chains = " ".join(str(chain) for (chain,) in rows("SELECT chain FROM images")).split()
    assert {chain_id for _, chain_id in layers} == set(chains)

    blobs = {row[0]: row[1] for row in rows("SELECT digest, bytes FROM image_blobs")}
    found = {path.name: path.read_bytes() for path in (home / "blobs/sha256").iterdir()}
    assert {f"sha256:{name}": len(content) for name, content in found.items()} == blobs
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in found.items())
    pending = {digest for (digest,) in rows("SELECT digest FROM image_blobs WHERE pending_since IS NOT NULL")}
    listed = {str(id) for (id,) in rows("SELECT id FROM images WHERE NOT hidden")}
    documents = {digest for (digest,) in rows("SELECT digest FROM image_manifests")}
    assert listed | pending >= {f"sha256:{name}" for name, content in found.items() if b"diff_ids" in content}
    assert documents | pending >= {
        f"sha256:{name}" for name, content in found.items() if b'"layers":' in content
    }


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}
