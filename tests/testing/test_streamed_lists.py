"""The streams of lists: what the lists answer, in messages of a bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podwright import errors
from podwright.api import Cri
from podwright.client import connect
from podwright.core import streams
from podwright.engines.fake.values import Span, seconds
from podwright.testing import FakeNode, Fault
from podwright.wire import cri_pb2 as cri
from tests.testing import requests

PODS = 45


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as node:
        for number in range(PODS):
            await requests.run_container(node.cri, await requests.run_pod(node.cri, f"pod-{number}"))
        yield node


@pytest.fixture
async def remote(node: FakeNode, tmp_path: Path) -> AsyncIterator[Cri]:
    async with node.serve(tmp_path / "s"), connect(str(tmp_path / "s"), timeout=30) as client:
        yield client


async def parts(stream: AsyncIterator[Any]) -> list[Any]:
    return [part async for part in stream]


async def test_streams_have_what_the_lists_have(node: FakeNode, remote: Cri) -> None:
    pods = (await node.cri.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    containers = (await node.cri.list_containers(cri.ListContainersRequest())).containers
    images = (await node.cri.list_images(cri.ListImagesRequest())).images
    assert (len(pods), len(containers), len(images)) == (PODS, PODS, 1)
    for client in (node.cri, remote):
        heard = await parts(client.stream_pod_sandboxes(cri.StreamPodSandboxesRequest()))
        assert [each for part in heard for each in part.pod_sandboxes] == list(pods)
        heard = await parts(client.stream_containers(cri.StreamContainersRequest()))
        assert [each for part in heard for each in part.containers] == list(containers)
        heard = await parts(client.stream_images(cri.StreamImagesRequest()))
        assert [each for part in heard for each in part.images] == list(images)
        heard = await parts(client.stream_container_stats(cri.StreamContainerStatsRequest()))
        assert [each.attributes.id for part in heard for each in part.container_stats] == [
            each.id for each in containers
        ]
        assert len(heard) > 0
        heard = await parts(client.stream_pod_sandbox_stats(cri.StreamPodSandboxStatsRequest()))
        assert [each.attributes.id for part in heard for each in part.pod_sandbox_stats] == [
            each.id for each in pods
        ]
        assert len(heard) > 1


async def test_streams_are_filtered(node: FakeNode, remote: Cri) -> None:
    [wanted] = (
        await node.cri.list_containers(
            cri.ListContainersRequest(filter=cri.ContainerFilter(id=(await ids(node))[7]))
        )
    ).containers
    filter = cri.ContainerFilter(id=wanted.id)
    [part] = await parts(remote.stream_containers(cri.StreamContainersRequest(filter=filter)))
    assert list(part.containers) == [wanted]
    pod = cri.PodSandboxFilter(id=wanted.pod_sandbox_id)
    [sandboxes] = await parts(remote.stream_pod_sandboxes(cri.StreamPodSandboxesRequest(filter=pod)))
    assert [each.id for each in sandboxes.pod_sandboxes] == [wanted.pod_sandbox_id]
    measured = cri.ContainerStatsFilter(pod_sandbox_id=wanted.pod_sandbox_id)
    [stats] = await parts(remote.stream_container_stats(cri.StreamContainerStatsRequest(filter=measured)))
    assert [each.attributes.id for each in stats.container_stats] == [wanted.id]
    none = cri.ContainerFilter(id="0" * 64)
    assert await parts(remote.stream_containers(cri.StreamContainersRequest(filter=none))) == []
    absent = cri.ImageFilter(image=cri.ImageSpec(image="absent"))
    assert await parts(remote.stream_images(cri.StreamImagesRequest(filter=absent))) == []


async def ids(node: FakeNode) -> list[str]:
    listed = await node.cri.list_containers(cri.ListContainersRequest())
    return [each.id for each in listed.containers]


async def test_messages_are_bounded_whatever_is_asked_for(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHUNK", 2000)
    labels = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
    heard = await parts(node.cri.stream_containers(cri.StreamContainersRequest(filter=labels)))
    assert len(heard) > 3
    largest = max(each.ByteSize() for part in heard for each in part.containers)
    assert all(2000 <= part.ByteSize() <= 2000 + largest + 5 for part in heard[:-1])
    assert sum(len(part.containers) for part in heard) == PODS


async def test_a_stream_shows_what_there_was_at_its_begin(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHUNK", 2000)
    before = await ids(node)
    running = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
    stream = node.cri.stream_containers(cri.StreamContainersRequest(filter=running))
    first = await anext(stream)
    await node.cri.remove_container(cri.RemoveContainerRequest(container_id=before[-1]))
    rest = await parts(stream)
    assert [each.id for part in (first, *rest) for each in part.containers] == before


async def test_a_stream_is_recorded_and_struck(node: FakeNode, remote: Cri) -> None:
    node.inject_error("StreamContainers", errors.ResourceExhausted("no room"))
    with pytest.raises(errors.ResourceExhausted, match="no room"):
        await parts(remote.stream_containers(cri.StreamContainersRequest()))
    await parts(remote.stream_containers(cri.StreamContainersRequest()))
    await node.calls.wait("StreamContainers", times=2)
    assert [each.outcome for each in node.calls if each.rpc == "StreamContainers"] == [
        "ResourceExhausted: no room",
        "ok",
    ]
    node.world.faults.add(Fault(on="StreamContainers", latency=Span(seconds(3600))))
    stream = remote.stream_containers(cri.StreamContainersRequest())
    waiting = asyncio.ensure_future(anext(stream))
    await requests.until(lambda: len([each for each in node.calls if each.rpc == "StreamContainers"]) == 3)
    await node.crash()
    with pytest.raises(errors.Unavailable):
        await waiting
