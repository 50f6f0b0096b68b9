"""The image store of a fake node: names, transfers, credentials, and images that containers use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.clock import VirtualClock
from podwright.engines.base import Credentials, Image
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.images import REMEMBERED, FakeImages, ImageStore
from podwright.engines.fake.registry import ImagesScript, offered
from podwright.engines.fake.scenario import apply, parse
from podwright.engines.fake.world import World
from podwright.errors import (
    InvalidArgument,
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    ResourceExhausted,
    Unavailable,
)
from podwright.images.references import parse as parse_reference
from tests.fake.containers import Node

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Images:
    """An image store on a clock that runs as far as it must."""

    def __init__(self, **script: Any) -> None:
        self.clock = VirtualClock()
        self.world = World(self.clock, parse({"seed": 1, "images": script}))
        self.engine = FakeEngine(self.world)

    @property
    def service(self) -> FakeImages:
        return self.engine.images

    async def pull(self, reference: str, credentials: Credentials | None = None) -> Image:
        return await self.soon(self.service.pull(reference, credentials))

    async def soon(self, call: Coroutine[Any, Any, Image]) -> Image:
        task = asyncio.create_task(call)
        while not task.done():
            await self.clock.advance(0.5)
        return await task

    async def names(self) -> set[str]:
        return {
            name for image in await self.service.list() for name in (*image.repo_tags, *image.repo_digests)
        }

    def change(self, **script: Any) -> None:
        self.world.scenario = apply(self.world.scenario, {"images": script})


async def test_any_image_can_be_pulled_and_found_by_everything_it_is_called() -> None:
    images = Images()
    assert await images.service.find("nginx") is None
    image = await images.pull("nginx")
    digest = image.repo_digests[0].partition("@")[2]
    assert DIGEST.fullmatch(image.id) and DIGEST.fullmatch(digest) and digest != image.id
    assert image.repo_tags == ("docker.io/library/nginx:latest",)
    assert image.repo_digests == (f"docker.io/library/nginx@{digest}",)
    assert image.size > 0 and image.config["Cmd"] == ["sleep", "inf"]
    for reference in [
        *("nginx", "nginx:latest", "docker.io/nginx", "index.docker.io/library/nginx:latest"),
        *(f"nginx@{digest}", f"nginx:1.2@{digest}", image.id, image.id[7:], image.id[:15], image.id[7:12]),
    ]:
        assert await images.service.find(reference) is image, reference
    for reference in ["nginx:1", "other", "sha256:" + "0" * 64, "f" * 63, digest]:
        assert await images.service.find(reference) is None, reference
    for reference in ["NGINX", "", "a b", "x:y:z"]:
        with pytest.raises(InvalidArgument):
            await images.service.find(reference)


async def test_an_image_is_the_same_on_every_node_by_tag_and_by_digest() -> None:
    one, other = Images(), Images(size="5MB")
    by_tag = await one.pull("quay.io/team/app:v1")
    [digest] = by_tag.repo_digests
    by_digest = await other.pull(digest)
    assert by_digest.id == by_tag.id and by_digest.repo_tags == () and by_digest.repo_digests == (digest,)
    assert (await one.pull("quay.io/team/app:v2")).id != by_tag.id
    both = await other.pull("quay.io/team/app:v1")
    assert (both.id, both.repo_tags) == (by_tag.id, by_tag.repo_tags) and len(await other.service.list()) == 1


async def test_the_beginning_of_an_id_must_be_of_one_image_only() -> None:
    images = Images()
    found: dict[str, Image] = {}
    number = 0
    while True:
        image = await images.pull(f"app:{number}")
        number += 1
        if twin := found.get(image.id[7:10]):
            break
        found[image.id[7:10]] = image
    with pytest.raises(InvalidArgument, match=f"2 images have ids that begin with '{image.id[7:10]}'"):
        await images.service.find(image.id[7:10])
    assert await images.service.find(twin.id[:20]) is not await images.service.find(image.id[:20])
    await images.pull(image.id[7:10])
    named = await images.service.find(image.id[7:10])
    assert named and named.repo_tags == (f"docker.io/library/{image.id[7:10]}:latest",), "a name comes first"


async def test_refusing_unknown_images_leaves_those_listed() -> None:
    images = Images(unknown="refuse", items=[{"reference": "app:1", "aliases": ["app:stable"]}])
    with pytest.raises(NotFound, match=r"docker\.io/library/other:latest: manifest unknown"):
        await images.pull("other")
    image = await images.pull("app:stable")
    assert (await images.pull("app:1")).id == image.id
    assert (await images.pull(image.repo_digests[0])).id == image.id
    for elsewhere in ["app@sha256:" + "0" * 64, image.repo_digests[0].replace("app", "other")]:
        with pytest.raises(NotFound):
            await images.pull(elsewhere)
    with pytest.raises(NotFound, match="no image can be read there"):
        await images.pull("oci:/images/app")


async def test_a_local_image_can_be_pulled_where_unknown_ones_can() -> None:
    images = Images()
    image = await images.pull("oci-archive:/tmp/My App.tar")
    assert image.repo_tags == ("localhost/my-app:latest",) and image.repo_digests == ()
    assert await images.service.find("localhost/my-app") is image


async def test_an_item_says_what_its_image_is() -> None:
    config = {"User": "65534", "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=b"]}
    images = Images(
        items=[{"reference": "web", "size": "3MiB", "pinned": True, "config": config, "present": True}]
    )
    [image] = await images.service.list()
    assert (image.size, image.pinned, image.config) == (3 << 20, True, config)
    assert (image.user, image.stop_signal) == ("65534", "SIGQUIT")
    assert len(image.repo_tags) == len(image.repo_digests) == 1
    assert images.world.pulls == []


async def test_a_pattern_speaks_for_many_images() -> None:
    images = Images(
        items=[{"reference": "*/team/special:*", "size": 1}, {"reference": "*/team/*", "size": 2}]
    )
    for reference, size in [("q.io/team/special", 1), ("q.io/team/a:1", 2), ("q.io/other/a", 70_000_000)]:
        assert (await images.pull(reference)).size == size
    assert (await images.pull("q.io/team/a")).id != (await images.pull("q.io/team/b")).id


async def test_a_tag_that_moves_leaves_the_old_image_untagged() -> None:
    images = Images(items=[{"reference": "app", "aliases": ["app:1"]}])
    old = await images.pull("app")
    await images.pull("app:1")
    images.change(items=[{"reference": "app", "build": "tuesday", "aliases": ["app:1"]}])
    assert await images.service.find("app") == await images.service.find(old.id), "nothing was pulled yet"
    new = await images.pull("app")
    assert new.id != old.id
    assert await images.service.find("app") == new
    left = await images.service.find(old.id)
    assert left and left.repo_tags == ("docker.io/library/app:1",) and left.repo_digests == old.repo_digests
    await images.pull("app:1")
    left = await images.service.find(old.id)
    assert left and left.repo_tags == () and left in await images.service.list()


@pytest.mark.parametrize("by", ["tag", "other tag", "digest", "id", "prefix"])
async def test_removal_by_any_name_removes_all_names(by: str) -> None:
    images = Images(items=[{"reference": "app:1", "aliases": ["other/app:2"]}])
    image = await images.pull("app:1")
    await images.pull("other/app:2")
    await images.pull("bystander")
    called = {
        "tag": "app:1",
        "other tag": "other/app:2",
        "digest": image.repo_digests[0],
        "id": image.id,
        "prefix": image.id[:20],
    }
    await images.service.remove(called[by])
    assert not any("app" in name for name in await images.names())
    assert await images.service.find(image.id) is None and len(await images.service.list()) == 1
    await images.service.remove(called[by])
    with pytest.raises(InvalidArgument):
        await images.service.remove("A B")


async def test_a_removed_image_keeps_its_files_while_a_container_uses_it(tmp_path: Path) -> None:
    node = Node(tmp_path, {"images": {"size": 1000, "pull": "10s"}})
    service = node.engine.images

    async def pull() -> tuple[Image, float]:
        before = node.clock.monotonic()
        task = asyncio.create_task(service.pull("registry.test/app:1", None))
        while not task.done():
            await node.clock.advance(1)
        return await task, node.clock.monotonic() - before

    image, took = await pull()
    assert took >= 10
    case = await node.create("sleep", "inf", stored=image)
    await service.remove("registry.test/app:1")
    assert await service.find(image.id) is None and await service.list() == []
    assert (await service.filesystem_use()).used_bytes == 1000
    again, took = await pull()
    assert again == image and took <= 1, "its files are here, nothing has to be transferred"
    await service.remove(image.id)
    await node.engine.remove_container(case.container)
    _, took = await pull()
    assert took >= 10
    await service.remove(image.id)
    assert (await service.filesystem_use()).used_bytes == 0


async def test_the_disk_counts_each_image_once_and_can_be_full() -> None:
    images = Images(
        capacity=1000,
        mountpoint="/disk",
        items=[
            {"reference": "a", "aliases": ["b:1"], "size": 600},
            {"reference": "c", "size": 401},
            {"reference": "d", "size": 400},
        ],
    )
    await images.pull("a")
    await images.pull("b:1")
    use = await images.service.filesystem_use()
    assert (use.mountpoint, use.used_bytes) == ("/disk", 600) and use.inodes_used > 0
    with pytest.raises(
        ResourceExhausted, match=r"c:latest: no space left on device: 401 bytes on top of 600"
    ):
        await images.pull("c")
    assert await images.service.find("c") is None
    await images.pull("d")
    await images.pull("a")
    await images.service.remove("a")
    await images.pull("c")


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        ({}, 0),
        ({"pull": "3s"}, 3),
        ({"rate": "10MB/s", "size": "70MB"}, 7),
        ({"pull": "1s", "rate": "10MB/s", "items": [{"reference": "app", "size": "20MB"}]}, 3),
        ({"pull": "1s", "rate": "1B/s", "items": [{"reference": "app", "pull": "2s"}]}, 2),
    ],
)
async def test_a_transfer_takes_its_time(script: dict[str, Any], seconds: float) -> None:
    images = Images(**script)
    pulling = asyncio.create_task(images.service.pull("app", None))
    if seconds:
        await images.clock.advance(seconds - 0.01)
        assert not pulling.done() and await images.service.find("app") is None
    await images.clock.advance(0.01)
    assert pulling.done()
    again = asyncio.create_task(images.service.pull("app", None))
    await images.clock.advance(0)
    assert again.done(), "it is here already"
    assert [each.outcome for each in images.world.pulls] == ["pulled", "present"]


async def test_identical_pulls_share_a_transfer_until_the_last_has_gone() -> None:
    images = Images(pull="10s")
    secret = Credentials("user", "word")
    pulls = [
        asyncio.create_task(images.service.pull(reference, credentials))
        for reference, credentials in [("app", None), ("app:latest", None), ("app", secret)]
    ]
    await images.clock.advance(5)
    pulls[0].cancel()
    late = asyncio.create_task(images.service.pull("docker.io/app", None))
    await images.clock.advance(5)
    assert pulls[1].done() and pulls[2].done() and late.done()
    assert [each.outcome for each in images.world.pulls] == ["cancelled", "shared", "pulled", "shared"]
    other = [asyncio.create_task(images.service.pull("other", None)) for _ in range(2)]
    await images.clock.advance(5)
    for task in other:
        task.cancel()
    await images.clock.advance(60)
    assert await images.service.find("other") is None
    assert {each.outcome for each in images.world.pulls[-2:]} == {"cancelled"}


WRONG = "unauthorized: incorrect username or password"
NONE = "unauthorized: authentication required"
PRIVATE = {
    "reference": "q.io/private/*",
    "username": "user",
    "password": "word",
    "identity_token": "identity",
    "registry_token": "bearer",
}


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        (None, NONE),
        (Credentials(), WRONG),
        (Credentials("user", "wrong"), WRONG),
        (Credentials("other", "word"), WRONG),
        (Credentials(identity_token="wrong"), WRONG),
        (Credentials(registry_token="identity"), WRONG),
        (Credentials("user", "word"), ""),
        (Credentials(identity_token="identity"), ""),
        (Credentials(registry_token="bearer"), ""),
    ],
)
async def test_a_private_image_wants_its_credentials(credentials: Credentials | None, says: str) -> None:
    images = Images(items=[PRIVATE])
    pull = images.pull("q.io/private/app", credentials)
    if says:
        with pytest.raises(PodwrightError, match=says) as caught:
            await pull
        assert "word'" not in str(caught.value) and "check the pull secret" in str(caught.value)
        assert await images.service.list() == []
    else:
        await pull
        with pytest.raises(PodwrightError, match=NONE):
            await images.pull("q.io/private/app")
    [record, *_] = images.world.pulls
    assert (record.reference, record.credentials) == ("q.io/private/app", credentials)
    assert record.outcome == "pulled" if not says else says in record.outcome
    await images.pull("q.io/public/app", credentials)


async def test_an_error_comes_after_the_transfers_time_and_pulls_are_told_in_order() -> None:
    failure = {"code": "RegistryUnavailable", "message": "503"}
    images = Images(pull="4s", items=[{"reference": "broken", "error": failure}])
    pulling = asyncio.create_task(images.service.pull("broken", None))
    await images.clock.advance(3.9)
    assert not pulling.done()
    await images.clock.advance(0.2)
    with pytest.raises(RegistryUnavailable, match=r"^RegistryUnavailable: 503"):
        await pulling
    await images.pull("works")
    told = [(each.reference, each.outcome) for each in images.world.pulls]
    assert told == [("broken", "RegistryUnavailable: 503"), ("works", "pulled")]
    assert images.world.pulls[0].time < images.world.pulls[1].time


async def test_only_the_last_pulls_are_remembered() -> None:
    images = Images()
    await images.pull("app")
    images.world.pulls *= 2 * REMEMBERED
    await images.pull("last")
    assert len(images.world.pulls) == REMEMBERED + 1 and images.world.pulls[-1].reference == "last"


async def test_steps_of_images_can_fail() -> None:
    images = Images()
    away = {"code": "Unavailable", "message": "x"}
    steps = ["pull_image.resolve", "pull_image.record", "remove_image.names"]
    images.world.scenario = apply(
        images.world.scenario, {"faults": [{"on": step, "error": away, "count": 1} for step in steps]}
    )
    for _ in range(2):
        with pytest.raises(Unavailable):
            await images.pull("app")
        assert await images.service.list() == []
    await images.pull("app")
    with pytest.raises(Unavailable):
        await images.service.remove("app")
    assert len(await images.service.list()) == 1


async def test_the_store_outlives_the_engine_and_transfers_do_not() -> None:
    images = Images(pull="5s")
    kept = await images.pull("kept")
    pulling = asyncio.create_task(images.service.pull("lost", None))
    await images.clock.advance(2)
    former, images.engine = images.engine, FakeEngine(images.world)
    former.crash()
    await images.clock.advance(20)
    assert not pulling.done()
    assert await images.service.list() == [kept]
    former.bury()
    await asyncio.wait([pulling])
    assert pulling.cancelled()


async def test_a_change_places_images_that_are_to_be_present() -> None:
    images = Images(items=[{"reference": "a", "present": True}])
    await images.service.remove("a")
    images.world.scenario = apply(images.world.scenario, {"network_error": "x"})
    assert await images.names() == set()
    images.change(items=[{"reference": "a", "present": True}, {"reference": "b", "present": True}])
    assert {name for name in await images.names() if "@" not in name} == {
        "docker.io/library/a:latest",
        "docker.io/library/b:latest",
    }


async def test_what_stays_the_same_stays_one_object() -> None:
    images = Images()
    image = await images.pull("app")
    assert await images.pull("app") is image


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"reference": "A"}, "must be lower case"),
        ({"reference": "sha256:" + "0" * 64}, "is an image id"),
        ({"reference": "a*", "present": True}, "is a pattern: it has no aliases and is not present"),
        ({"reference": "a*", "aliases": ["b"]}, "is a pattern"),
        ({"reference": "a", "aliases": ["b@sha256:" + "0" * 64]}, "is a digest"),
        ({"reference": "a", "aliases": ["a:latest"]}, "a:latest is there twice"),
        ({"reference": "a", "size": 0}, "size: an image has at least one byte"),
        ({"reference": "a", "username": "u"}, "goes with a password"),
        ({"reference": "a", "config": {"Env": ["A"]}}, r"items\[0\]\.config\.Env: 'A' is not NAME=value"),
        ({"reference": "a", "config": {"StopSignal": "SIGX"}}, "StopSignal: "),
        ({"reference": "a", "config": {"env": []}}, "unknown field env"),
    ],
)
def test_what_is_no_image_is_refused(item: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse({"images": {"items": [item]}})


actions = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove"]),
        st.sampled_from(["a", "a:1", "b", "x.io/a"]),
        st.sampled_from(["", "two"]),
    ),
    max_size=12,
)


@given(actions, st.booleans())
def test_names_point_to_the_image_last_put_and_to_no_other(actions: Any, used: bool) -> None:
    held: set[str] = set()
    store = ImageStore(lambda: held)
    names: dict[str, str] = {}
    listed: set[str] = set()
    for action, reference, build in actions:
        if action == "put":
            script = parse({"images": {"items": [{"reference": reference, "build": build}]}}).images
            offer = offered(script, parse_reference(reference))
            store.put(offer)
            names.update(dict.fromkeys(offer.names, offer.id))
            listed.add(offer.id)
            if used:
                held.add(offer.id)
        elif (image := names.get(str(parse_reference(reference)))) is not None:
            store.remove(reference)
            names = {name: id for name, id in names.items() if id != image}
            listed.discard(image)
        else:
            store.remove(reference)
    assert {each.id for each in store.list()} == listed
    assert names == {
        name: image.id for image in store.list() for name in (*image.repo_tags, *image.repo_digests)
    }
    for name, id in names.items():
        found = store.find(name)
        assert found is not None and found.id == id
    assert store.use()[0] == 70_000_000 * len(listed | held)


def test_an_image_without_a_script_is_what_the_default_says() -> None:
    offer = offered(ImagesScript(), parse_reference("nginx"))
    assert (offer.size, offer.pinned, offer.script) == (70_000_000, False, None)
