"""Images where they are: what is served is taken byte for byte, and what is broken is refused with words."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.errors import NotFound, PodwrightError, RegistryUnavailable, Unimplemented
from podwright.images.documents import Descriptor
from podwright.images.references import parse, parse_local
from podwright.images.remote import Remote, Resolved, opened
from tests.images.layouts import TarMaker, digest, write_layout
from tests.images.scripted import INDEX, MANIFEST, Asked, Reply, Scripted, error_reply, scripted

pytestmark = pytest.mark.root

SECRET = "X-Signature=c2VjcmV0"


@pytest.fixture
async def registry() -> AsyncIterator[Scripted]:
    async with scripted() as started:
        yield started


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    layers = [TarMaker().add(f"f{n}", os.urandom(200_000)).done() for n in range(3)]
    write_layout(tmp_path / "layout", layers)
    return tmp_path / "layout"


def skopeos() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "skopeo":
                status = (entry / "status").read_text()
                if f"\nPPid:\t{os.getpid()}\n" in status:
                    found.add(int(entry.name))
        except OSError:
            pass
    return found


async def resolved(name: str, scratch: Path, **config: str) -> Resolved:
    scratch.mkdir()
    async with opened(parse_local(name) or parse(name), ImageConfig(**config), None, scratch) as remote:  # type: ignore[arg-type]
        return await remote.resolve()


async def taken(name: str, scratch: Path) -> tuple[Resolved, dict[str, bytes]]:
    """The image, and all its blobs, fetched side by side."""
    scratch.mkdir()
    source = parse_local(name) or parse(name)
    async with opened(source, ImageConfig(), None, scratch) as remote:
        found = await remote.resolve()
        blobs = {each.digest: each for each in (found.document.config, *found.document.layers)}
        targets = {name: scratch / name.replace(":", "-") for name in blobs}
        await asyncio.gather(*(remote.fetch(each, targets[each.digest]) for each in blobs.values()))
    assert not skopeos()
    content = {name: target.read_bytes() for name, target in targets.items()}
    for target in targets.values():
        target.unlink()
    assert list(scratch.iterdir()) == []
    return found, content


async def test_all_blobs_come_as_they_are(registry: Scripted, layout: Path, tmp_path: Path) -> None:
    manifest = registry.add(layout, "a")
    found, blobs = await taken(f"{registry.address}/a:v1", tmp_path / "s")
    assert found.manifest == manifest and found.digest == found.manifest_digest == digest(manifest)
    assert found.kind == "image" and not found.indexes
    assert blobs == {name: registry.blobs[name] for name in blobs} and len(blobs) == 4


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir"])
async def test_local_sources_give_their_blobs_too(layout: Path, tmp_path: Path, transport: str) -> None:
    place = f"{transport}:{tmp_path}/local"
    name = {"oci": ":v1", "oci-archive": ":v1", "docker-archive": ":registry.example/a:v1", "dir": ""}[
        transport
    ]
    command = ["skopeo", "copy", "-q", f"oci:{layout}:v1", f"{place}{name}"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221
    found, blobs = await taken(place, tmp_path / "s")
    assert found.names == {"dir": (), "docker-archive": ("registry.example/a:v1",)}.get(transport, ("v1",))
    config = json.loads(blobs[found.document.config.digest])
    assert len(config["rootfs"]["diff_ids"]) == len(found.document.layers) == 3
    original = {f"sha256:{file.name}" for file in (layout / "blobs/sha256").iterdir()}
    if transport != "docker-archive":
        assert {found.manifest_digest, *blobs} == original
    else:
        assert [each.digest for each in found.document.layers] == config["rootfs"]["diff_ids"]


async def test_one_of_several_images_in_an_archive_must_be_named(layout: Path, tmp_path: Path) -> None:
    write_layout(layout, [TarMaker().add("other").done()], tag="v2")
    index = json.loads((layout / "index.json").read_bytes())
    first = dict(index["manifests"][0], annotations={"org.opencontainers.image.ref.name": "v1"})
    index["manifests"].insert(0, first)
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(NotFound, match=r"2 images in it, name one after a colon: v1, v2"):
        await resolved(f"oci:{layout}", tmp_path / "a")
    with pytest.raises(NotFound, match="no image in it is called v3"):
        await resolved(f"oci:{layout}:v3", tmp_path / "b")
    assert (await resolved(f"oci:{layout}:v2", tmp_path / "c")).names == ("v2",)


# Several platforms, and what is no image


def index_of(registry: Scripted, repository: str, *entries: tuple[str, bytes]) -> bytes:
    listed = []
    for text, content in entries:
        os_, architecture, *variant = text.split("/")
        registry.serve(repository, f"of-{digest(content)[7:20]}", content)
        platform = {"os": os_, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        listed.append(
            {"mediaType": MANIFEST, "digest": digest(content), "size": len(content), "platform": platform}
        )
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    registry.serve(repository, "v1", content, INDEX)
    return content


def manifest_with(registry: Scripted, note: str) -> bytes:
    config = json.dumps({"os": "linux", "note": note, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    registry.blobs[digest(config)] = config
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config)}
    described["digest"] = digest(config)
    tree = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    return json.dumps(tree).encode()


async def test_the_configured_platform_is_taken_of_several(registry: Scripted, tmp_path: Path) -> None:
    v6, v8, s390x = (manifest_with(registry, name) for name in ("v6", "v8", "s390x"))
    index = index_of(registry, "a", ("linux/arm/v6", v6), ("linux/arm64", v8), ("linux/s390x", s390x))
    for platform, content in (("linux/arm/v7", v6), ("linux/arm64/v8", v8), ("linux/s390x", s390x)):
        scratch = tmp_path / platform.replace("/", "-")
        found = await resolved(f"{registry.address}/a:v1", scratch, platform=platform)
        assert found.manifest == content
        assert (found.digest, found.indexes) == (digest(index), (index,))
    with pytest.raises(
        NotFound, match=r"no image for linux/riscv64; there are linux/arm/v6, linux/arm64, lin"
    ):
        await resolved(f"{registry.address}/a:v1", tmp_path / "no", platform="linux/riscv64")


async def test_an_index_within_an_index_is_followed_once(registry: Scripted, tmp_path: Path) -> None:
    inner = manifest_with(registry, "inner")
    middle = index_of(registry, "a", ("linux/arm64", inner))
    names = [middle]
    for _ in range(2):
        listed = {"mediaType": INDEX, "digest": digest(names[-1]), "size": len(names[-1])}
        listed |= {"platform": {"os": "linux", "architecture": "arm64"}}
        names.append(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}).encode())
        registry.serve("a", f"deep{len(names)}", names[-1], INDEX)
    found = await resolved(f"{registry.address}/a:deep2", tmp_path / "s", platform="linux/arm64")
    assert found.manifest == inner and found.indexes == (names[1], middle)
    with pytest.raises(PodwrightError, match="more than 2 indexes"):
        await resolved(f"{registry.address}/a:deep3", tmp_path / "t", platform="linux/arm64")


async def test_an_artifact_is_resolved_and_its_files_come(registry: Scripted, tmp_path: Path) -> None:
    registry.blobs |= {digest(b"{}"): b"{}", digest(b"weights"): b"weights"}
    tree = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.model",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/octet-stream", "digest": digest(b"weights"), "size": 7}],
    }
    registry.serve("model", "v1", json.dumps(tree).encode())
    found, blobs = await taken(f"{registry.address}/model:v1", tmp_path / "s")
    assert found.kind == "artifact" and blobs[digest(b"weights")] == b"weights"


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, PodwrightError, "schema 1"),
        ({"schemaVersion": 2, "manifests": [], "layers": []}, PodwrightError, "both an index and"),
        (
            {"schemaVersion": 2, "mediaType": INDEX, "config": {}, "layers": []},
            PodwrightError,
            "which it is not",
        ),
        ({"schemaVersion": 2, "layers": 5}, PodwrightError, "none of an OCI or Docker"),
        (
            {
                "schemaVersion": 2,
                "config": {"digest": digest(b"{}"), "size": 2},
                "layers": [{"mediaType": "a/b.tar+encrypted", "digest": digest(b"x"), "size": 1}],
            },
            Unimplemented,
            "layers are encrypted",
        ),
        (
            {"schemaVersion": 2, "config": {"digest": "md5:../../x", "size": 2}, "layers": []},
            PodwrightError,
            "where a sha256 digest is needed",
        ),
    ],
)
async def test_what_is_no_image_is_refused_with_words(
    registry: Scripted, tmp_path: Path, content: object, error: type[PodwrightError], words: str
) -> None:
    registry.serve("a", "v1", json.dumps(content).encode())
    with pytest.raises(error, match=words):
        await resolved(f"{registry.address}/a:v1", tmp_path / "s")


async def test_a_manifest_that_is_not_what_its_digest_says_is_refused(
    registry: Scripted, tmp_path: Path
) -> None:
    real, false = manifest_with(registry, "real"), manifest_with(registry, "false")
    index_of(registry, "a", ("linux/s390x", real))
    registry.manifests[f"a@{digest(real)}"] = MANIFEST, false
    for name in (f"a@{digest(real)}", "a:v1"):
        with pytest.raises(PodwrightError, match=digest(false)):
            await resolved(
                f"{registry.address}/{name}", tmp_path / name.replace(":", "-"), platform="linux/s390x"
            )


# Broken blobs


async def broken(registry: Scripted, layout: Path, scratch: Path) -> tuple[PodwrightError, Descriptor]:
    """The error that the first layer's fetch ends in; its other two come all the same."""
    scratch.mkdir()
    async with opened(parse(f"{registry.address}/a:v1"), ImageConfig(), None, scratch) as remote:
        first, *others = (await remote.resolve()).document.layers
        works = [remote.fetch(each, scratch / each.digest[-9:]) for each in (first, *others)]
        failed, *rest = await asyncio.gather(*works, return_exceptions=True)
    assert rest == [None, None]
    assert isinstance(failed, PodwrightError)
    assert not (scratch / first.digest[-9:]).exists()
    return failed, first


