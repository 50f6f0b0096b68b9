"""`podwright image why` and `prune`: exact about what keeps what, and about what goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.errors import InvalidArgument, NotFound, PodwrightError
from podwright.images.layers import chain_ids
from podwright.images.pinned import Pinned
from podwright.images.store import ImageStore
from tests.images.conftest import Registry
from tests.images.layouts import TarMaker, digest, write_layout
from tests.images.stored import du

pytestmark = pytest.mark.root

OpenStore = Callable[..., Awaitable[ImageStore]]

BASE = TarMaker().add("base", b"b" * 50_000).done()


async def two_images(store: ImageStore, tmp_path: Path) -> tuple[str, str]:
    """They share BASE, as a blob and unpacked."""
    ids = []
    for name in ("one", "two"):
        layers = [BASE, TarMaker().add(name, os.urandom(20_000)).done()]
        write_layout(tmp_path / name, layers, pack=None)
        ids.append((await store.pull(f"oci:{tmp_path / name}:v1")).id)
    return ids[0], ids[1]


async def kept_by(store: ImageStore, text: str) -> list[tuple[str, str]]:
    return [(keeper.kind, keeper.name) for keeper in (await store.explain_blob(text)).keepers]


async def test_everything_that_keeps_a_layer_is_told(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store(pinned=["localhost/tw*"])
    one, two = await two_images(store, tmp_path)
    store.acquire(one, "c1")
    store.acquire(one, "c2#0")
    told = await store.explain_blob(digest(BASE))
    assert told.kind == "layer blob, layer"
    assert told.path == str(tmp_path / "images/blobs/sha256" / digest(BASE)[7:])
    assert {(keeper.kind, keeper.name) for keeper in told.keepers} == {
        ("name", "localhost/one:v1"),
        ("container", "c1"),
        ("container", "c2"),
        ("name", "localhost/two:v1"),
        ("pinned", "localhost/tw*"),
    }
    words = {keeper.name: keeper.how for keeper in told.keepers}
    assert words["localhost/two:v1"] == f"blob of layer 1 of 2 of image {two[7:19]}"
    assert words["c2"] == f"mounts it as a volume; layer 1 of 2 of image {one[7:19]}"
    await store.remove(one)
    assert ("name", "localhost/one:v1") not in await kept_by(store, digest(BASE))
    assert ("container", "c1") in await kept_by(store, digest(BASE))
    await store.remove(two)
    assert (await store.explain_blob(digest(BASE))).kind == "layer", "containers need no blobs"
    assert await kept_by(store, digest(BASE)) == [("container", "c1"), ("container", "c2")]
    store.release_all("c1")
    assert await kept_by(store, digest(BASE)) == [("container", "c2")]
    store.release("c2#0")
    await store.close()
    with pytest.raises(NotFound):
        await store.explain_blob(digest(BASE))


async def test_each_kind_of_digest_is_known(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    top = TarMaker().add("top", b"t").done()
    image_id = write_layout(tmp_path / "l", [BASE, top])
    registry.push(tmp_path / "l", "why/app:v1")
    image = await store.pull(f"{registry.address}/why/app:v1", None)
    (served,) = image.repo_digests
    chain = chain_ids([digest(BASE), digest(top)])
    kinds = {}
    for blob in (tmp_path / "images/blobs/sha256").iterdir():
        kinds[blob.name] = (await store.explain_blob(blob.name)).kind
    assert sorted(kinds.values()) == ["image, configuration", "layer blob", "layer blob", "manifest"]
    assert kinds[served.partition("@sha256:")[2]] == "manifest"
    assert kinds[image_id[7:]] == "image, configuration"
    names = [("name", image.repo_tags[0]), ("name", served)]
    for text in (chain[0], chain[1], digest(top)):
        assert (await store.explain_blob(text)).kind == "layer"
        assert await kept_by(store, text) == names
    for text in (image_id, image_id[7:20], f"{registry.address}/why/app:v1", served):
        told = await store.explain_blob(text)
        assert told.digest == image_id
        assert [(keeper.name, keeper.how) for keeper in told.keepers] == [
            (name, "names it") for _, name in names
        ]
    for text in ("f" * 64, "sha256:" + "f" * 64, "absent", "absent@sha256:" + "1" * 64):
        with pytest.raises(NotFound, match="neither a blob, a layer nor an image"):
            await store.explain_blob(text)
    with pytest.raises(InvalidArgument):
        await store.explain_blob("Not A Name")


async def test_a_manifest_is_kept_by_the_names_that_stand_for_it(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    """One image, served in two ways; a tag that moves from one to the other leaves the digest's name."""
    write_layout(tmp_path / "a", [BASE])
    write_layout(tmp_path / "b", [BASE], pack=None, media="application/vnd.oci.image.layer.v1.tar")
    served = []
    for layout in ("a", "b"):
        registry.push(tmp_path / layout, "why/moving:v1")
        image = await store.pull(f"{registry.address}/why/moving:v1", None)
        served.append(next(name for name in image.repo_digests if name not in served))
    assert len(await store.list()) == 1
    first, second = (name.partition("@")[2] for name in served)
    assert await kept_by(store, first) == [("name", served[0])]
    assert await kept_by(store, second) == [
        ("name", f"{registry.address}/why/moving:v1"),
        ("name", served[1]),
    ]


