"""Pulling from real registries: digests as served, credentials, policies, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.engines.base import Credentials
from podwright.errors import (
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    SignatureValidationFailed,
)
from podwright.images.access import prepared
from podwright.images.references import parse
from podwright.images.store import ImageStore
from tests.images.conftest import Registry
from tests.images.layouts import TarMaker, digest, write_layout

pytestmark = pytest.mark.root

OpenStore = Callable[..., Awaitable[ImageStore]]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", [TarMaker().add("f", tmp_path.name.encode()).done()])
    return tmp_path / "layout"


async def read_head(reader: asyncio.StreamReader) -> str:
    """The head of an HTTP request; "" for a TLS client, which is to fall back to HTTP."""
    first = await reader.readexactly(1)
    return "" if first == b"\x16" else (first + await reader.readuntil(b"\r\n\r\n")).decode()


def raw(registry: Registry, name: str) -> bytes:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/{name}"]
    return subprocess.run(command, check=True, capture_output=True).stdout


async def test_a_pulled_image_has_the_digests_the_registry_serves(
    store: ImageStore, registry: Registry, layout: Path
) -> None:
    registry.push(layout, "plain:v1")
    image = await store.pull(f"{registry.address}/plain:v1")
    served = raw(registry, "plain:v1")
    assert image.id == json.loads(served)["config"]["digest"]
    assert image.repo_tags == (f"{registry.address}/plain:v1",)
    assert image.repo_digests == (f"{registry.address}/plain@{digest(served)}",)
    for reference in (image.repo_digests[0], f"{registry.address}/plain:other@{digest(served)}"):
        found = await store.find(reference)
        assert found is not None and found.id == image.id
    assert list(Path(store.lower_dirs(image.id)[0]).iterdir())


async def test_docker_manifests_are_not_converted(
    store: ImageStore, registry: Registry, layout: Path
) -> None:
    registry.push(layout, "docker:v1", "--format=v2s2")
    image = await store.pull(f"{registry.address}/docker:v1")
    served = raw(registry, "docker:v1")
    assert json.loads(served)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert image.repo_digests == (f"{registry.address}/docker@{digest(served)}",)
    assert image.id == json.loads(served)["config"]["digest"]


async def test_a_pull_by_digest_has_no_tag(store: ImageStore, registry: Registry, layout: Path) -> None:
    registry.push(layout, "bydigest:v1")
    name = f"{registry.address}/bydigest@{digest(raw(registry, 'bydigest:v1'))}"
    image = await store.pull(name)
    assert image.repo_tags == ()
    assert image.repo_digests == (name,)


async def test_zstd_layers_are_unpacked(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    def zstd(content: bytes) -> bytes:
        return subprocess.run(["zstd", "-c"], input=content, check=True, capture_output=True).stdout

    media = "application/vnd.oci.image.layer.v1.tar+zstd"
    write_layout(tmp_path / "z", [TarMaker().add("f", b"zstd").done()], pack=zstd, media=media)
    registry.push(tmp_path / "z", "zstd:v1")
    image = await store.pull(f"{registry.address}/zstd:v1")
    assert (store.lower_dirs(image.id)[0] / "f").read_bytes() == b"zstd"


async def test_of_several_platforms_the_hosts_is_taken(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    ours = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    ids, entries = {}, []
    for architecture in ("s390x", ours):
        ids[architecture] = write_layout(
            tmp_path / architecture,
            [TarMaker().add(architecture).done()],
            config={"Labels": {"for": architecture}},
        )
        registry.push(tmp_path / architecture, f"multi:{architecture}")
        content = raw(registry, f"multi:{architecture}")
        entries.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(content),
                "size": len(content),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    media = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": entries}).encode()
    url = f"http://{registry.address}/v2/multi/manifests/v1"
    request = ["curl", "-sf", "-X", "PUT", "-H", f"Content-Type: {media}", "--data-binary", "@-", url]
    subprocess.run(request, input=index, check=True)  # noqa: ASYNC221

    image = await store.pull(f"{registry.address}/multi:v1")
    assert image.id == ids[ours]
    assert image.repo_digests == (f"{registry.address}/multi@{digest(index)}",)


async def test_identical_pulls_share_one_transfer(
    store: ImageStore, registry: Registry, layout: Path, tmp_path: Path
) -> None:
    registry.push(layout, "shared:v1")
    before = len(registry.blob_requests())
    images = await asyncio.gather(*(store.pull(f"{registry.address}/shared:v1") for _ in range(8)))
    assert len({image.id for image in images}) == 1
    assert len(registry.blob_requests()) - before == 2  # the layer and the configuration


async def test_what_is_here_already_is_not_fetched_again(
    store: ImageStore, registry: Registry, layout: Path
) -> None:
    registry.push(layout, "again:v1")
    registry.push(layout, "again:v2")
    first = await store.pull(f"{registry.address}/again:v1")
    before = registry.blob_requests()
    image = await store.pull(f"{registry.address}/again:v2")
    assert image.id == first.id
    assert image.repo_tags == (f"{registry.address}/again:v1", f"{registry.address}/again:v2")
    assert registry.blob_requests() == before


async def test_a_tag_that_moves_in_the_registry_moves_here(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    images = []
    for text in ("old", "new"):
        write_layout(tmp_path / text, [TarMaker().add(text).done()])
        registry.push(tmp_path / text, "moving:v1")
        images.append(await store.pull(f"{registry.address}/moving:v1"))
    old = await store.find(images[0].id)
    assert old is not None and old.repo_tags == () and len(old.repo_digests) == 1
    assert images[1].repo_tags == (f"{registry.address}/moving:v1",)


async def test_an_image_the_registry_has_not_is_not_found(store: ImageStore, registry: Registry) -> None:
    with pytest.raises(NotFound, match="manifest unknown"):
        await store.pull(f"{registry.address}/absent:v1")


async def test_a_registry_that_is_away_is_unavailable(store: ImageStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RegistryUnavailable, match=r"^RegistryUnavailable: .*connection refused"):
        await store.pull(f"127.0.0.1:{port}/a:v1")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_registry_that_answers_5xx_is_unavailable(store: ImageStore, status: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await read_head(reader):
            head = f"HTTP/1.1 {status} Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryUnavailable):
            await store.pull(f"127.0.0.1:{port}/a:v1")


async def test_a_registry_that_falls_silent_is_given_up(open_store: OpenStore) -> None:
    store = await open_store(progress_timeout=3.0)
    release = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        tried = rf"\n  tried https://127\.0\.0\.1:{port}: no answer \(credentials: none\)"
        with pytest.raises(RegistryUnavailable, match=rf"no byte has come for 3 s .*{tried}"):
            await store.pull(f"127.0.0.1:{port}/a:v1")
        release.set()


async def test_credentials_open_a_private_registry(
    store: ImageStore, private_registry: Registry, layout: Path
) -> None:
    private_registry.push(layout, "secret:v1", "--dest-creds=reader:secret")
    name = f"{private_registry.address}/secret:v1"
    for wrong in (None, Credentials("reader", "wrong")):
        with pytest.raises(PodwrightError, match="check the pull secret") as caught:
            await store.pull(name, wrong)
        assert not isinstance(caught.value, NotFound)
    image = await store.pull(name, Credentials("reader", "secret"))
    assert image.repo_tags == (name,)


async def test_the_configured_authfile_is_used_when_the_client_sends_nothing(
    open_store: OpenStore, private_registry: Registry, layout: Path, tmp_path: Path
) -> None:
    private_registry.push(layout, "secret:v1", "--dest-creds=reader:secret")
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {private_registry.address: {"auth": "cmVhZGVyOnNlY3JldA=="}}}))
    store = await open_store(authfile=str(authfile))
    assert await store.pull(f"{private_registry.address}/secret:v1")


async def test_credentials_are_in_a_private_file_and_not_in_arguments(tmp_path: Path) -> None:
    source = parse("registry.example/a")
    async with prepared(source, ImageConfig(), Credentials("reader", "s3cret"), tmp_path) as access:
        assert access.authfile.stat().st_mode & 0o777 == 0o600
        assert access.authfile.parent.stat().st_mode & 0o777 == 0o700
        assert "s3cret" not in repr(access)
        auths = json.loads(access.authfile.read_text())["auths"]
        assert list(auths) == ["registry.example"]
    assert list(tmp_path.iterdir()) == []
    credentials = Credentials(identity_token="refresh")
    async with prepared(source, ImageConfig(), credentials, tmp_path) as access:
        auths = json.loads(access.authfile.read_text())["auths"]
        assert auths["registry.example"]["identitytoken"] == "refresh"
    assert list(tmp_path.iterdir()) == []


async def test_an_identity_token_is_exchanged_for_access(store: ImageStore) -> None:
    """The registry's token service gets the refresh token as OAuth2 wants it."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (head := await read_head(reader)):
            writer.close()
            return
        body = b""
        if "Transfer-Encoding: chunked" in head:
            body = await reader.readexactly(int(await reader.readline(), 16))
        asked.append(f"{head.split()[1]} {body.decode()}")
        if head.startswith("POST"):
            text, status = '{"access_token": "opened"}', "200 OK"
        else:
            text, status = "", "401 Unauthorized"
            if "Bearer opened" in head:
                status = "404 Not Found"
                text = '{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        port = writer.get_extra_info("sockname")[1]
        challenge = f'Bearer realm="http://127.0.0.1:{port}/token",service="s"'
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nWWW-Authenticate: {challenge}\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotFound):
            await store.pull(f"127.0.0.1:{port}/a:v1", Credentials(identity_token="refresh-me"))
    assert any(line.startswith("/token") and "refresh_token=refresh-me" in line for line in asked)


