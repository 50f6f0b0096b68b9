"""Images on a real Docker Engine: pulled from real registries, named in every way, removed, loaded, saved."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from podwright.config import Config, DockerConfig, ImageConfig
from podwright.engines.base import Credentials
from podwright.engines.docker.api import Docker
from podwright.engines.docker.images import Images
from podwright.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    Unimplemented,
)
from podwright.wire import podwright_pb2 as own
from tests.docker.daemon import Daemon
from tests.images.conftest import Registry, run_registry
from tests.images.layouts import TarMaker
from tools.oci_image import Layout

pytestmark = pytest.mark.root

USER, PASSWORD = "reader", "sesame"


@dataclass
class Shelf:
    """A registry with images: "one" and "two" share a layer, "one" has the tags 1 and 2."""

    registry: Registry
    layout: Path
    ids: dict[str, str] = field(default_factory=dict)

    def name(self, image: str, tag: str = "1") -> str:
        return f"{self.registry.address}/test/{image}:{tag}"


def layout_of(root: Path, mark: str) -> tuple[Path, dict[str, str]]:
    made = root / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/of").write_text(mark * 5000)
    layout = Layout(root / "layout")
    layer = layout.layer(made)
    user = {"User": "1000:2000", "Cmd": ["/x"], "StopSignal": "SIGUSR1"}
    ids = {"one": layout.add("one", [layer], {"Cmd": ["/x"]}), "two": layout.add("two", [layer], user)}
    return layout.directory, ids


def push(layout: Path, name: str, reference: str, *options: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *options]
    subprocess.run(
        [*command, f"oci:{layout}:{name}", f"docker://{reference}"], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    top = tmp_path_factory.mktemp("shelf")
    layout, ids = layout_of(top, "module")
    with run_registry(top / "registry") as registry:
        made = Shelf(registry, layout, ids)
        for name, tag in (("one", "1"), ("one", "2"), ("two", "1")):
            push(layout, name, made.name(name, tag))
        yield made


class Room:
    def __init__(self, daemon: Daemon, docker: Docker, root: Path) -> None:
        self._daemon, self.docker, self._root = daemon, docker, root
        self.opened: list[Images] = []

    def images(self, **settings: Any) -> Images:
        config = Config(
            root=str(self._root / "state"),
            docker=DockerConfig(endpoint=self._daemon.endpoint),
            images=ImageConfig(**settings),
        )
        self.opened.append(Images(self.docker, config))
        return self.opened[-1]


@pytest.fixture
async def room(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    docker = Docker(DockerConfig(endpoint=daemon.endpoint))
    docker.open()
    before = {each["Id"] for each in await docker.call("GET", "/images/json")}
    made = Room(daemon, docker, tmp_path)
    yield made
    for each in made.opened:
        await each.close()
    for each in await docker.call("GET", "/images/json"):
        if each["Id"] not in before:
            await docker.request("DELETE", f"/images/{each['Id']}", {"force": True})
    await docker.close()


async def test_every_way_to_name_an_image_leads_to_the_same(room: Room, shelf: Shelf) -> None:
    images = room.images(pinned=[f"{shelf.registry.address}/test/two*"])
    pulled = await images.pull(shelf.name("two"), None)
    assert pulled.id == shelf.ids["two"] and pulled.repo_tags == (shelf.name("two"),)
    assert pulled.pinned and pulled.user == "1000:2000" and pulled.stop_signal == "SIGUSR1"
    assert pulled.config == {"User": "1000:2000", "Cmd": ["/x"], "StopSignal": "SIGUSR1"}
    assert pulled.size >= 30000
    [digest] = pulled.repo_digests
    hexadecimal = pulled.id.removeprefix("sha256:")
    ways = (
        pulled.id,
        hexadecimal,
        hexadecimal[:12],
        digest,
        digest.replace("@", ":other@"),
        shelf.name("two"),
    )
    for way in ways:
        assert await images.find(way) == pulled, way
    assert pulled in await images.list()
    assert await images.find(shelf.name("none")) is None
    assert await images.find("0" * 64) is None
    with pytest.raises(InvalidArgument):
        await images.find("UPPER/Case:not ok")


async def test_removal_takes_every_name_and_many_may_remove_at_once(room: Room, shelf: Shelf) -> None:
    images = room.images()
    for tag in ("1", "2"):
        image = await images.pull(shelf.name("one", tag), None)
    assert set(image.repo_tags) == {shelf.name("one", "1"), shelf.name("one", "2")}
    await asyncio.gather(
        *(images.remove(way) for way in (image.id, *image.repo_tags, *image.repo_digests) * 3)
    )
    for way in (image.id, *image.repo_tags, *image.repo_digests):
        assert await images.find(way) is None
    await images.remove(image.id)
    by_digest = await images.pull(image.repo_digests[0], None)
    assert by_digest.id == image.id and not by_digest.repo_tags
    assert by_digest in await images.list()


async def test_an_image_in_use_keeps_its_files_until_its_last_container_has_gone(
    room: Room, shelf: Shelf
) -> None:
    images = room.images()
    image = await images.pull(shelf.name("one"), None)
    made = await room.docker.call("POST", "/containers/create", json={"Image": image.id})
    await images.remove(shelf.name("one"))
    assert await images.find(image.id) is None and image.id not in {each.id for each in await images.list()}
    await images.collect()
    status, _ = await room.docker.request("GET", f"/images/{image.id}/json")
    assert status == 200
    # The next podwright knows, too.
    other = room.images()
    assert await other.find(image.id) is None
    again = await other.pull(shelf.name("one"), None)
    assert again == image  # and it is there again
    await other.remove(image.id)
    assert await other.find(image.id) is None
    await room.docker.call("DELETE", f"/containers/{made['Id']}")
    await other.collect()
    status, _ = await room.docker.request("GET", f"/images/{image.id}/json")
    assert status == 404


async def test_credentials_are_the_calls_or_those_of_the_authfile(
    room: Room, shelf: Shelf, tmp_path: Path
) -> None:
    # By libcrypt, of the lowest cost that registries take: they compute it at every request.
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    secret = crypt(PASSWORD.encode(), b"$2y$05$abcdefghijklmnopqrstuu")
    (tmp_path / "htpasswd").write_text(f"{USER}:{secret.decode()}\n")
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'htpasswd'}}}}}\n"
    with run_registry(tmp_path / "registry", auth=auth) as registry:
        name = f"{registry.address}/test/one:1"
        push(shelf.layout, "one", name, "--dest-creds", f"{USER}:{PASSWORD}")
        images = room.images()
        for wrong in (None, Credentials(USER, "guess"), Credentials(withheld="example.org")):
            with pytest.raises(PodwrightError, match=r"pull secret.*auth") as caught:
                await images.pull(name, wrong)
            assert "guess" not in str(caught.value)
        assert "the call's are for example.org" in str(caught.value)
        assert (await images.pull(name, Credentials(USER, PASSWORD))).id == shelf.ids["one"]
        await images.remove(name)
        entry = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        authfile = tmp_path / "auth.json"
        authfile.write_text(json.dumps({"auths": {registry.address: {}, f"{registry.address}/test": entry}}))
        assert (await room.images(authfile=str(authfile)).pull(name, None)).id == shelf.ids["one"]


async def test_what_is_not_there_is_told_from_who_is_not(room: Room, shelf: Shelf, tmp_path: Path) -> None:
    images = room.images(progress_timeout=1.0)
    with pytest.raises(NotFound, match="manifest unknown"):
        await images.pull(shelf.name("one", "none"), None)
    with pytest.raises(NotFound, match="test/none"):
        await images.pull(shelf.name("none"), None)
    with pytest.raises(RegistryUnavailable, match=r"^RegistryUnavailable: localhost:1/x:1: .*refused"):
        await images.pull("localhost:1/x:1", None)
    held: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with asyncio.timeout(30):
        with pytest.raises(RegistryUnavailable, match=r"nothing was heard of it for 1 s"):
            await images.pull(f"127.0.0.1:{port}/x:1", None)
    silent.close()
    for each in held:
        each.close()
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    with pytest.raises(FailedPrecondition, match=r"images\.policy"):
        await room.images(policy=str(policy)).pull(shelf.name("one"), None)


async def test_pulls_of_one_name_are_one_and_tell_how_far_they_are(
    room: Room, shelf: Shelf, tmp_path: Path
) -> None:
    layout, ids = layout_of(tmp_path / "fresh", str(tmp_path))
    push(layout, "one", shelf.name("shared"))
    images = room.images()
    states: list[own.PullProgress] = []

    async def watch() -> None:
        async for state in images.watch_pulls(shelf.name("shared")):
            states.append(state)
            if state.stage in (own.PULL_DONE, own.PULL_FAILED):
                return

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)  # until it watches
    asked = len(shelf.registry.blob_requests())
    found = await asyncio.gather(*(images.pull(shelf.name("shared"), None) for _ in range(5)))
    assert {each.id for each in found} == {ids["one"]}
    await asyncio.wait_for(watching, 30)
    assert len({state.id for state in states}) == 1
    last = states[-1]
    assert last.stage == own.PULL_DONE and last.image_ref == ids["one"]
    [layer] = last.layers
    assert layer.stage == own.LAYER_DONE and layer.digest.startswith("sha256:")
    assert len(shelf.registry.blob_requests()) - asked == 2  # the configuration and the layer, once


async def test_a_pull_that_nobody_waits_for_ends(room: Room, tmp_path: Path) -> None:
    """Of a registry that stops in the middle of a layer."""
    begun: asyncio.Queue[None] = asyncio.Queue()
    layout, _ = layout_of(tmp_path, str(tmp_path))
    index = json.loads((layout / "index.json").read_text())["manifests"][0]
    blobs = layout / "blobs/sha256"
    layer = json.loads((blobs / index["digest"][7:]).read_text())["layers"][0]["digest"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (await reader.read(1)) not in (b"", b"\x16"):  # not in TLS
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ", 2)[1]
                digest = index["digest"] if "/manifests/" in path else path.rpartition("/")[2]
                body = b"{}" if path == "/v2/" else (blobs / digest.removeprefix("sha256:")).read_bytes()
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Type: {index['mediaType']}\r\n"
                    f"Docker-Content-Digest: {digest}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                )
                if layer in path:
                    writer.write(body[:100])
                    begun.put_nowait(None)
                    await reader.read()
                elif not head.startswith("EAD"):
                    writer.write(body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    registry = await asyncio.start_server(serve, "127.0.0.1", 0)
    name = f"127.0.0.1:{registry.sockets[0].getsockname()[1]}/x:1"
    pulling = asyncio.ensure_future(room.images().pull(name, None))
    async with asyncio.timeout(60):
        await begun.get()
        pulling.cancel()
        with pytest.raises(RegistryUnavailable, match=r"heard of it for 0\.5 s"):
            await room.images(progress_timeout=0.5).pull(name, None)
        await begun.get()  # anew: Docker has not gone on with the first
    registry.close()


async def test_prune_takes_what_nobody_uses(room: Room, shelf: Shelf) -> None:
    images = room.images(pinned=["podwright.test/*"])
    one, two = [await images.pull(shelf.name(name), None) for name in ("one", "two")]
    made = await room.docker.call("POST", "/containers/create", json={"Image": two.id})
    would = await images.prune(dry_run=True, untagged_only=False)
    assert one.id in {each.id for each in would.images} and await images.find(one.id) is not None
    untagged = await images.prune(dry_run=True, untagged_only=True)
    assert one.id not in {each.id for each in untagged.images}
    done = await images.prune(dry_run=False, untagged_only=False)
    assert {each.id for each in done.images} == {each.id for each in would.images}
    assert await images.find(one.id) is None and await images.find(two.id) == two
    await room.docker.call("DELETE", f"/containers/{made['Id']}")


async def test_what_images_take_on_the_disk(room: Room, shelf: Shelf, daemon: Daemon) -> None:
    images = room.images()
    before = await images.filesystem_use()
    assert Path(before.mountpoint).is_dir() and before.used_bytes > 100_000 and before.inodes_used > 5
    await images.pull(shelf.name("one"), None)
    alone = await room.images().filesystem_use()
    await images.pull(shelf.name("two"), None)
    both = await room.images().filesystem_use()
    assert before.used_bytes + 30000 < alone.used_bytes and alone.inodes_used > before.inodes_used
    assert both == alone, "a layer that two images share is there once"


async def test_archives_keep_an_image_what_it_is(room: Room, shelf: Shelf, tmp_path: Path) -> None:
    images = room.images()
    [image] = await images.import_image(f"oci:{shelf.layout}:two", "example.org/of/layout:1", {})
    assert image.id == shelf.ids["two"] and image.repo_tags == ("example.org/of/layout:1",)
    saved, size = await images.export_image(image.id, f"docker-archive:{tmp_path / 'saved.tar'}")
    assert saved.id == image.id and size == (tmp_path / "saved.tar").stat().st_size > 30000
    await images.remove(image.id)
    [again] = await images.import_image(str(tmp_path / "saved.tar"), "", {})
    assert again == image
    with pytest.raises(Unimplemented, match="docker-archive"):
        await images.export_image(image.id, f"oci:{tmp_path / 'x'}")
    with pytest.raises(NotFound):
        await images.export_image("example.org/none:1", f"docker-archive:{tmp_path / 'x'}")
    with pytest.raises(InvalidArgument, match="config"):
        await images.import_image(f"oci:{shelf.layout}:two", "example.org/x:1", {"User": "x"})
    with pytest.raises(Unimplemented):
        await images.explain_blob(image.id)
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("kind", ["root", "tar"])
async def test_a_root_becomes_an_image_with_the_configuration_that_is_given(
    room: Room, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "source"
    if kind == "root":
        (source / "etc").mkdir(parents=True)
        (source / "etc/x").write_text("content")
    else:
        maker = TarMaker().directory("etc").add("etc/x", b"content")
        maker.tar.close()
        with tarfile.open(source, "w:gz") as tar, tarfile.open(fileobj=maker.buffer) as plain:
            maker.buffer.seek(0)
            for entry in plain:
                tar.addfile(entry, plain.extractfile(entry) if entry.isreg() else None)
    images = room.images()
    with pytest.raises(InvalidArgument, match="reference"):
        await images.import_image(str(source), "", {})
    [image] = await images.import_image(str(source), "example.org/root:1", {"User": "7", "Cmd": ["/bin/x"]})
    assert image.config == {"User": "7", "Cmd": ["/bin/x"]} and image.repo_tags == ("example.org/root:1",)