async def test_a_beginning_of_several_digests_is_an_error(store: ImageStore, tmp_path: Path) -> None:
    """Among 4096 beginnings of three digits four hundred layers meet."""
    layers = [TarMaker().add(f"{number}", b"").done() for number in range(400)]
    starts = [digest(layer)[7:10] for layer in layers]
    twice = next(start for start in starts if starts.count(start) > 1)
    chosen = [layer for layer, start in zip(layers, starts, strict=True) if start == twice][:2]
    write_layout(tmp_path / "l", chosen)
    await store.pull(f"oci:{tmp_path / 'l'}:v1")
    with pytest.raises(InvalidArgument, match=f"digests here begin with '{twice}'"):
        await store.explain_blob(twice)
    assert (await store.explain_blob(digest(chosen[0])[:20])).digest == digest(chosen[0])


async def test_what_did_not_end_and_what_is_under_way_is_told(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", [BASE], pack=None, diff_ids=[digest(b"nonsense")])
    with pytest.raises(PodwrightError):
        await store.pull(f"oci:{tmp_path / 'l'}:v1")
    (keeper,) = (await store.explain_blob(digest(BASE))).keepers
    assert keeper.kind == "pending" and "it goes at " in keeper.how
    write_layout(tmp_path / "l", [BASE], pack=None)
    seen: set[str] = set()
    pull = asyncio.create_task(store.pull(f"oci:{tmp_path / 'l'}:v1"))
    while not pull.done():
        seen |= {kind for kind, _ in await kept_by(store, digest(BASE))}
        await asyncio.sleep(0)
    assert {"pending", "pull", "name"} >= seen > {"pending"}
    assert await kept_by(store, digest(BASE)) == [("name", "localhost/l:v1")]


async def test_an_untagged_image_is_listed_told_and_pruned(store: ImageStore, tmp_path: Path) -> None:
    for text in (b"old", b"new"):
        write_layout(tmp_path / "l", [TarMaker().add("text", text).done()])
        image = await store.pull(f"oci:{tmp_path / 'l'}:v1")
    old = next(each for each in await store.list() if each.id != image.id)
    assert old.repo_tags == ()
    (keeper,) = (await store.explain_blob(old.id)).keepers
    assert (keeper.kind, keeper.name) == ("image", old.id) and "without a name" in keeper.how
    answer = await store.prune(dry_run=False, untagged_only=True)
    assert [each.id for each in answer.images] == [old.id]
    assert [each.id for each in await store.list()] == [image.id]


async def test_a_prune_tells_to_the_byte_what_goes(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store(pinned=["localhost/pinned"])
    one, two = await two_images(store, tmp_path)
    write_layout(tmp_path / "pinned", [BASE], tag="latest")
    await store.pull(f"oci:{tmp_path / 'pinned'}:latest")
    write_layout(tmp_path / "bad", [TarMaker().add("bad", b"x").done()], diff_ids=[digest(b"nonsense")])
    with pytest.raises(PodwrightError):
        await store.pull(f"oci:{tmp_path / 'bad'}:v1")
    store.acquire(two, "container")
    before, listed = du(tmp_path / "images"), await store.list()
    would = await store.prune(dry_run=True, untagged_only=False)
    assert await store.list() == listed and du(tmp_path / "images") == before
    assert [(image.id, list(image.names)) for image in would.images] == [(one, ["localhost/one:v1"])]
    assert len(would.blobs) == 3
    assert await store.prune(dry_run=False, untagged_only=False) == would
    after = du(tmp_path / "images")
    assert (before[0] - after[0], before[1] - after[1]) == (would.bytes, would.inodes)
    assert {image.id for image in await store.list()} == {image.id for image in listed} - {one}
    assert (await store.prune(dry_run=False, untagged_only=False)).ByteSize() == 0


async def test_images_that_share_layers_are_counted_once(store: ImageStore, tmp_path: Path) -> None:
    await two_images(store, tmp_path)
    before = du(tmp_path / "images")
    answer = await store.prune(dry_run=False, untagged_only=False)
    after = du(tmp_path / "images")
    assert (before[0] - after[0], before[1] - after[1]) == (answer.bytes, answer.inodes)
    assert sum(image.bytes for image in answer.images) == answer.bytes


async def test_a_prune_leaves_what_a_pull_is_making(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", [BASE, TarMaker().add("big", os.urandom(5_000_000)).done()], pack=None)
    pull = asyncio.create_task(store.pull(f"oci:{tmp_path / 'l'}:v1"))
    while not pull.done():
        await store.prune(dry_run=False, untagged_only=False)
        await asyncio.sleep(0)
    image = await pull
    if await store.find(image.id):
        assert all(path.is_dir() for path in store.lower_dirs(image.id))
        await store.export_image(image.id, f"oci:{tmp_path / 'out'}")


def test_pins_are_references_ids_and_patterns() -> None:
    image_id, name = f"sha256:cafe{'0' * 60}", "docker.io/library/busybox:1"
    for pattern in (
        "busybox:1",
        "docker.io/library/busybox:1",
        "docker.io/library/busy*",
        "*busybox*",
        "cafe",
        "cafe" + "0" * 60,
        image_id,
    ):
        assert Pinned([pattern]).matching(image_id, [name]) == [pattern]
    for pattern in ("busybox", "busybox:*", "afe", "docker.io/library/busybox", "sha256:f00", "[d]ocker*"):
        assert not Pinned([pattern]).matches(image_id, [name]), pattern
    assert Pinned(["cafe"]).matches("sha256:" + "1" * 64, ["docker.io/library/cafe:latest"])
    assert Pinned(["[::1]:5000/*"]).matches(image_id, ["[::1]:5000/x:1"])
    with pytest.raises(InvalidArgument, match=r"^images\.pinned: "):
        Pinned(["No Name"])
