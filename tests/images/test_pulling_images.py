"""Pulls that meet, break off, stall and go on: what is fetched, how often, and what is left."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podwright.errors import NotFound, PodwrightError, RegistryUnavailable, ResourceExhausted
from podwright.images.layers import Layers
from podwright.images.store import ImageStore
from podwright.linux import mounts
from podwright.wire import podwright_pb2 as own
from tests.images.layouts import TarMaker, digest, write_layout
from tests.images.paced import Paced, paced

pytestmark = pytest.mark.root

OpenStore = Callable[..., Awaitable[ImageStore]]
PATIENCE = 60.0
"""Seconds after which what is waited for will not come, however busy the machine."""


@pytest.fixture
async def registry() -> AsyncIterator[Paced]:
    async with paced() as started:
        yield started


class Images:
    """Images of random layers, 200 kB each, which may share some."""

    def __init__(self, directory: Path, registry: Paced) -> None:
        self._directory = directory
        self._registry = registry
        self._tars: dict[str, bytes] = {}

    def add(self, name: str, *layers: str) -> list[str]:
        """Serve NAME:v1 of these layers; their digests, bottom first."""
        for layer in layers:
            if layer not in self._tars:
                self._tars[layer] = TarMaker().add(layer, os.urandom(200_000)).done()
        write_layout(self._directory / name, [self._tars[layer] for layer in layers])
        return self._registry.add(self._directory / name, name)


@pytest.fixture
def images(tmp_path: Path, registry: Paced) -> Images:
    return Images(tmp_path / "layouts", registry)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each layer was unpacked, by diff id."""
    counts, ensure = Counter[str](), Layers.ensure

    async def counted(self: Layers, chain_id: str, below: object, diff_id: str, *rest: object) -> object:
        counts[diff_id] += 1
        return await ensure(self, chain_id, below, diff_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Layers, "ensure", counted)
    return counts


def begin(store: ImageStore, registry: Paced, name: str) -> asyncio.Task[object]:
    return asyncio.create_task(store.pull(f"{registry.address}/{name}:v1"))


async def ended(*tasks: asyncio.Task[object]) -> None:
    _, pending = await asyncio.wait(tasks, timeout=PATIENCE)
    assert not pending


async def halfway(registry: Paced, *digests: str) -> None:
    async with asyncio.timeout(PATIENCE):
        for digest in digests:
            await registry.halfway[digest].wait()


async def assert_only_blobs(store: ImageStore, root: Path, blobs: set[str]) -> None:
    """Nothing is left of pulls but these complete layer blobs (and documents)."""
    await store.close()  # what is being removed has gone then
    assert await store.list() == []
    assert store.orphans(set()) == []
    assert [path.name for path in (root / "images/l").iterdir() if path.name != "0"] == []
    assert list((root / "images/tmp").iterdir()) == []
    assert list((root / "images/blobs/incoming").iterdir()) == []
    large = {f"sha256:{p.name}" for p in (root / "images/blobs/sha256").iterdir() if p.stat().st_size > 9999}
    assert large == blobs


# Sharing


async def test_two_images_that_share_a_layer_fetch_and_unpack_it_once(
    store: ImageStore, registry: Paced, images: Images, unpacked: Counter[str]
) -> None:
    base, *_ = images.add("a", "base", "a")
    images.add("b", "base", "b")
    registry.shut(base)
    first = begin(store, registry, "a")
    await halfway(registry, base)
    second = begin(store, registry, "b")
    await asyncio.wait({second}, timeout=0.5)
    assert not second.done()
    registry.open()
    await ended(first, second)
    assert Counter(registry.blobs_asked())[base] == 1
    assert len(unpacked) == 3 and set(unpacked.values()) == {1}
    assert len(await store.list()) == 2