def first_layer(registry: Scripted, layout: Path) -> tuple[str, bytes]:
    name = json.loads(registry.add(layout, "a"))["layers"][0]["digest"]
    return f"/blobs/{name}", registry.blobs[name]


async def test_half_a_blob_is_seen_although_the_pipe_stays_open(
    registry: Scripted, layout: Path, tmp_path: Path
) -> None:
    place, content = first_layer(registry, layout)
    registry.on(place, Reply(200, content[:100_000], length=len(content)))
    error, _ = await broken(registry, layout, tmp_path / "s")
    assert isinstance(error, RegistryUnavailable) and "unexpected EOF" in str(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-1], "expected 200[0-9]* bytes in blob, got|corrupted blob"),
        (lambda content: content + b"x" * 3_000_000, "broken pipe|bytes in blob|corrupted"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "corrupted blob"),
    ],
)
async def test_a_blob_that_is_another_is_refused(
    registry: Scripted, layout: Path, tmp_path: Path, change: object, words: str
) -> None:
    place, content = first_layer(registry, layout)
    registry.on(place, Reply(200, change(content)))  # type: ignore[operator]
    error, first = await broken(registry, layout, tmp_path / "s")
    assert first.digest in str(error)
    with pytest.raises(PodwrightError, match=words):
        raise error


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_blob_that_is_unavailable(
    registry: Scripted, layout: Path, tmp_path: Path, status: int
) -> None:
    registry.on(first_layer(registry, layout)[0], Reply(status))
    error, _ = await broken(registry, layout, tmp_path / "s")
    assert str(error).startswith("RegistryUnavailable: ") and str(status) in str(error)


