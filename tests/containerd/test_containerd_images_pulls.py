"""Pulls into a real containerd that break off, meet and go on, of a registry that stops as the test wants."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from podwright.engines.base import Image
from podwright.engines.containerd.content import CHUNK, Content
from podwright.engines.containerd.images import Images
from podwright.errors import PodwrightError, RegistryUnavailable
from podwright.images.documents import Descriptor
from podwright.wire import podwright_pb2 as own
from podwright.wire.containerd import content_pb2
from tests.containerd.daemon import Daemon
from tests.containerd.image_room import Room, room_in
from tests.images.layouts import TarMaker, write_layout
from tests.images.paced import Paced, paced

pytestmark = pytest.mark.root

T = TypeVar("T")
PATIENCE = 60.0
SIZE = 5_000_000
"""Bytes of a layer: more than one message."""


@pytest.fixture
async def registry() -> AsyncIterator[Paced]:
    async with paced() as started:
        yield started


@pytest.fixture
async def room(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    async with room_in(daemon, tmp_path) as made:
        yield made


class Source:
    """Images of random layers, which may share some."""

    def __init__(self, directory: Path, registry: Paced) -> None:
        self._directory, self._registry = directory, registry
        self._tars: dict[str, bytes] = {}

    def add(self, name: str, *layers: str) -> list[str]:
        """Serve NAME:v1 of these layers; their digests, bottom first."""
        for layer in layers:
            if layer not in self._tars:
                self._tars[layer] = TarMaker().add(layer, os.urandom(SIZE)).done()
        write_layout(self._directory / name, [self._tars[layer] for layer in layers])
        return self._registry.add(self._directory / name, name)

    def begin(self, images: Images, name: str) -> asyncio.Task[Image]:
        return asyncio.create_task(images.pull(f"{self._registry.address}/{name}:v1", None))


@pytest.fixture
def source(tmp_path: Path, registry: Paced) -> Source:
    return Source(tmp_path / "layouts", registry)


async def halfway(registry: Paced, digest: str) -> None:
    await asyncio.wait_for(registry.halfway[digest].wait(), PATIENCE)


async def written(room: Room, ref: str, least: int) -> int:
    """Wait until so many bytes have come to an unfinished write; how many they are."""

    async def offset() -> int:
        came = (await room.ingests()).get(ref, 0)
        return came if came >= least else 0

    return await until(offset)


async def until(check: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: of what containerd has written it tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await check():
                return found
            await asyncio.sleep(0.02)


async def is_there(room: Room, digest: str) -> None:
    async def there() -> bool:
        return digest in await room.content()

    await until(there)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that were sent to containerd, by digest."""
    counts = Counter[str]()
    from podwright.engines.containerd import content

    say = content._say

    async def counted(stream: object, request: content_pb2.WriteContentRequest) -> object:
        counts[request.expected] += len(request.data)
        return await say(stream, request)

    monkeypatch.setattr(content, "_say", counted)
    return counts


async def test_what_a_cancelled_pull_has_left_expires_or_serves_the_next(
    room: Room, registry: Paced, source: Source, sent: Counter[str]
) -> None:
    images = await room.images(pending_blobs_for=3600)
    base, top = source.add("a", "base", "top")
    registry.shut(top)
    first = source.begin(images, "a")
    await halfway(registry, top)
    ref = f"layer-{top}"
    # Of half of it one message at least has been written, or two, by how much came at a time.
    half = await written(room, ref, CHUNK)
    await is_there(room, base)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await images.list() == [] and await room.records() == {}
    [lease] = await room.leases()
    expires = datetime.fromisoformat(lease.labels["containerd.io/gc.expire"])
    assert timedelta(minutes=50) < expires - datetime.now(UTC) < timedelta(hours=1, minutes=1)
    assert lease.labels["podwright.io/pull"] == f"{registry.address}/a:v1"
    await room.collect()
    assert base in await room.content() and (await room.ingests())[ref] >= half
    registry.open()
    before = sent[top]
    image = await asyncio.wait_for(source.begin(images, "a"), PATIENCE)
    assert await images.list() == [image]
    assert sent[top] - before <= registry.size(top) - half, "what was here is not written again"
    assert Counter(registry.blobs_asked())[base] == 1, "what was whole is not asked for again"
    assert await room.leases() == [] and await room.ingests() == {}
    await images.remove(image.id)
    assert await room.content() == {}


