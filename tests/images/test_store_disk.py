"""What the store says of its use of the disk is what du(1) says."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.engines.base import FilesystemUse
from podwright.images.store import ImageStore
from tests.images.layouts import TarMaker, write_layout
from tests.images.stored import du

pytestmark = pytest.mark.root

OpenStore = Callable[..., Awaitable[ImageStore]]


def many_kinds(root: Path) -> Path:
    """A root with what is counted wrong most easily."""
    (root / "small").mkdir(parents=True)
    for number in range(700):
        (root / f"small/{number}").write_bytes(b"s" * (number % 300))
    (root / "big").write_bytes(os.urandom(5_000_000))
    for number in range(20):
        (root / f"link{number}").hardlink_to(root / "big")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 25)
        file.seek(1 << 24)
        file.write(b"in the middle" * 1000)
    (root / "pointer").symlink_to("big")
    os.mkfifo(root / "fifo")
    deep = root.joinpath(*(f"d{number}" for number in range(30)))
    deep.mkdir(parents=True)
    os.setxattr(deep, "user.note", b"n" * 2000)
    return root


def check(use: FilesystemUse, images: Path) -> None:
    size, inodes = du(images)
    assert use.mountpoint == str(images)
    assert abs(use.used_bytes - size) <= size / 100, (use, size)
    assert use.inodes_used == inodes


async def test_the_use_is_what_du_counts(open_store: OpenStore, tmp_path: Path) -> None:
    images = tmp_path / "images"
    store = await open_store()
    check(await store.filesystem_use(), images)
    tar = TarMaker()
    for number in range(500):
        tar.add(f"small/{number}", b"x" * number)
    tar.add("large", os.urandom(3_000_000)).link("hard", "large").symlink("soft", "large")
    write_layout(tmp_path / "l", [tar.done(), TarMaker().add(".wh.hard").add("small/new").done()])
    one = await store.pull(f"oci:{tmp_path / 'l'}:v1")
    check(await store.filesystem_use(), images)
    await store.import_root(many_kinds(tmp_path / "root"), "kinds", config={})
    check(await store.filesystem_use(), images)
    store = await open_store()
    check(await store.filesystem_use(), images)
    await store.remove(one.id)
    check(await store.filesystem_use(), images)
    await store.remove("kinds")
    check(await store.filesystem_use(), images)


async def test_asking_walks_nothing(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet asks every ten seconds, of stores with millions of files."""
    await store.import_root(many_kinds(tmp_path / "root"), "kinds", config={})
    await store.close()
    looks: list[object] = []
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "scandir", "listdir"):
            patch.setattr(os, name, _told(getattr(os, name), looks))
        await store.filesystem_use()
    assert 0 < len(looks) < 12, looks


def _told(real: Callable[..., object], looks: list[object]) -> Callable[..., object]:
    def look(*arguments: object, **options: object) -> object:
        looks.append(arguments)
        return real(*arguments, **options)

    return look
