"""Images of a real containerd: pulled from a real registry, named in every way, kept, collected, removed."""

from __future__ import annotations

import asyncio
import ctypes
import gzip
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from podwright.engines.base import Credentials
from podwright.engines.containerd.images import Images
from podwright.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    SignatureValidationFailed,
)
from podwright.images.layers import chain_ids
from tests.containerd.daemon import Daemon
from tests.containerd.image_room import NATIVE, OVERLAY, Room, room_in
from tests.images.conftest import Registry, run_registry
from tests.images.layouts import TarMaker, digest, write_layout
from tests.images.test_artifacts import push as push_artifact

pytestmark = pytest.mark.root


@dataclass
class Shelf:
    """A registry whose images "one" and "two" have the layer BASE in common."""

    registry: Registry
    layers: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def name(self, image: str, tag: str = "1") -> str:
        return f"{self.registry.address}/test/{image}:{tag}"

    def layout(self, image: str) -> Path:
        return self.registry.requests.parent.parent / image

    def chain(self, image: str) -> list[str]:
        return chain_ids([digest(self.layers["base"]), digest(self.layers[image])])


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    top = tmp_path_factory.mktemp("shelf")
    with run_registry(top / "registry") as registry:
        made = Shelf(registry)
        for layer in ("base", "one", "two"):
            made.layers[layer] = TarMaker().add(f"of-{layer}", os.urandom(30_000)).done()
        for image in ("one", "two"):
            config: dict[str, object] = {"User": "1000:2000", "Cmd": ["/x"], "StopSignal": "SIGUSR1"}
            layers = [made.layers["base"], made.layers[image]]
            made.ids[image] = write_layout(top / image, layers, config=config)
            for tag in ("1", "2"):
                registry.push(top / image, f"test/{image}:{tag}")
        yield made