async def test_what_a_failed_pull_has_left_goes_by_prune_and_not_at_all_when_nothing_is_kept(
    room: Room, registry: Paced, source: Source
) -> None:
    images = await room.images()
    base, top = source.add("a", "base", "top")
    registry.shut(top)
    failing = source.begin(images, "a")
    await halfway(registry, top)
    await is_there(room, base)
    registry.absent.add(top)
    registry.break_off(top)
    with pytest.raises(PodwrightError, match=top):
        await asyncio.wait_for(failing, PATIENCE)
    await room.collect()
    assert base in await room.content()
    told = await images.explain_blob(base)
    [keeper] = [each for each in told.keepers if each.kind == "lease"]
    assert keeper.how.startswith(f"{registry.address}/a:v1, until 2")
    would = await images.prune(dry_run=True, untagged_only=False)
    assert base in would.blobs and would.bytes >= registry.size(base) and base in await room.content()
    assert base in (await images.prune(dry_run=False, untagged_only=False)).blobs
    assert await room.content() == {} and await room.snapshots() == {} and await room.leases() == []
    forgetful = await room.images(pending_blobs_for=0)
    with pytest.raises(PodwrightError, match=top):
        await source.begin(forgetful, "a")
    await room.collect()
    assert await room.content() == {} and await room.leases() == []


async def test_a_broken_beginning_is_thrown_away(room: Room, registry: Paced, source: Source) -> None:
    images = await room.images()
    [layer] = source.add("a", "base")
    stream = room.api.converse(room.api.content.Write)
    garbage = content_pb2.WriteContentRequest(
        action=content_pb2.WRITE,
        ref=f"layer-{layer}",
        total=registry.size(layer),
        expected=layer,
        data=b"x" * 1000,
    )
    await stream.write(garbage)
    assert (await stream.read()).offset == 1000
    stream.cancel()
    image = await asyncio.wait_for(source.begin(images, "a"), PATIENCE)
    assert image.size > SIZE and await room.ingests() == {}
    assert Counter(registry.blobs_asked())[layer] == 2


async def test_who_writes_the_same_is_waited_for(room: Room, registry: Paced, source: Source) -> None:
    """Two podwrights, or another client of containerd: in one process pulls share a fetch."""
    ours, theirs = await room.images(), await room.images()
    [layer] = source.add("a", "base")
    registry.shut(layer)
    first = source.begin(ours, "a")
    await halfway(registry, layer)
    await written(room, f"layer-{layer}", 1)
    second = source.begin(theirs, "a")
    await asyncio.wait({second}, timeout=0.5)
    assert not second.done()
    registry.open()
    one, two = await asyncio.wait_for(asyncio.gather(first, second), PATIENCE)
    assert one == two and await room.leases() == []
    assert Counter(registry.blobs_asked())[layer] == 1


async def test_images_that_share_a_layer_fetch_it_once_though_the_first_gives_up(
    room: Room, registry: Paced, source: Source
) -> None:
    images = await room.images(pending_blobs_for=0)
    base, *_ = source.add("a", "base", "a")
    source.add("b", "base", "b")
    registry.shut(base)
    first = source.begin(images, "a")
    await halfway(registry, base)
    second = source.begin(images, "b")

    async def joined() -> bool:
        return images._pulling._rooms.fetches._works[base].parties == 2

    await until(joined)
    first.cancel()
    await asyncio.wait({first})
    await room.collect()
    registry.open()
    image = await asyncio.wait_for(second, PATIENCE)
    await room.collect()
    assert await images.list() == [image] and base in await room.content()
    assert Counter(registry.blobs_asked())[base] == 1 and await room.leases() == []


async def test_a_registry_that_falls_silent_is_given_up_and_progress_is_told(
    room: Room, registry: Paced, source: Source
) -> None:
    images = await room.images(progress_timeout=0.6)
    [layer] = source.add("a", "base")
    states: list[own.PullProgress] = []

    async def watch() -> None:
        async for state in images.watch_pulls():
            states.append(state)
            if state.stage == own.PULL_DONE:
                return

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)  # until it watches
    registry.shut(layer)
    with pytest.raises(RegistryUnavailable, match=r"no byte has come for 0\.6 s"):
        await asyncio.wait_for(source.begin(images, "a"), PATIENCE)
    registry.open()
    image = await asyncio.wait_for(source.begin(images, "a"), PATIENCE)
    await asyncio.wait_for(watching, PATIENCE)
    assert states[-1].image_ref == image.id
    assert [each.stage for each in states[-1].layers] == [own.LAYER_DONE]
    assert any(state.stage == own.PULL_FAILED for state in states)
    stalled = [each.layers[0].bytes for each in states if each.layers and each.id == states[0].id]
    assert registry.size(layer) // 3 < max(stalled) < registry.size(layer)


async def test_the_store_takes_only_what_has_its_digest(room: Room) -> None:
    store, blob = Content(room.api), Descriptor("sha256:" + "0" * 64, size=3)
    with pytest.raises(PodwrightError, match=r"0000: unexpected commit digest"):
        await store.put("test-ref", b"abc", blob.digest, {})
    assert await room.ingests() == {} and await room.content() == {}