async def test_a_layer_that_is_here_already_is_not_asked_for(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    base, *_ = images.add("a", "base", "a")
    images.add("b", "base", "b")
    await store.pull(f"{registry.address}/a:v1")
    await store.pull(f"{registry.address}/b:v1")
    assert Counter(registry.blobs_asked())[base] == 1


async def test_a_pull_that_is_cancelled_leaves_its_transfer_to_who_needs_it(
    store: ImageStore, registry: Paced, images: Images, unpacked: Counter[str]
) -> None:
    base, *_ = images.add("a", "base", "a")
    images.add("b", "base", "b")
    registry.shut(base)
    first = begin(store, registry, "a")
    await halfway(registry, base)
    second = begin(store, registry, "b")
    _, own_layer = images.add("b", "base", "b")
    await halfway(registry, own_layer)
    first.cancel()
    await ended(first)  # at once: the base is still shut
    assert not second.done()
    registry.open()
    await ended(second)
    second.result()
    assert Counter(registry.blobs_asked())[base] == 1
    assert sum(unpacked.values()) == 2


async def test_a_pull_that_fails_leaves_its_transfer_to_who_needs_it(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    base, missing = images.add("a", "base", "a")
    _, own_layer = images.add("b", "base", "b")
    registry.shut(base, missing)
    first = begin(store, registry, "a")
    await halfway(registry, base, missing)
    second = begin(store, registry, "b")
    await halfway(registry, own_layer)
    registry.absent.add(missing)
    registry.break_off(missing)
    await ended(first)
    assert isinstance(first.exception(), PodwrightError)
    registry.open(base)
    await ended(second)
    second.result()
    assert Counter(registry.blobs_asked())[base] == 1


async def test_who_waited_for_a_transfer_that_broke_tries_its_own(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    base, *_ = images.add("a", "base", "a")
    _, own_layer = images.add("b", "base", "b")
    registry.shut(base)
    first = begin(store, registry, "a")
    await halfway(registry, base)
    second = begin(store, registry, "b")
    await halfway(registry, own_layer)
    registry.break_off(base)
    await ended(first, second)
    # One of them may have been told of the end of the other's, and one try of its own is enough for each.
    assert second.exception() is None
    assert Counter(registry.blobs_asked())[base] >= 2


async def test_identical_pulls_share_one_transfer_and_the_last_one_ends_it(
    store: ImageStore, registry: Paced, images: Images, tmp_path: Path
) -> None:
    below, above = images.add("a", "base", "a")
    registry.shut(above)
    callers = [begin(store, registry, "a") for _ in range(3)]
    await halfway(registry, above)
    await layer_comes_to(store, own.LAYER_DONE, callers[0])
    for caller in callers[:2]:
        caller.cancel()
    await ended(*callers[:2])
    assert registry.under_way[above] == 1
    callers[2].cancel()
    await ended(callers[2])
    async with asyncio.timeout(PATIENCE):
        await registry.quiet()
    assert Counter(registry.blobs_asked())[above] == 1
    await assert_only_blobs(store, tmp_path, {below})


async def test_a_caller_who_stays_gets_the_image_though_the_first_one_left(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    _, above = images.add("a", "base", "a")
    registry.shut(above)
    first, second = begin(store, registry, "a"), begin(store, registry, "a")
    await halfway(registry, above)
    first.cancel()
    await ended(first)
    registry.open()
    await ended(second)
    second.result()
    assert len(registry.blobs_asked()) == 3


# Breaking off


@pytest.mark.parametrize("stage", ["resolving", "configuration", "layer", "unpacking", "recording"])
async def test_a_pull_that_is_cancelled_leaves_complete_blobs_alone(
    stage: str,
    store: ImageStore,
    registry: Paced,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below, above = images.add("a", "base", "a")
    there = asyncio.Event()
    complete: set[str] = set()

    async def hang(*_: object) -> None:
        there.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as hanging:
        if stage == "resolving":
            hanging.setattr("podwright.images.remote.Remote.served", hang)
        elif stage == "configuration":
            hanging.setattr("podwright.images.pulling._Pull._configuration", hang)
        elif stage == "layer":
            registry.shut(above)
            complete = {below}
        elif stage == "unpacking":
            hanging.setattr(Layers, "ensure", hang)
            complete = {below, above}
        else:
            hanging.setattr(Layers, "sync", hang)
            complete = {below, above}
        pull = begin(store, registry, "a")
        if stage == "layer":
            await halfway(registry, above)
            await layer_comes_to(store, own.LAYER_DONE, pull)
        else:
            async with asyncio.timeout(PATIENCE):
                await there.wait()
            if stage == "unpacking":
                await layer_comes_to(store, own.LAYER_DOWNLOADED, pull)
        pull.cancel()
        await ended(pull)
        assert pull.cancelled()
    await assert_only_blobs(store, tmp_path, complete)
    registry.open()
    before = len(registry.blobs_asked())
    await store.pull(f"{registry.address}/a:v1")
    assert complete.isdisjoint(registry.blobs_asked()[before:])


async def layer_comes_to(store: ImageStore, stage: own.LayerStage, pull: asyncio.Task[object]) -> None:
    """Wait until some layer has come to `stage`."""
    async with asyncio.timeout(PATIENCE):
        async for state in store.watch_pulls():
            if any(layer.stage == stage for layer in state.layers):
                return
            assert not pull.done()


async def test_what_a_failed_pull_has_fetched_is_used_by_the_next_store(
    open_store: OpenStore, registry: Paced, images: Images
) -> None:
    store = await open_store()
    below, above = images.add("a", "base", "a")
    registry.absent.add(above)
    pull = begin(store, registry, "a")
    await ended(pull)
    assert isinstance(pull.exception(), PodwrightError)
    store = await open_store()
    registry.absent.clear()
    await store.pull(f"{registry.address}/a:v1")
    counts = Counter(registry.blobs_asked())
    assert counts[above] == 2 and counts[below] <= 2
    store = await open_store()
    assert len(await store.list()) == 1


async def test_a_layer_that_is_no_archive_is_named_with_its_image(
    open_store: OpenStore, registry: Paced, tmp_path: Path
) -> None:
    """By the digest of its blob, too, which is what the progress shows."""
    garbage = b"no archive" * 100
    write_layout(tmp_path / "bad", [garbage])
    (blob,) = registry.add(tmp_path / "bad", "bad")
    store = await open_store()
    with pytest.raises(PodwrightError) as caught:
        await store.pull(f"{registry.address}/bad:v1")
    words = f"cannot unpack the layer {digest(garbage)}: "
    assert str(caught.value).startswith(f"{registry.address}/bad:v1: blob {blob}: {words}")
    assert blob != digest(garbage)


# Time


async def test_a_registry_that_stalls_in_a_layer_is_given_up(
    open_store: OpenStore, registry: Paced, images: Images, tmp_path: Path
) -> None:
    store = await open_store(progress_timeout=2.0)
    below, above = images.add("a", "base", "a")
    registry.shut(above)
    pull = begin(store, registry, "a")
    await ended(pull)
    error = pull.exception()
    assert isinstance(error, RegistryUnavailable)
    first, *tried = str(error).splitlines()
    assert first.endswith("/a:v1: no byte has come for 2 s (images.progress_timeout)")
    assert tried and tried[-1].startswith(f"  tried http://{registry.address}: ")
    assert all(line.endswith(" (credentials: none)") for line in tried)
    async with asyncio.timeout(PATIENCE):
        await registry.quiet()
    await assert_only_blobs(store, tmp_path, {below})
    # What it has left is not told as fetched by the next one.
    registry.open(above)
    watch = store.watch_pulls()
    assert await store.pull(f"{registry.address}/a:v1")
    async with asyncio.timeout(PATIENCE):
        async for state in watch:
            if state.stage == own.PULL_DONE:
                break
    assert [layer.stage for layer in state.layers] == [own.LAYER_PRESENT, own.LAYER_DONE]


async def test_a_slow_registry_is_not_given_up(
    open_store: OpenStore, registry: Paced, images: Images
) -> None:
    store = await open_store(progress_timeout=1.5)
    images.add("a", "a")
    registry.trickle = (10_000, 0.15)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await store.pull(f"{registry.address}/a:v1")
    assert loop.time() - began > 2 * 1.5


async def test_who_waits_for_a_turn_is_not_given_up(
    open_store: OpenStore, registry: Paced, images: Images
) -> None:
    """It is not its registry that keeps it waiting."""
    store = await open_store(progress_timeout=0.6, max_concurrent_downloads=1)
    images.add("slow", "slow")
    images.add("other", "other")
    registry.trickle = (10_000, 0.15)
    first = begin(store, registry, "slow")
    async with asyncio.timeout(PATIENCE):
        async for state in store.watch_pulls():
            if any(layer.stage == own.LAYER_DOWNLOADING for layer in state.layers):
                break
    second = begin(store, registry, "other")
    await ended(first, second)
    assert first.exception() is None and second.exception() is None
    assert registry.most == 1


# Turns


async def test_no_more_layers_come_at_once_than_configured_and_pulls_take_turns(
    open_store: OpenStore, registry: Paced, images: Images
) -> None:
    store = await open_store(max_concurrent_downloads=2)
    first = images.add("first", *(f"layer {number}" for number in range(5)))
    (other,) = images.add("second", "other")
    registry.shut(*first, other)
    large = begin(store, registry, "first")
    await halfway(registry, first[0], first[1])
    small = begin(store, registry, "second")
    await asyncio.wait({small}, timeout=0.5)
    assert not registry.halfway[first[2]].is_set() and not registry.halfway[other].is_set()
    registry.open(first[0])
    # It came last, but has none yet.
    await halfway(registry, other)
    assert not registry.halfway[first[2]].is_set()
    registry.open()
    await ended(large, small)
    assert large.exception() is None and small.exception() is None
    assert registry.most == 2


async def test_layers_are_unpacked_while_others_still_come(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    *_, above = images.add("a", "base", "middle", "top")
    registry.shut(above)
    pull = begin(store, registry, "a")
    await halfway(registry, above)
    async with asyncio.timeout(PATIENCE):
        async for state in store.watch_pulls():
            if [layer.stage for layer in state.layers][:2] == [own.LAYER_DONE, own.LAYER_DONE]:
                assert state.layers[2].stage in (own.LAYER_WAITING, own.LAYER_DOWNLOADING)
                break
    registry.open()
    await ended(pull)
    assert pull.exception() is None


# Known images, kept layers


async def test_a_tag_whose_digest_is_here_costs_one_request(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    images.add("a", "base")
    await store.pull(f"{registry.address}/a:v1")
    registry.asked.clear()
    assert (await store.pull(f"{registry.address}/a:v1")).repo_tags
    assert registry.asked == ["/v2/a/manifests/v1"]


async def test_packed_layers_are_dropped_when_they_are_not_to_be_kept(
    open_store: OpenStore, registry: Paced, images: Images, tmp_path: Path
) -> None:
    layers = set(images.add("a", "base", "a"))
    for discard, kept in ((False, layers), (True, set[str]())):
        store = await open_store(discard_unpacked_layers=discard)
        image = await store.pull(f"{registry.address}/a:v1")
        await store.close()
        there = {f"sha256:{path.name}" for path in (tmp_path / "images/blobs/sha256").iterdir()}
        assert there & layers == kept
        assert all(any(path.iterdir()) for path in store.lower_dirs(image.id))
        store = await open_store(discard_unpacked_layers=discard)
        await store.remove(image.id)


# Progress


async def test_progress_adds_up(store: ImageStore, registry: Paced, images: Images) -> None:
    base, *_ = images.add("a", "base", "a")
    _, top = images.add("b", "base", "b")
    await store.pull(f"{registry.address}/a:v1")
    registry.trickle = (20_000, 0.05)
    watch = store.watch_pulls(f"{registry.address}/b:v1")
    pull = begin(store, registry, "b")
    states = []
    async with asyncio.timeout(PATIENCE):
        async for state in watch:
            states.append(state)
            if state.stage in (own.PULL_DONE, own.PULL_FAILED):
                break
    await ended(pull)
    assert {state.id for state in states} == {states[0].id}
    last = states[-1]
    image = await store.find(f"{registry.address}/b:v1")
    assert image is not None and (last.stage, last.image_ref) == (own.PULL_DONE, image.id)
    assert [(layer.digest, layer.stage) for layer in last.layers] == [
        (base, own.LAYER_PRESENT),
        (top, own.LAYER_DONE),
    ]
    assert [layer.bytes for layer in last.layers] == [registry.size(base), registry.size(top)]
    assert [layer.total for layer in last.layers] == [registry.size(base), registry.size(top)]
    counts = [state.layers[1].bytes for state in states if state.layers]
    assert counts == sorted(counts) and len(set(counts)) > 3
    assert 0 < counts[len(counts) // 2] < registry.size(top)


async def test_a_pull_that_fails_tells_its_watchers_why(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    watch = store.watch_pulls()
    with pytest.raises(NotFound):
        await store.pull(f"{registry.address}/absent:v1")
    async for state in watch:
        if state.stage == own.PULL_FAILED:
            assert "404" in state.error or "unknown" in state.error
            break
        assert state.stage == own.PULL_RESOLVING


# What else may be in the way


async def test_a_full_disk_is_told_and_leaves_nothing_half_done(
    open_store: OpenStore, registry: Paced, images: Images, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    with small_disk(tmp_path / "images", 300_000):
        store = await open_store()
        images.add("a", "base", "a")
        with pytest.raises(ResourceExhausted, match="No space left on device"):
            await store.pull(f"{registry.address}/a:v1")
        await store.close()
        assert store.orphans(set()) == []
        assert list((tmp_path / "images/tmp").iterdir()) == []
        assert list((tmp_path / "images/blobs/incoming").iterdir()) == []


async def test_a_layer_that_is_there_twice_is_fetched_once_and_told_twice(
    store: ImageStore, registry: Paced, images: Images
) -> None:
    images.add("a", "base")
    await store.pull(f"{registry.address}/a:v1")
    base, twice, *_ = images.add("b", "base", "twice", "base", "twice")
    watch = store.watch_pulls(f"{registry.address}/b:v1")
    await store.pull(f"{registry.address}/b:v1")
    async with asyncio.timeout(PATIENCE):
        async for state in watch:
            if state.stage == own.PULL_DONE:
                break
    assert [layer.stage for layer in state.layers] == [own.LAYER_PRESENT, own.LAYER_DONE] * 2
    assert all(layer.bytes == layer.total for layer in state.layers)
    counts = Counter(registry.blobs_asked())
    assert counts[base] == counts[twice] == 1


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    mounts.tmpfs(place, size=size, mode=0o700)
    try:
        yield
    finally:
        mounts.unmount(place)
