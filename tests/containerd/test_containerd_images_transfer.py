"""Pulls by the Transfer service: when they are, what is asked of it, and against a newer containerd's own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from podwright.config import ContainerdConfig, ImageConfig
from podwright.engines.base import Credentials
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.leases import PullLease
from podwright.engines.containerd.transfer import PLUGINS, TransferPulls
from podwright.errors import NotFound, PodwrightError, RegistryUnavailable, Unavailable
from podwright.images import references
from podwright.images.platform import Platform
from podwright.images.progress import Pulls
from podwright.wire import podwright_pb2 as own
from podwright.wire.containerd import transfer_types_pb2
from tests.containerd.daemon import Daemon, running
from tests.containerd.image_room import Room, room_in
from tests.containerd.test_containerd_images import private
from tests.containerd.transfer_double import Play, Transferring, playing
from tests.images.conftest import run_registry
from tests.images.layouts import TarMaker, write_layout

NEWER = Path(__file__).parents[2] / "build/containerd-2/containerd"
"""See tools/containerd.sh."""
LOOPBACK = "podwright.engines.containerd.transfer.is_loopback"
SOURCE = references.parse("registry.example/of/app:1")
CREDENTIALS = Credentials("reader", "secret")


# When


class Having(Containerd):
    """Without the plugin `lacks`."""

    lacks: tuple[str, str] | None = None

    def has(self, kind: str, id: str) -> bool:
        return (kind, id) in PLUGINS and (kind, id) != self.lacks


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, str]:
    """Settings that change nothing, whatever the host's are."""
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (tmp_path / "registries.conf").touch()
    return {"policy": str(tmp_path / "policy.json"), "registries_conf": str(tmp_path / "registries.conf")}


def why_not(
    settings: dict[str, Any], credentials: Credentials | None = None, *, wanted: bool = True, name: str = ""
) -> str:
    pulls = TransferPulls(Having(ContainerdConfig()), ImageConfig(**settings), wanted=wanted)
    return pulls.why_not(references.parse(name or str(SOURCE)), credentials)


def test_it_is_used_unless_something_is_asked_that_only_our_transport_knows(
    plain: dict[str, str], tmp_path: Path
) -> None:
    assert why_not(plain) == "" == why_not(plain, CREDENTIALS)
    assert why_not(plain, Credentials(identity_token="t")) == ""
    assert "containerd.transfer" in why_not(plain, wanted=False)
    assert "registry token" in why_not(plain, Credentials(registry_token="t"))
    assert "loopback" in why_not(plain, name="127.0.0.1:5000/x") and "loopback" in why_not(
        plain, name="localhost/x"
    )
    for settings in (
        {"authfile": "/x"},
        {"discard_unpacked_layers": True},
        {"max_concurrent_downloads": 5},
        {"insecure_registries": [SOURCE.domain]},
    ):
        assert why_not({**plain, **settings}) == f"images.{next(iter(settings))}"
    assert why_not({**plain, "authfile": "/x"}, CREDENTIALS) == "", "the call's own go before it"
    (tmp_path / "certs" / SOURCE.domain).mkdir(parents=True)
    assert "certificates" in why_not({**plain, "certs_dir": str(tmp_path / "certs")})
    (tmp_path / "strict.json").write_text('{"default": [{"type": "reject"}]}')
    assert "images.policy" in why_not({**plain, "policy": str(tmp_path / "strict.json")})
    Path(plain["registries_conf"]).write_text(
        '[[registry]]\nlocation = "registry.example/of"\nblocked = true\n'
    )
    assert "registries.conf" in why_not(plain) and why_not(plain, name="registry.example/other") == ""


@pytest.mark.parametrize("lacking", PLUGINS)
def test_it_is_used_only_where_the_daemon_has_it(plain: dict[str, str], lacking: tuple[str, str]) -> None:
    api = Having(ContainerdConfig())
    api.lacks = lacking
    words = TransferPulls(api, ImageConfig(**plain), wanted=True).why_not(SOURCE, None)  # type: ignore[arg-type]
    assert words == f"this containerd has no {'.'.join(lacking)}"


# What is asked of it


