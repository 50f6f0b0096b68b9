"""Images go out to files and come in again: what is exported is what was served; skopeo and umoci read it."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
from podwright.images.store import ImageStore
from tests.images.conftest import Registry
from tests.images.layouts import TarMaker, digest, write_layout
from tests.images.stored import files_in

pytestmark = pytest.mark.root

OpenStore = Callable[..., Awaitable[ImageStore]]

BASE = TarMaker().add("base", b"b" * 100_000).add("gone", b"g").done()
TOP = TarMaker().add("text", b"t" * 50_000).add(".wh.gone").done()


def program(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blobs_of(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}


def zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-q"], input=content, capture_output=True, check=True).stdout


FORMS = [
    (gzip.compress, "application/vnd.oci.image.layer.v1.tar+gzip"),
    (zstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
    (None, "application/vnd.oci.image.layer.v1.tar"),
]


@pytest.mark.parametrize(("pack", "media"), FORMS, ids=["gzip", "zstd", "plain"])
async def test_an_oci_export_is_what_came_byte_for_byte(
    store: ImageStore, tmp_path: Path, pack: Callable[[bytes], bytes] | None, media: str
) -> None:
    image_id = write_layout(tmp_path / "in", [BASE, TOP], pack=pack, media=media, config={"Cmd": ["sh"]})
    await store.pull(f"oci:{tmp_path / 'in'}:v1")
    image, written = await store.export_image("localhost/in:v1", f"oci:{tmp_path / 'out'}")
    assert image.id == image_id
    assert blobs_of(tmp_path / "out") == blobs_of(tmp_path / "in")
    assert written == sum(map(len, blobs_of(tmp_path / "in").values()))
    inspected = json.loads(program("skopeo", "inspect", f"oci:{tmp_path / 'out'}:v1"))
    raw = program("skopeo", "inspect", "--raw", f"oci:{tmp_path / 'in'}:v1")
    assert inspected["Digest"] == digest(raw.encode())
    assert len(inspected["Layers"]) == 2


@pytest.mark.parametrize("scheme", ["oci", "oci-archive", "docker-archive"])
async def test_what_goes_out_comes_in_as_the_same_image(
    store: ImageStore, tmp_path: Path, scheme: str
) -> None:
    config: dict[str, object] = {"Cmd": ["sh"], "User": "1000:1000", "Labels": {"a": "b"}}
    image_id = write_layout(tmp_path / "in", [BASE, TOP, BASE], config=config)
    before = (await store.import_image(f"oci:{tmp_path / 'in'}", "team/app:1", {}))[0]
    target = tmp_path / "out"
    await store.export_image("team/app:1", f"{scheme}:{target}")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    await store.remove(image_id)
    assert await store.list() == []
    (after,) = await store.import_image(str(target), "", {})
    assert after == before
    assert after.repo_tags == ("docker.io/team/app:1",)
    layers = store.lower_dirs(after.id)
    assert len(layers) == 3 and files_in(layers[1]) == {"text": b"t" * 50_000}
    skopeo = json.loads(program("skopeo", "inspect", "--config", f"{scheme}:{target}"))
    assert skopeo["config"] == config


async def test_an_image_that_is_saved_and_loaded_again_can_still_be_exported(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    """Of what the archive holds nothing is taken, for the layers are here; its names move all the same."""
    write_layout(tmp_path / "in", [BASE, TOP])
    registry.push(tmp_path / "in", "team/app:1")
    name = f"{registry.address}/team/app:1"
    image = await store.pull(name, None)
    await store.export_image(name, f"docker-archive:{tmp_path / 'saved.tar'}")
    await store.import_image(f"docker-archive:{tmp_path / 'saved.tar'}", "", {})
    await store.import_image(f"docker-archive:{tmp_path / 'saved.tar'}", "other:1", {})
    (served,) = image.repo_digests
    for reference in (name, "other:1", image.id, served):
        out = tmp_path / reference.replace("/", "-").replace(":", "-")
        await store.export_image(reference, f"oci:{out}:x")
        raw = program("skopeo", "inspect", "--raw", f"oci:{out}:x")
        assert digest(raw.encode()) == served.partition("@")[2], reference


async def test_umoci_unpacks_an_export(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "in", [BASE, TOP])
    await store.pull(f"oci:{tmp_path / 'in'}:v1")
    await store.export_image("localhost/in:v1", f"oci:{tmp_path / 'out'}:other")
    program("umoci", "unpack", "--image", f"{tmp_path / 'out'}:other", str(tmp_path / "bundle"))
    assert files_in(tmp_path / "bundle/rootfs") == {"base": b"b" * 100_000, "text": b"t" * 50_000}


async def test_an_export_of_what_a_registry_served_keeps_its_digest(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    for name, word in (("one", b"1"), ("two", b"2")):
        write_layout(tmp_path / name, [BASE, TarMaker().add("word", word).done()])
        registry.push(tmp_path / name, f"files/{name}:v1")
    for name in ("one", "two"):
        image = await store.pull(f"{registry.address}/files/{name}:v1", None)
        (served,) = image.repo_digests
        target = tmp_path / f"out-{name}"
        for reference in (f"{registry.address}/files/{name}:v1", served, image.id):
            await store.export_image(reference, f"oci:{target}")
        raw = program("skopeo", "inspect", "--raw", f"oci:{target}:v1")
        assert digest(raw.encode()) == served.partition("@")[2]


async def test_a_layout_takes_several_images(store: ImageStore, tmp_path: Path) -> None:
    for name, word in (("one", b"1"), ("two", b"2")):
        write_layout(tmp_path / name, [BASE, TarMaker().add("word", word).done()], pack=None)
        await store.pull(f"oci:{tmp_path / name}:v1")
    out = tmp_path / "out"
    await store.export_image("localhost/one:v1", f"oci:{out}")
    with pytest.raises(InvalidArgument, match=f"{out} has localhost/one:v1 as 'v1'"):
        await store.export_image("localhost/two:v1", f"oci:{out}")
    await store.export_image("localhost/two:v1", f"oci:{out}:two")
    await store.export_image("localhost/two:v1", f"oci:{out}:two")
    assert len(json.loads((out / "index.json").read_bytes())["manifests"]) == 2
    before = await store.list()
    for image in before:
        await store.remove(image.id)
    imported = await store.import_image(str(out), "", {})
    assert {image.id: image.repo_tags for image in imported} == {
        image.id: image.repo_tags for image in before
    }


async def test_a_docker_archive_of_several_images_brings_all(store: ImageStore, tmp_path: Path) -> None:
    archive = tmp_path / "all.tar"
    ids = {}
    for name, word in (("one", b"1"), ("two", b"2")):
        ids[name] = write_layout(tmp_path / name, [BASE, TarMaker().add("word", word).done()], pack=None)
        program(
            "skopeo",
            "copy",
            "-q",
            f"oci:{tmp_path / name}:v1",
            f"docker-archive:{tmp_path / name}.tar:team/{name}:1",
        )
    _merge([tmp_path / "one.tar", tmp_path / "two.tar"], archive)
    imported = await store.import_image(str(archive), "", {})
    assert {image.repo_tags: image.id for image in imported} == {
        ("docker.io/team/one:1",): ids["one"],
        ("docker.io/team/two:1",): ids["two"],
    }
    await store.prune(dry_run=False, untagged_only=False)
    with pytest.raises(InvalidArgument, match="holds 2 images"):
        await store.import_image(str(archive), "x:1", {})
    (image,) = await store.import_image(f"docker-archive:{archive}:team/two:1", "x:1", {})
    assert (image.id, image.repo_tags) == (ids["two"], ("docker.io/library/x:1",))


def _merge(archives: list[Path], target: Path) -> None:
    """One Docker archive of several, as `docker save` writes it."""
    entries, seen = [], set[str]()
    with tarfile.open(target, "w") as out:
        for path in archives:
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if member.name == "manifest.json":
                        assert content is not None
                        entries += json.load(content)
                    elif member.name not in {"repositories", *seen}:
                        out.addfile(member, content)
                        seen.add(member.name)
        text = TarMaker().add("manifest.json", json.dumps(entries).encode()).done()
        (target.parent / "manifest.tar").write_bytes(text)
        with tarfile.open(target.parent / "manifest.tar") as tar:
            (member,) = tar
            out.addfile(member, tar.extractfile(member))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
async def test_a_tar_of_a_root_is_an_image(
    store: ImageStore, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    tar = TarMaker().directory("bin").add("bin/x", b"x" * 10_000).symlink("y", "bin/x").done()
    packed = pack(tar)  # once: gzip writes the time down
    (tmp_path / "root.tar").write_bytes(packed)
    (image,) = await store.import_image(str(tmp_path / "root.tar"), "plain:1", {"Cmd": ["/bin/x"]})
    assert image.repo_tags == ("docker.io/library/plain:1",) and image.config == {"Cmd": ["/bin/x"]}
    (layer,) = store.lower_dirs(image.id)
    assert (layer / "y").read_bytes() == b"x" * 10_000
    await store.export_image("plain:1", f"oci:{tmp_path / 'out'}")
    names = {hashlib.sha256(content).hexdigest() for content in (tar, packed)}
    assert names & blobs_of(tmp_path / "out").keys()
    assert json.loads(program("skopeo", "inspect", "--config", f"oci:{tmp_path / 'out'}:1"))["rootfs"] == {
        "type": "layers",
        "diff_ids": [digest(tar)],
    }


async def test_the_newest_form_of_docker_save_is_read_as_oci(store: ImageStore, tmp_path: Path) -> None:
    """It is an OCI layout with a manifest.json beside it; two images of one tag only that tells apart."""
    write_layout(tmp_path / "in", [BASE])
    await store.pull(f"oci:{tmp_path / 'in'}:v1")
    await store.export_image("localhost/in:v1", f"oci-archive:{tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar", "a") as tar:
        (tmp_path / "manifest.json").write_text("[]")
        tar.add(tmp_path / "manifest.json", "manifest.json")
    (image,) = await store.import_image(str(tmp_path / "out.tar"), "", {})
    assert image.repo_tags == ("localhost/in:v1",)


async def test_an_artifact_is_nothing_for_docker(store: ImageStore, tmp_path: Path) -> None:
    """Its one layer is a file, not a tar: Docker would find an image that it cannot unpack."""
    write_layout(tmp_path / "in", [b"weights"], pack=None, media="application/octet-stream")
    index = json.loads((tmp_path / "in/index.json").read_bytes())
    blobs, (entry,) = tmp_path / "in/blobs/sha256", index["manifests"]
    manifest = json.loads((blobs / entry["digest"][7:]).read_bytes())
    manifest["artifactType"] = "application/vnd.example.model"
    manifest["layers"][0]["annotations"] = {"org.opencontainers.image.title": "model.bin"}
    content = json.dumps(manifest).encode()
    (blobs / digest(content)[7:]).write_bytes(content)
    entry |= {"digest": digest(content), "size": len(content)}
    (tmp_path / "in/index.json").write_text(json.dumps(index))
    image = await store.pull(f"oci:{tmp_path / 'in'}:v1")
    with pytest.raises(FailedPrecondition, match="is no container image"):
        await store.export_image(image.id, f"docker-archive:{tmp_path / 'out.tar'}")
    assert not (tmp_path / "out.tar").exists()


async def test_what_cannot_be_exported_says_why(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store(discard_unpacked_layers=True)
    write_layout(tmp_path / "in", [BASE, TOP])
    image = await store.pull(f"oci:{tmp_path / 'in'}:v1")
    await store.close()
    assert len(list((tmp_path / "images/blobs/sha256").iterdir())) == 2, "the manifest and the configuration"
    with pytest.raises(FailedPrecondition, match=r"images\.discard_unpacked_layers"):
        await store.export_image(image.id, f"oci:{tmp_path / 'out'}")
    store = await open_store()
    with pytest.raises(FailedPrecondition, match="2 of its 2 layers are here unpacked only"):
        await store.export_image(image.id, f"oci:{tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFound, match="absent"):
        await store.export_image("absent", f"oci:{tmp_path / 'out'}")


async def test_nothing_of_others_is_written_over(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "in", [BASE])
    await store.pull(f"oci:{tmp_path / 'in'}:v1")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    for target, words in (
        (f"oci:{tmp_path / 'full'}", "is no OCI layout"),
        (f"oci:{tmp_path / 'file'}", "is no OCI layout"),
        (f"oci-archive:{tmp_path / 'full'}", "is no file"),
        (f"docker-archive:{tmp_path / 'fifo'}", "is no file"),
        (f"docker-archive:{tmp_path / 'absent/x.tar'}", "No such file or directory"),
        (f"dir:{tmp_path / 'new'}", "neither oci:"),
        (str(tmp_path / "new"), "neither oci:"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            await store.export_image("localhost/in:v1", target)
    assert files_in(tmp_path / "full") == {"file": b"mine"}


async def test_a_cancelled_export_leaves_no_half_archive(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "in", [TarMaker().add("big", os.urandom(30_000_000)).done()], pack=None)
    await store.pull(f"oci:{tmp_path / 'in'}:v1")
    for scheme in ("oci-archive", "docker-archive"):
        export = asyncio.create_task(
            store.export_image("localhost/in:v1", f"{scheme}:{tmp_path / 'out.tar'}")
        )
        while not list(tmp_path.glob(".out.tar.*")):
            await asyncio.sleep(0)
            assert not export.done(), "it was too quick to be cancelled"
        export.cancel()
        with pytest.raises(asyncio.CancelledError):
            await export
        assert list(tmp_path.glob("*out.tar*")) == []
    (image,) = await store.list()
    assert [keeper.kind for keeper in (await store.explain_blob(image.id)).keepers] == ["name"]


async def test_an_import_keeps_the_configuration_of_an_image(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "in", [BASE])
    with pytest.raises(InvalidArgument, match="have a configuration already"):
        await store.import_image(str(tmp_path / "in"), "x:1", {"Cmd": ["x"]})


async def test_what_is_no_image_is_refused_by_name(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").write_bytes(b"")
    with tarfile.open(tmp_path / "broken.tar", "w") as tar:
        tar.add(tmp_path / "text", "manifest.json")
    (tmp_path / "half.tar.gz").write_bytes(gzip.compress(BASE)[:-20])
    for name in ("absent", "text", "broken.tar", "half.tar.gz"):
        with pytest.raises(Exception, match=name) as caught:
            await store.import_image(str(tmp_path / name), "x:1", {})
        assert type(caught.value).__module__ == "podwright.errors", caught.value
    await store.close()
    assert await store.list() == []
    assert list((tmp_path / "images/tmp").iterdir()) == []
