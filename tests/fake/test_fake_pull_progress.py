"""How far the pulls of a fake node are: in this process, at a socket, through a crash, and in the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.client import connect
from podwright.errors import NotFound, Unavailable
from podwright.library import Runtime
from podwright.pulls import pulling, watch
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

NAME = "docker.io/library/app:1"


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode({"images": {"size": 1_000_000, "rate": 100_000}}) as started:
        yield started


def request(image: str = "app:1") -> cri.PullImageRequest:
    return cri.PullImageRequest(image=cri.ImageSpec(image=image))


async def test_the_bytes_come_as_time_passes(node: FakeNode) -> None:
    states: list[own.PullProgress] = []

    async def follow() -> None:
        async for state in watch(node.cri):
            states.append(state)

    following = asyncio.create_task(follow())
    pull = asyncio.create_task(node.cri.pull_image(request()))
    await node.advance(5)
    (half,) = states[-1:]
    assert (half.image, half.stage) == (NAME, own.PULL_TRANSFERRING)
    assert sum(layer.total for layer in half.layers) == 1_000_000
    assert sum(layer.bytes for layer in half.layers) == 500_000
    await node.advance(5)
    assert (states[-1].stage, states[-1].image_ref) == (own.PULL_DONE, (await pull).image_ref)
    assert all(layer.bytes == layer.total and layer.stage == own.LAYER_DONE for layer in states[-1].layers)
    following.cancel()
    await asyncio.wait({following})


async def test_a_watcher_names_an_image_as_it_likes(node: FakeNode) -> None:
    states = watch(node.cri, "docker.io/app:1")
    pulls = [asyncio.create_task(node.cri.pull_image(request(name))) for name in ("other", "app:1")]
    await node.advance(20)
    await asyncio.gather(*pulls)
    assert (await anext(states)).image == NAME


async def test_a_crash_ends_the_streams(node: FakeNode) -> None:
    states = watch(node.cri)
    waiting = asyncio.ensure_future(anext(states))
    await asyncio.sleep(0)
    await node.crash()
    with pytest.raises(Unavailable):
        await waiting


async def test_a_pull_is_followed_at_a_socket(node: FakeNode, tmp_path: Path) -> None:
    async with node.serve(tmp_path / "s"), connect(str(tmp_path / "s"), timeout=30) as client:
        states = []
        async for state in pulling(client, request()):
            states.append(state)
            await node.advance(1)
        assert states[-1].stage == own.PULL_DONE and states[-1].image_ref
        counts = [sum(layer.bytes for layer in state.layers) for state in states]
        assert counts == sorted(counts) and counts[-1] == 1_000_000 and len(set(counts)) > 3

        # It is here already: nothing is transferred, and there is an end all the same.
        (end,) = [state async for state in pulling(client, request()) if state.stage == own.PULL_DONE]
        assert end.image == NAME and end.image_ref == states[-1].image_ref


async def test_the_library_follows_a_pull_and_leaving_ends_it(node: FakeNode) -> None:
    runtime = Runtime(node.cri, node.config)
    steps = runtime.pulling("app:1")
    state = await anext(steps)
    assert state.image == NAME
    await steps.aclose()
    assert [pull.outcome for pull in node.world.pulls] == ["cancelled"]
    assert await runtime.image("app:1") is None


async def test_the_library_raises_what_a_pull_raises(node: FakeNode) -> None:
    node.inject_error("PullImage", NotFound("manifest unknown"))
    with pytest.raises(NotFound, match="manifest unknown"):
        async for _ in Runtime(node.cri, node.config).pulling("app:1"):
            pass


async def test_all_pulls_can_be_watched(node: FakeNode) -> None:
    states = Runtime(node.cri, node.config).pulls()
    tasks = [asyncio.create_task(node.cri.pull_image(request(name))) for name in ("a", "b")]
    await node.advance(20)
    await asyncio.gather(*tasks)
    ended = set()
    async for state in states:
        if state.stage == own.PULL_DONE:
            ended.add(state.image.rpartition("/")[2])
        if len(ended) == 2:
            break
    assert ended == {"a:latest", "b:latest"}