@contextmanager
def private(directory: Path) -> Iterator[Registry]:
    """Lets in nobody but reader with the password secret."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    users = directory / "htpasswd"
    # Of the lowest cost that registries take: they compute it at every request.
    users.write_bytes(b"reader:" + crypt(b"secret", b"$2y$05$abcdefghijklmnopqrstuu") + b"\n")
    auth = f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n"
    with run_registry(directory / "private", auth=auth) as registry:
        yield registry


@pytest.fixture
async def room(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    async with room_in(daemon, tmp_path) as made:
        yield made


async def test_a_pulled_image_is_named_as_others_name_it_and_found_every_way(
    room: Room, shelf: Shelf
) -> None:
    images = await room.images(pinned=[f"{shelf.registry.address}/test/two*"])
    pulled = await images.pull(shelf.name("two"), None)
    assert pulled.id == shelf.ids["two"] and pulled.repo_tags == (shelf.name("two"),)
    assert pulled.pinned and pulled.user == "1000:2000" and pulled.stop_signal == "SIGUSR1"
    [by_digest] = pulled.repo_digests
    served = by_digest.partition("@")[2]
    assert await room.records() == dict.fromkeys([shelf.name("two"), by_digest, pulled.id], served)
    hexadecimal = pulled.id.removeprefix("sha256:")
    other = by_digest.replace("@", ":other@")
    for way in (pulled.id, hexadecimal, hexadecimal[:12], by_digest, other, shelf.name("two")):
        assert await images.find(way) == pulled, way
    assert await images.list() == [pulled]
    assert await images.find(shelf.name("none")) is None and await images.find("0" * 64) is None
    with pytest.raises(InvalidArgument):
        await images.find("UPPER/Case:not ok")
    assert await room.leases() == [] and await room.ingests() == {}


async def test_labels_tell_containerd_what_an_image_needs(room: Room, shelf: Shelf) -> None:
    images = await room.images()
    pulled = await images.pull(shelf.name("one"), None)
    content, chain = await room.content(), shelf.chain("one")
    manifest = pulled.repo_digests[0].partition("@")[2]
    needed = {key: value for key, value in content[manifest].items() if "gc.ref.content" in key}
    assert needed["containerd.io/gc.ref.content.config"] == pulled.id
    assert len(content) == 4 and {*needed.values(), manifest} == content.keys()
    assert content[pulled.id]["containerd.io/gc.ref.snapshot.overlayfs"] == chain[-1]
    layers = [content[needed[f"containerd.io/gc.ref.content.l.{at}"]] for at in (0, 1)]
    diff_ids = [each["containerd.io/uncompressed"] for each in layers]
    assert diff_ids == [digest(shelf.layers["base"]), digest(shelf.layers["one"])]
    sources = {each["containerd.io/distribution.source.127.0.0.1"] for each in content.values()}
    assert sources == {"test/one"}
    assert await room.snapshots() == {chain[0]: "", chain[1]: chain[0]}
    sizes = sum(len(gzip.compress(shelf.layers[each], mtime=0)) for each in ("base", "one"))
    assert sizes < pulled.size < sizes + 5000


async def test_what_is_here_is_not_asked_for_again(room: Room, shelf: Shelf) -> None:
    images = await room.images()
    asked = len(shelf.registry.blob_requests())
    first = await asyncio.gather(*(images.pull(shelf.name("one"), None) for _ in range(4)))
    assert len(set(map(str, first))) == 1
    assert len(shelf.registry.blob_requests()) - asked == 3  # two layers and a configuration, once
    await images.pull(shelf.name("one", "2"), None)
    assert len(shelf.registry.blob_requests()) - asked == 3
    await images.pull(shelf.name("two"), None)
    assert len(shelf.registry.blob_requests()) - asked == 5  # and the base is here
    [listed] = [each for each in await images.list() if each.id == first[0].id]
    assert listed.repo_tags == (shelf.name("one", "1"), shelf.name("one", "2"))
    # Another podwright on the same namespace sees the same, and asks no more either.
    others = await room.images()
    assert {each.id for each in await others.list()} == set(shelf.ids.values())
    await others.pull(shelf.name("two"), None)
    assert len(shelf.registry.blob_requests()) - asked == 5


async def test_the_collector_keeps_what_is_named_and_takes_what_was_removed(room: Room, shelf: Shelf) -> None:
    images = await room.images()
    one, two = [await images.pull(shelf.name(each), None) for each in ("one", "two")]
    before = (await room.content(), await room.snapshots())
    await room.collect()
    assert (await room.content(), await room.snapshots()) == before and len(before[0]) == 7
    await images.remove(shelf.name("one"))
    assert await images.list() == [two]
    content, chain = await room.content(), shelf.chain("two")
    assert one.id not in content and len(content) == 4
    assert await room.snapshots() == {chain[0]: "", chain[1]: chain[0]}
    await images.remove(shelf.name("one"))  # fine
    await images.remove(two.id[:19])
    assert await room.content() == {} and await room.snapshots() == {} and await room.records() == {}


async def test_a_container_keeps_the_files_of_an_image_that_was_removed(room: Room, shelf: Shelf) -> None:
    images = await room.images()
    image = await images.pull(shelf.name("one"), None)
    [mount] = await room.prepare("of-a-container", await images.chain(image.id, OVERLAY))
    [lower] = [each for each in mount.options if each.startswith("lowerdir=")]
    top, base = lower.removeprefix("lowerdir=").split(":")
    await images.remove(image.id)
    assert await images.list() == [] and await room.content() == {}
    assert (Path(top) / "of-one").stat().st_size == (Path(base) / "of-base").stat().st_size == 30_000
    with pytest.raises(NotFound):
        await images.chain(image.id, OVERLAY)
    again = await images.pull(shelf.name("one"), None)
    assert again == image and set(shelf.chain("one")) < (await room.snapshots()).keys()
    await images.remove(image.id)
    await room.remove_snapshot("of-a-container")
    await room.collect()
    assert await room.snapshots() == {} and not Path(top).exists()


async def test_an_image_is_unpacked_for_a_second_snapshotter_when_it_is_wanted(
    room: Room, shelf: Shelf
) -> None:
    images = await room.images()
    image = await images.pull(shelf.name("one"), None)
    chain = shelf.chain("one")
    assert await images.chain(image.id, OVERLAY) == chain[-1] and await room.snapshots(NATIVE) == {}
    found = await asyncio.gather(*(images.chain(image.id, NATIVE) for _ in range(3)))
    assert set(found) == {chain[-1]}
    await room.collect()
    assert await room.snapshots(NATIVE) == {chain[0]: "", chain[1]: chain[0]} and await room.leases() == []
    with pytest.raises(FailedPrecondition, match=r"snapshotter nowhere .*overlayfs"):
        await images.chain(image.id, "nowhere")
    with pytest.raises(FailedPrecondition, match=r"containerd\.snapshotter"):
        await room.images(snapshotter="nowhere")
    await images.remove(image.id)
    assert await room.snapshots(NATIVE) == {} == await room.snapshots()


async def test_a_snapshot_that_another_client_removed_is_missed_by_a_look_alone(
    room: Room, shelf: Shelf
) -> None:
    images = await room.images()
    image, top = await images.pull(shelf.name("one"), None), shelf.chain("one")[-1]
    assert await images.chain(image.id, OVERLAY) == top
    await room.remove_snapshot(top)
    assert await images.chain(image.id, OVERLAY, look=False) == top
    assert top not in await room.snapshots()
    assert await images.chain(image.id, OVERLAY) == top
    assert top in await room.snapshots()


async def test_unpacked_layers_are_discarded_where_no_other_snapshotter_needs_them(
    room: Room, shelf: Shelf
) -> None:
    keeping = await room.images(discard_unpacked_layers=True, handler_snapshotter=NATIVE)
    image = await keeping.pull(shelf.name("one"), None)
    await room.collect()
    assert len(await room.content()) == 4
    await keeping.remove(image.id)
    images = await room.images(discard_unpacked_layers=True)
    image = await images.pull(shelf.name("one"), None)
    await room.collect()
    assert len(await room.content()) == 2 and set(await room.snapshots()) == set(shelf.chain("one"))
    asked = len(shelf.registry.blob_requests())
    assert await images.pull(shelf.name("one"), None) == image
    assert len(shelf.registry.blob_requests()) == asked
    with pytest.raises(FailedPrecondition, match=r"layer sha256:.* is not in containerd's content store"):
        await images.chain(image.id, NATIVE)
    with pytest.raises(FailedPrecondition, match="2 of its 4 blobs are not in containerd's content store"):
        await images.export_image(image.id, f"oci:{room.daemon.directory}/none")


async def test_images_of_others_are_listed(room: Room, shelf: Shelf) -> None:
    images = await room.images()
    one = await images.pull(shelf.name("one"), None)
    manifest = one.repo_digests[0].partition("@")[2]
    await room.record("example.org/theirs:1", manifest, {"io.cri-containerd.pinned": "pinned"})
    await room.record("not a name", manifest)
    [seen] = await images.list()
    assert seen.id == one.id and seen.pinned and "example.org/theirs:1" in seen.repo_tags
    assert await images.find("example.org/theirs:1") == seen
    await room.forget("example.org/theirs:1")
    assert [each.pinned for each in await images.list()] == [False]


async def test_a_tag_that_moves_on_leaves_an_image_without_it(room: Room, shelf: Shelf) -> None:
    images = await room.images()
    shelf.registry.push(shelf.layout("one"), "test/moving:1")
    before = await images.pull(shelf.name("moving"), None)
    shelf.registry.push(shelf.layout("two"), "test/moving:1")
    after = await images.pull(shelf.name("moving"), None)
    assert (before.id, after.id) == (shelf.ids["one"], shelf.ids["two"])
    left = await images.find(before.id)
    assert left is not None and left.repo_tags == () and left.repo_digests == before.repo_digests
    for name in left.repo_digests:
        await room.forget(name)
    await room.collect()
    left = await images.find(before.id)
    assert left is not None and left.repo_digests == (), "its id alone keeps it"
    assert set(shelf.chain("one")) < set(await room.snapshots())


async def test_credentials_open_a_private_registry_and_no_other(
    room: Room, shelf: Shelf, tmp_path: Path
) -> None:
    with private(tmp_path) as registry:
        registry.push(shelf.layout("one"), "p:1", "--dest-creds=reader:secret")
        await pulls_with_credentials(await room.images(), f"{registry.address}/p:1", shelf)


async def pulls_with_credentials(images: Images, name: str, shelf: Shelf) -> None:
    for wrong in (None, Credentials("reader", "guess"), Credentials(withheld="example.org")):
        with pytest.raises(PodwrightError, match=r"pull secret.*auth") as caught:
            await images.pull(name, wrong)
        assert "guess" not in str(caught.value)
    assert "the call's are for example.org" in str(caught.value)
    assert (await images.pull(name, Credentials("reader", "secret"))).id == shelf.ids["one"]
    # Known content is not given to who may not have it.
    with pytest.raises(PodwrightError, match="pull secret"):
        await images.pull(name, None)


async def test_errors_say_what_was_wrong_and_leave_no_image(room: Room, shelf: Shelf, tmp_path: Path) -> None:
    images = await room.images()
    with pytest.raises(NotFound, match="manifest unknown"):
        await images.pull(shelf.name("one", "none"), None)
    with pytest.raises(RegistryUnavailable, match=r"^RegistryUnavailable: localhost:1/x:1: .*refused"):
        await images.pull("localhost:1/x:1", None)
    (tmp_path / "policy.json").write_text('{"default": [{"type": "reject"}]}')
    with pytest.raises(SignatureValidationFailed, match="rejected by policy"):
        await (await room.images(policy=str(tmp_path / "policy.json"))).pull(shelf.name("one"), None)
    layer = shelf.layers["one"]
    write_layout(tmp_path / "wrong", [layer], diff_ids=[digest(b"another")])
    with pytest.raises(PodwrightError, match=rf"{digest(layer)} without its compression, its image says"):
        await images.pull(f"oci:{tmp_path}/wrong", None)
    write_layout(tmp_path / "none", [b"no tar at all" * 100])
    with pytest.raises(PodwrightError, match=r"blob sha256:\w+: containerd: unpack"):
        await images.pull(f"oci:{tmp_path}/none", None)
    broken = tmp_path / "broken"
    write_layout(broken, [TarMaker().add("x", os.urandom(3_000_000)).done()])
    [large] = [each for each in (broken / "blobs/sha256").iterdir() if each.stat().st_size > 20_000]
    large.write_bytes(large.read_bytes()[:-1] + b"!")
    with pytest.raises(PodwrightError, match=f"sha256:{large.name}"):
        await images.pull(f"oci:{broken}", None)
    assert await images.list() == [] and await room.snapshots() == {}
    assert f"sha256:{large.name}" not in await room.content() and not await room.ingests()


async def test_of_several_platforms_one_is_taken_or_none(room: Room, shelf: Shelf, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_layout(layout, [shelf.layers["one"]])
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    listed = [
        {**entry, "digest": digest(b"nowhere"), "platform": {"os": "linux", "architecture": "s390x"}},
        {**entry, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    (layout / "blobs/sha256" / digest(index)[7:]).write_bytes(index)
    kind = "application/vnd.oci.image.index.v1+json"
    top = {"mediaType": kind, "digest": digest(index), "size": len(index)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    with pytest.raises(NotFound, match=r"no image for linux/riscv64; there are linux/s390x, linux/amd64"):
        await (await room.images(platform="linux/riscv64")).pull(f"oci:{layout}", None)
    images = await room.images(platform="linux/amd64")
    pulled = await images.pull(f"oci:{layout}", None)
    assert set((await room.records()).values()) == {digest(index)}
    await room.collect()
    content = await room.content()
    assert len(content) == 4 and entry["digest"] in content[digest(index)].values()
    assert await images.list() == [pulled] and pulled.size > len(index) + 30_000
    assert await (await room.images(platform="linux/s390x")).list() == []


async def test_an_artifact_is_an_image_of_its_files(room: Room, shelf: Shelf) -> None:
    served = push_artifact(shelf.registry, "model", [("model.bin", b"weights" * 1000), ("doc/read me", b"x")])
    images = await room.images()
    pulled = await images.pull(f"{shelf.registry.address}/model:v1", None)
    assert pulled.artifact and pulled.id == served and pulled.size > 7000 and pulled.config == {}
    await room.collect()
    assert len(await room.content()) == 4, "its layer is made of its files, and kept as a snapshot alone"
    for snapshotter in (OVERLAY, NATIVE):
        [name] = [await images.chain(pulled.id, snapshotter)]
        assert name in await room.snapshots(snapshotter)
    [mount] = await room.prepare("x", name)
    if mount.type == "overlay":
        [lower] = [each.removeprefix("lowerdir=") for each in mount.options if "lowerdir=" in each]
    assert (Path(lower) / "model.bin").read_bytes() == b"weights" * 1000
    await room.remove_snapshot("x")
    assert (await (await room.images()).list()) == [pulled]