async def test_too_many_requests_is_unavailable(registry: Scripted, layout: Path, tmp_path: Path) -> None:
    registry.on(first_layer(registry, layout)[0], Reply(429, headers={"Retry-After": "0"}))
    error, _ = await broken(registry, layout, tmp_path / "s")
    assert isinstance(error, RegistryUnavailable) and "too many requests" in str(error)


async def test_no_signed_address_is_in_an_error(registry: Scripted, layout: Path, tmp_path: Path) -> None:
    place, _ = first_layer(registry, layout)
    async with scripted() as storage:
        storage.on("/stored", Reply(503))
        away = f"http://{storage.address}/stored?{SECRET}"
        registry.on(place, Reply(307, headers={"Location": away}))
        error, _ = await broken(registry, layout, tmp_path / "s")
        assert storage.targets(SECRET)
    assert "503" in str(error) and "c2Vj" not in str(error)
    # The storage has gone now: the error that Go makes of that has the whole address.
    error, _ = await broken(registry, layout, tmp_path / "t")
    assert isinstance(error, RegistryUnavailable)
    assert "connection refused" in str(error) and "c2Vj" not in str(error)


# Giving up


async def test_a_fetch_that_is_cancelled_ends_at_once_and_the_others_go_on(
    registry: Scripted, layout: Path, tmp_path: Path
) -> None:
    place, content = first_layer(registry, layout)
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(asked: Asked) -> Reply:
        begun.set()
        await release.wait()
        return Reply(200, content)

    registry.on(place, Reply(200, content[:50_000], length=len(content), held=release))
    scratch = tmp_path / "s"
    scratch.mkdir()
    came = asyncio.Event()
    loop = asyncio.get_running_loop()

    def progress(count: int) -> None:
        loop.call_soon_threadsafe(came.set)

    async with opened(parse(f"{registry.address}/a:v1"), ImageConfig(), None, scratch) as remote:
        first, second, third = (await remote.resolve()).document.layers
        task = asyncio.create_task(remote.fetch(first, scratch / "first", progress))
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not (scratch / "first").exists()
        await asyncio.gather(remote.fetch(second, scratch / "2"), remote.fetch(third, scratch / "3"))
        # One that waits for the registry's answer is given up as well.
        registry.on(place, slow)
        task = asyncio.create_task(remote.fetch(first, scratch / "first"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not skopeos()
    release.set()


async def test_when_skopeo_is_killed_its_fetches_say_so(
    registry: Scripted, layout: Path, tmp_path: Path
) -> None:
    place, _ = first_layer(registry, layout)
    release = asyncio.Event()

    async def silent(asked: Asked) -> Reply:
        for pid in skopeos():
            os.kill(pid, 9)
        await release.wait()
        return error_reply(404, "X", "x")

    registry.on(place, silent)
    (tmp_path / "s").mkdir()
    remote: Remote
    async with opened(parse(f"{registry.address}/a:v1"), ImageConfig(), None, tmp_path / "s") as remote:
        layers = (await remote.resolve()).document.layers
        works = [remote.fetch(each, tmp_path / f"s/{n}") for n, each in enumerate(layers)]
        ended = await asyncio.gather(*works, return_exceptions=True)
    release.set()
    assert "skopeo has ended" in str(ended[0])
    for number, each in enumerate(ended):
        # Another may have come already.
        assert each is None or "skopeo has ended" in str(each)
        assert (tmp_path / f"s/{number}").exists() == (each is None)