async def pulled(
    play: Play, credentials: Credentials | None = None, patience: float = 30.0
) -> tuple[own.PullProgress, dict[str, str]]:
    """Pull SOURCE of a double that does `play`; how far it came, and what went with the call."""
    seen: dict[str, str] = {}

    async def noted(transfer: Transferring) -> None:
        seen.update(transfer.metadata)
        await play(transfer)

    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "c.sock"
        async with playing(socket, noted) as double:
            api = Containerd(ContainerdConfig(endpoint=str(socket), namespace="tests"))
            api.open()
            try:
                progress = Pulls().begin(str(SOURCE))
                pulls = TransferPulls(api, ImageConfig(progress_timeout=patience), wanted=True)
                platform = Platform("linux", "arm", "v7")
                lease = PullLease(api, "of-the-pull")
                await pulls.pull(SOURCE, credentials, platform, "devmapper", {"a": "b"}, lease, progress)
            finally:
                await api.close()
                async with asyncio.timeout(30):
                    await double.ended.wait()
    return progress.state(), seen


async def test_it_is_asked_for_one_platform_unpacked_under_our_lease() -> None:
    async def play(transfer: Transferring) -> None:
        assert transfer.source.reference == transfer.store.name == str(SOURCE)
        assert transfer.source.resolver.auth_stream == "" and dict(transfer.store.labels) == {"a": "b"}
        [platform], [unpack] = transfer.store.platforms, transfer.store.unpacks
        assert (platform.os, platform.architecture, platform.variant) == ("linux", "arm", "v7")
        assert (unpack.platform, unpack.snapshotter) == (platform, "devmapper")

    _, metadata = await pulled(play)
    assert metadata["containerd-lease"] == "of-the-pull" and metadata["containerd-namespace"] == "tests"


async def test_its_words_become_the_progress_of_layers() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64

    async def play(transfer: Transferring) -> None:
        await transfer.tell("waiting", f"layer-{one}", 0, 100)
        await transfer.tell("already exists", f"layer-{two}", 0, 50)
        await transfer.tell("downloading", f"layer-{one}", 60, 100)
        await transfer.tell("something new", f"layer-{one}", 70, 100)
        await transfer.tell("waiting", "manifest-sha256:0", 0, 7)
        await transfer.ask("registry.example")  # by then what was told before has been read

    state, _ = await pulled(play, CREDENTIALS)
    layers = [(each.digest, each.total, each.stage) for each in state.layers]
    assert layers[0] == (one, 100, own.LAYER_DONE) and layers[1] == (two, 50, own.LAYER_PRESENT)
    assert state.layers[0].bytes >= 60 and len(layers) == 2


async def test_credentials_are_told_to_the_images_registry_alone() -> None:
    answers: list[transfer_types_pb2.AuthResponse] = []

    async def play(transfer: Transferring) -> None:
        for host in ("mirror.example", "registry.example"):
            answers.append(await transfer.ask(host))

    await pulled(play, CREDENTIALS)
    await pulled(play, Credentials(identity_token="refresh"))
    kinds = [each.authType for each in answers]
    none, refresh = transfer_types_pb2.NONE, transfer_types_pb2.REFRESH
    assert kinds == [none, transfer_types_pb2.CREDENTIALS, none, refresh]
    assert (answers[1].username, answers[1].secret) == ("reader", "secret")
    assert answers[3].secret == "refresh" and not answers[0].secret and not answers[2].secret

    async def unasked(transfer: Transferring) -> None:
        assert transfer.source.resolver.auth_stream == ""

    await pulled(unasked, Credentials(withheld="example.org"))


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "failed to resolve image: x: not found", NotFound),
        (grpc.StatusCode.UNKNOWN, "dial tcp 1.2.3.4:443: connect: connection refused", RegistryUnavailable),
        (grpc.StatusCode.UNAVAILABLE, "unexpected status: 503 Service Unavailable", RegistryUnavailable),
        (grpc.StatusCode.UNKNOWN, "pull access denied: authorization failed", PodwrightError),
    ],
)
async def test_what_a_registry_has_said_becomes_our_error(
    code: grpc.StatusCode, words: str, kind: type[PodwrightError]
) -> None:
    async def play(transfer: Transferring) -> None:
        await transfer.fail(code, words)

    with pytest.raises(kind) as caught:
        await pulled(play, Credentials(withheld="example.org"))
    assert type(caught.value) is kind and words in str(caught.value)
    assert "(credentials: none (the call's are for example.org))" in str(caught.value)


async def test_a_containerd_that_goes_away_is_no_registry_that_is_away(tmp_path: Path) -> None:
    api = Containerd(ContainerdConfig(endpoint=str(tmp_path / "nobody.sock")))
    api.open()
    pulls = TransferPulls(api, ImageConfig(), wanted=True)
    with pytest.raises(Unavailable) as caught:
        progress = Pulls().begin("x")
        await pulls.pull(SOURCE, None, Platform("linux", "amd64"), "x", {}, PullLease(api, "x"), progress)
    assert type(caught.value) is Unavailable
    await api.close()


