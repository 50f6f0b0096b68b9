"""Images in a real containerd and out of it: archives, what they take, who uses them, what keeps a blob."""

from __future__ import annotations

import asyncio
import gzip
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
from podwright.images.layers import chain_ids
from podwright.wire.containerd import containers_pb2
from tests.containerd.daemon import Daemon
from tests.containerd.image_room import OVERLAY, Room, room_in
from tests.images.layouts import TarMaker, digest, write_layout

pytestmark = pytest.mark.root


@pytest.fixture
async def room(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    async with room_in(daemon, tmp_path) as made:
        yield made


def layer(name: str, size: int = 30_000) -> bytes:
    return TarMaker().add(name, os.urandom(size)).done()


async def test_archives_keep_an_image_what_it_is(room: Room, tmp_path: Path) -> None:
    images = await room.images()
    layers = [layer("a"), layer("b")]
    id = write_layout(tmp_path / "in", layers, config={"User": "7"})
    [image] = await images.import_image(f"oci:{tmp_path}/in:v1", "example.org/of/layout:1", {})
    assert image.id == id and image.repo_tags == ("example.org/of/layout:1",) and image.user == "7"
    manifest = set((await room.records()).values())
    for target in (
        f"oci:{tmp_path}/out:x",
        f"oci-archive:{tmp_path}/o.tar",
        f"docker-archive:{tmp_path}/d.tar",
    ):
        told, size = await images.export_image(id[7:20], target)
        assert told == image and size > 60_000
        await images.remove(id)
        assert await room.content() == {}
        await images.import_image(target, "example.org/of/layout:1", {})
        assert (again := await images.find(id)) is not None
        assert again.repo_tags == image.repo_tags and again.config == image.config
        if not target.startswith("docker-archive"):
            assert again == image and set((await room.records()).values()) == manifest
    with tarfile.open(tmp_path / "d.tar") as tar:
        name = f"{digest(layers[0])[7:]}.tar"
        member = tar.extractfile(name)
        assert member is not None and member.read() == layers[0], "Docker's has its layers uncompressed"
    with pytest.raises(InvalidArgument, match="target"):
        await images.export_image(id, f"{tmp_path}/x")
    with pytest.raises(NotFound):
        await images.export_image("example.org/none:1", f"oci:{tmp_path}/x")
    with pytest.raises(InvalidArgument, match="config"):
        await images.import_image(f"oci:{tmp_path}/in:v1", "example.org/x:1", {"User": "x"})
    assert not list((tmp_path / "root-0/containerd/tmp").iterdir()) and await room.leases() == []


@pytest.mark.parametrize("kind", ["root", "tar"])
async def test_a_root_becomes_an_image(room: Room, tmp_path: Path, kind: str) -> None:
    source, plain = tmp_path / "source", layer("etc/x")
    if kind == "root":
        (source / "etc").mkdir(parents=True)
        (source / "etc/x").write_text("content")
    else:
        source.write_bytes(gzip.compress(plain))
    images = await room.images()
    with pytest.raises(InvalidArgument, match="reference"):
        await images.import_image(str(source), "", {})
    config = {"User": "7", "Cmd": ["/bin/x"]}
    [image] = await images.import_image(str(source), "example.org/root:1", config)
    [again] = await images.import_image(str(source), "example.org/root:1", config)
    assert again == image and image.config == config and image.repo_tags == ("example.org/root:1",)
    await room.collect()
    name = await images.chain(image.id, OVERLAY)
    assert list(await room.snapshots()) == [name] and len(await room.content()) == 3
    assert name == digest(plain) or kind == "root"


async def test_prune_takes_what_nobody_uses(room: Room, tmp_path: Path) -> None:
    images = await room.images(pinned=["example.org/pinned:*"])
    base, ids = layer("base", 200_000), {}
    for name in ("unused", "snapshot", "named", "pinned", "untagged"):
        write_layout(tmp_path / name, [base, layer(name, 100_000)], config={"User": name})
        [image] = await images.import_image(f"oci:{tmp_path}/{name}", f"example.org/{name}:1", {})
        ids[name] = image.id
    await room.forget("example.org/untagged:1")
    await room.prepare("of-a-container", await images.chain(ids["snapshot"], OVERLAY))
    runtime = containers_pb2.Container.Runtime(name="io.containerd.runc.v2")
    record = containers_pb2.Container(id="c", image="example.org/named:1", runtime=runtime)
    record.spec.type_url = "x"
    create = containers_pb2.CreateContainerRequest(container=record)
    await room.api.ask(room.api.containers.Create, create, "container")
    try:
        untagged = await images.prune(dry_run=True, untagged_only=True)
        assert [each.id for each in untagged.images] == [ids["untagged"]]
        would = await images.prune(dry_run=True, untagged_only=False)
        assert len(await images.list()) == 5
        assert {each.id for each in would.images} == {ids["unused"], ids["untagged"]}
        [one] = [each for each in would.images if each.id == ids["unused"]]
        # Its own layer twice, as a blob and unpacked; the base stays for others.
        assert list(one.names) == ["example.org/unused:1"] and 200_000 < one.bytes < 250_000
        assert would.bytes == sum(each.bytes for each in would.images) and would.inodes > 1
        assert await images.prune(dry_run=False, untagged_only=False) == would
        assert {each.id for each in await images.list()} == {ids["snapshot"], ids["named"], ids["pinned"]}
    finally:
        await room.remove_snapshot("of-a-container")
        gone = containers_pb2.DeleteContainerRequest(id="c")
        await room.api.ask(room.api.containers.Delete, gone, "container")
    await images.prune(dry_run=False, untagged_only=False)
    assert [each.id for each in await images.list()] == [ids["pinned"]]


async def test_what_images_take_on_the_disk(room: Room, tmp_path: Path) -> None:
    images = await room.images()
    before = await images.filesystem_use()
    assert before.mountpoint == str(room.daemon.root / "io.containerd.snapshotter.v1.overlayfs")
    assert (before.used_bytes, before.inodes_used) == (0, 0) and Path(before.mountpoint).is_dir()
    base = layer("base", 200_000)
    sizes = []
    for name in ("one", "two"):
        write_layout(tmp_path / name, [base, layer(name, 100_000)])
        await images.pull(f"oci:{tmp_path}/{name}", None)
        sizes.append(await images.filesystem_use())
    assert 300_000 <= sizes[0].used_bytes < 400_000 and sizes[0].inodes_used >= 2
    assert 100_000 <= sizes[1].used_bytes - sizes[0].used_bytes < 150_000, "a layer of both counts once"
    await images.remove((await images.list())[0].id)
    assert 300_000 <= (await images.filesystem_use()).used_bytes < 400_000


async def test_a_snapshotter_that_does_not_say_where_it_is_is_found(room: Room, tmp_path: Path) -> None:
    images = await room.images(snapshotter="native")
    write_layout(tmp_path / "one", [layer("base", 100_000)])
    await images.pull(f"oci:{tmp_path}/one", None)
    use = await images.filesystem_use()
    assert use.mountpoint == str(room.daemon.root / "io.containerd.snapshotter.v1.native")
    assert Path(use.mountpoint).is_dir() and use.used_bytes >= 100_000


async def test_what_a_handlers_own_snapshotter_holds_is_told_after_the_first(
    room: Room, tmp_path: Path
) -> None:
    images = await room.images(handler_snapshotter="native")
    write_layout(tmp_path / "one", [layer("base", 100_000)])
    pulled = await images.pull(f"oci:{tmp_path}/one", None)
    use = await images.filesystem_use()
    assert use.mountpoint.endswith(".overlayfs") and 100_000 <= use.used_bytes < 200_000
    assert [(each.mountpoint, each.used_bytes) for each in use.others] == [
        (str(room.daemon.root / "io.containerd.snapshotter.v1.native"), 0)
    ]
    await images.chain(pulled.id, "native")
    images = await room.images(handler_snapshotter="native")
    (native,) = (await images.filesystem_use()).others
    assert native.used_bytes >= 100_000
    gone = await room.images(handler_snapshotter="not-there")
    assert (await gone.filesystem_use()).others == []


async def test_what_keeps_a_blob_is_told(room: Room, tmp_path: Path) -> None:
    images = await room.images(pinned=["example.org/why:*"])
    layers = [layer("a"), layer("b")]
    id = write_layout(tmp_path / "in", layers)
    await images.import_image(f"oci:{tmp_path}/in:v1", "example.org/why:1", {})
    chain, short = chain_ids([digest(each) for each in layers]), id[7:19]

    async def told(text: str) -> tuple[str, set[tuple[str, str, str]]]:
        answer = await images.explain_blob(text)
        assert answer.bytes > 0 and (not answer.path or Path(answer.path).is_file())
        return answer.kind, {(each.kind, each.name, each.how) for each in answer.keepers}

    kind, keepers = await told("example.org/why:1")
    assert kind == "image, configuration" and await told(id[:30]) == (kind, keepers)
    assert ("name", "example.org/why:1", "names it") in keepers
    assert ("pinned", "example.org/why:*", "keeps it from `podwright image prune`") in keepers
    [manifest] = set((await room.records()).values())
    assert ("blob", manifest, "its label containerd.io/gc.ref.content.config") in keepers
    kind, keepers = await told(digest(gzip.compress(layers[1], mtime=0)))
    assert kind == "layer blob"
    assert ("name", "example.org/why:1", f"blob of layer 2 of 2 of image {short}") in keepers
    await room.prepare("of-a-container", chain[1])
    kind, keepers = await told(chain[1])
    assert kind == "layer" and ("snapshot", "of-a-container", "stands on it (overlayfs)") in keepers
    assert ("name", "example.org/why:1", f"layer 2 of 2 of image {short}") in keepers
    await room.remove_snapshot("of-a-container")
    with pytest.raises(NotFound):
        await images.explain_blob("sha256:" + "0" * 64)
    with pytest.raises(NotFound):
        await images.explain_blob("example.org/none:1")


async def test_the_image_of_pods_is_made_of_catatonit_or_is_the_configured_one(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/catatonit"
    program.parent.mkdir()
    program.write_text("#!/bin/false")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    images = await room.images()
    made = await asyncio.gather(*(images.pause_image() for _ in range(3)))
    [image] = {each.id: each for each in made}.values()
    assert image.pinned and image.config["Entrypoint"] == ["/catatonit", "-P"] and image.user == "65535:65535"
    assert image.repo_tags[0].startswith("localhost/podwright/pause:") and image == await images.pause_image()
    assert not (await images.prune(dry_run=True, untagged_only=False)).images
    program.write_text("#!/bin/true")
    assert (await images.pause_image()).id != image.id, "another program is another image"
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(FailedPrecondition, match=r"catatonit is not installed.*containerd\.sandbox_image"):
        await images.pause_image()
    await images.import_image(str(program.parent), "example.org/pause:1", {})
    configured = await room.images(sandbox_image="example.org/pause:1")
    image = await configured.pause_image()
    assert image.pinned and image.repo_tags == ("example.org/pause:1",)
