"""Artifacts: files from a real registry, listed like images, for mounting only."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.errors import PodwrightError
from podwright.images.store import ImageStore
from tests.images.conftest import Registry
from tests.images.layouts import digest

pytestmark = pytest.mark.root
OpenStore = Callable[..., Awaitable[ImageStore]]
TITLE = "org.opencontainers.image.title"


def push(registry: Registry, name: str, files: list[tuple[str | None, bytes]]) -> str:
    """Push NAME:v1, an artifact of these files; the digest of its manifest."""
    connection = http.client.HTTPConnection(registry.address)

    def send(method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (201, 202), (method, path, answer.status)
        return answer.headers["Location"] or ""

    def blob(content: bytes, kind: str, title: str | None = None) -> dict[str, object]:
        place = urllib.parse.urlsplit(send("POST", f"/v2/{name}/blobs/uploads/"))
        query = f"{place.query}&{urllib.parse.urlencode({'digest': digest(content)})}"
        send("PUT", f"{place.path}?{query}", content)
        described: dict[str, object] = {"mediaType": kind, "digest": digest(content), "size": len(content)}
        if title is not None:
            described["annotations"] = {TITLE: title}
        return described

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.model",
        "config": blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [blob(content, "application/vnd.example.file", title) for title, content in files],
    }
    encoded = json.dumps(manifest).encode()
    send("PUT", f"/v2/{name}/manifests/v1", encoded, str(manifest["mediaType"]))
    connection.close()
    return digest(encoded)


async def test_an_artifact_is_a_directory_of_its_files(
    open_store: OpenStore, registry: Registry, tmp_path: Path
) -> None:
    nameless = b"without a title"
    files = [("model.bin", b"weights" * 1000), ("doc/read me.txt", "größe".encode()), (None, nameless)]
    served = push(registry, "model", files)
    store = await open_store()
    pulled = await store.pull(f"{registry.address}/model:v1")
    assert pulled.artifact
    assert pulled.id == served
    assert pulled.repo_digests == (f"{registry.address}/model@{served}",)
    assert pulled.size > 7000
    for _ in range(2):
        [listed] = await store.list()
        assert listed == pulled
        [lower] = store.lower_dirs(pulled.id)
        found = {
            str(path.relative_to(lower)): path.read_bytes() for path in lower.rglob("*") if path.is_file()
        }
        assert found == {
            "model.bin": files[0][1],
            "doc/read me.txt": files[1][1],
            digest(nameless).removeprefix("sha256:"): nameless,
        }
        store = await open_store()  # the same when it is opened again
    before = registry.blob_requests()
    assert (await store.pull(f"{registry.address}/model:v1")).id == served
    assert registry.blob_requests() == before
    await store.remove(f"{registry.address}/model:v1")
    assert await store.list() == []
    await store.close()
    assert [path.name for path in (tmp_path / "images/l").iterdir() if path.name != "0"] == []
    assert list((tmp_path / "images/blobs/sha256").iterdir()) == []


@pytest.mark.parametrize("title", ["/etc/passwd", "../out", "a/../../out", "a//b", "."])
async def test_a_title_that_leads_out_of_the_artifact_is_refused(
    store: ImageStore, registry: Registry, tmp_path: Path, title: str
) -> None:
    push(registry, "hostile", [(title, b"content of a hostile file")])
    with pytest.raises(PodwrightError, match="is no name for a file"):
        await store.pull(f"{registry.address}/hostile:v1")
    assert await store.list() == []


async def test_two_files_of_one_name_are_refused(store: ImageStore, registry: Registry) -> None:
    push(registry, "twins", [("a", b"one"), ("a", b"two")])
    with pytest.raises(PodwrightError, match="two of its files are called 'a'"):
        await store.pull(f"{registry.address}/twins:v1")


async def test_a_file_that_is_a_directory_of_another_is_refused(
    store: ImageStore, registry: Registry
) -> None:
    push(registry, "nested", [("a", b"file"), ("a/b", b"below it")])
    with pytest.raises(PodwrightError, match="a/b"):
        await store.pull(f"{registry.address}/nested:v1")
    assert await store.list() == []


async def test_artifacts_come_from_layouts_and_go_to_them(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    served = push(registry, "kept", [("f", b"content that is kept")])
    await store.pull(f"{registry.address}/kept:v1")
    await store.export_image(f"{registry.address}/kept:v1", f"oci:{tmp_path}/out:v1")
    await store.remove(f"{registry.address}/kept:v1")
    again = await store.pull(f"oci:{tmp_path}/out:v1")
    assert (again.id, again.artifact) == (served, True)
    assert (store.lower_dirs(again.id)[0] / "f").read_bytes() == b"content that is kept"