async def test_silence_ends_a_pull_that_downloads_and_not_one_that_unpacks() -> None:
    layer, stalled = "layer-sha256:" + "1" * 64, asyncio.Event()

    async def silent(transfer: Transferring) -> None:
        await transfer.tell("downloading", layer, 60, 100)
        try:
            await asyncio.Event().wait()
        finally:
            stalled.set()

    with pytest.raises(RegistryUnavailable, match=r"no byte has come for 0\.3 s"):
        await pulled(silent, patience=0.3)
    async with asyncio.timeout(30):
        await stalled.wait()  # containerd does not go on for nobody

    async def slow(transfer: Transferring) -> None:
        await transfer.tell("downloading", layer, 100, 100)
        await asyncio.sleep(1.0)

    state, _ = await pulled(slow, patience=0.3)
    assert [each.stage for each in state.layers] == [own.LAYER_DONE]


# A real one


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if os.geteuid() != 0 or not NEWER.exists():
        pytest.skip("needs root and build/containerd-2 (tools/containerd.sh)")
    with running(tmp_path_factory.mktemp("newer"), images=False, program=str(NEWER)) as started:
        yield started


@pytest.fixture
async def room(newer: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    # This containerd speaks without TLS with registries on loopback.
    monkeypatch.setattr(LOOPBACK, lambda _: False)
    async with room_in(newer, tmp_path) as made:
        yield made


@pytest.fixture
def skopeoless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may come by our own transport."""

    async def refuse(*_: object) -> object:
        raise AssertionError("our own transport was asked")

    monkeypatch.setattr("podwright.images.pulling.Pulling.pull", refuse)


@pytest.mark.root
@pytest.mark.usefixtures("skopeoless")
async def test_a_newer_containerd_pulls_itself(room: Room, plain: dict[str, str], tmp_path: Path) -> None:
    layers = [TarMaker().add(name, os.urandom(100_000)).done() for name in ("a", "b")]
    id = write_layout(tmp_path / "layout", layers, config={"User": "9"})
    with run_registry(tmp_path / "registry") as registry:
        registry.push(tmp_path / "layout", "app:1")
        name, images = f"{registry.address}/app:1", await room.images(**plain)
        states: list[own.PullProgress] = []

        async def watch() -> None:
            async for state in images.watch_pulls(name):
                states.append(state)
                if state.stage == own.PULL_DONE:
                    return

        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0)  # until it watches
        pulled = await asyncio.gather(*(images.pull(name, None) for _ in range(3)))
        await asyncio.wait_for(watching, 60)
        [image] = {each.id: each for each in pulled}.values()
        assert image.id == id and image.user == "9" and image.repo_tags == (name,)
        [by_digest] = image.repo_digests
        assert set(await room.records()) == {name, by_digest, id}
        assert len({state.id for state in states}) == 1 and states[-1].image_ref == id
        assert [each.stage for each in states[-1].layers] == [own.LAYER_DONE] * 2
        await room.collect()
        assert len(await room.content()) == 4 and await room.leases() == []
        assert await images.chain(id, "overlayfs") in await room.snapshots()
        assert (await images.pull(by_digest, None)).id == id
        with pytest.raises(NotFound, match=r"app:none: not found"):
            await images.pull(f"{registry.address}/app:none", None)
        await images.remove(name)
        assert await room.content() == {} == await room.snapshots()
    with pytest.raises(RegistryUnavailable, match="refused"):
        await images.pull(name, None)
    assert [each.labels["podwright.io/pull"] for each in await room.leases()]


@pytest.mark.root
@pytest.mark.usefixtures("skopeoless")
async def test_a_newer_containerd_asks_us_for_credentials(
    room: Room, plain: dict[str, str], tmp_path: Path
) -> None:
    id = write_layout(tmp_path / "layout", [TarMaker().add("x", b"x").done()])
    with private(tmp_path) as registry:
        registry.push(tmp_path / "layout", "p:1", "--dest-creds=reader:secret")
        name, images = f"{registry.address}/p:1", await room.images(**plain)
        for wrong in (None, Credentials("reader", "guess")):
            with pytest.raises(PodwrightError, match="pull secret") as caught:
                await images.pull(name, wrong)
            assert "guess" not in str(caught.value)
        assert (await images.pull(name, CREDENTIALS)).id == id