async def test_tls_without_a_trusted_certificate_needs_configuration(
    open_store: OpenStore, tls_registry: Registry, layout: Path
) -> None:
    tls_registry.push(layout, "tls:v1")
    port = tls_registry.address.rpartition(":")[2]
    # 127.0.0.1 is trusted as it stands; the host's other name is not.
    name = f"{socket.gethostname()}:{port}".lower()
    if socket.gethostbyname(socket.gethostname()) not in ("127.0.0.1", "127.0.1.1"):
        pytest.skip("this host's name does not lead to loopback")
    store = await open_store()
    with pytest.raises(PodwrightError, match=r"images\.insecure_registries"):
        await store.pull(f"{name}/tls:v1")
    store = await open_store(insecure_registries=[name])
    assert await store.pull(f"{name}/tls:v1")


async def test_loopback_registries_need_no_trusted_certificate(
    store: ImageStore, tls_registry: Registry, layout: Path
) -> None:
    tls_registry.push(layout, "tls:v1")
    assert await store.pull(f"{tls_registry.address}/tls:v1")


async def test_the_signature_policy_is_obeyed(
    open_store: OpenStore, registry: Registry, layout: Path, tmp_path: Path
) -> None:
    registry.push(layout, "signed:v1")
    store = await open_store()
    await store.pull(f"{registry.address}/signed:v1")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    store = await open_store(policy=str(policy))
    with pytest.raises(SignatureValidationFailed, match=r"^SignatureValidationFailed: .*rejected by policy"):
        await store.pull(f"{registry.address}/signed:v1")
