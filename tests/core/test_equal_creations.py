"""Equal requests to create a container, of which one still looks for its image when another is done."""

from __future__ import annotations

import asyncio

import pytest

from podwright.engines.base import Image
from podwright.errors import AlreadyExists
from podwright.wire import cri_pb2 as cri
from tests.core.node import IMAGE, Node


async def test_who_looked_for_the_image_for_longer_gets_the_same_container(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await node.sandbox()
    images = node.runtime._ground.engine.images
    find, waiting, gate = images.find, asyncio.Event(), asyncio.Event()

    async def slow(reference: str) -> Image | None:
        monkeypatch.setattr(images, "find", find)
        waiting.set()
        await gate.wait()
        return await find(reference)

    def request(working_dir: str = "") -> cri.CreateContainerRequest:
        config = cri.ContainerConfig(image=cri.ImageSpec(image=IMAGE), working_dir=working_dir)
        config.metadata.name = "main"
        return cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=config)

    for late, other in ((request(), False), (request(working_dir="/tmp"), True)):
        waiting.clear()
        gate.clear()
        monkeypatch.setattr(images, "find", slow)
        first = asyncio.create_task(node.runtime.create_container(late))
        await waiting.wait()
        id = (await node.runtime.create_container(request())).container_id
        gate.set()
        if other:
            with pytest.raises(AlreadyExists, match=id):
                await first
        else:
            assert (await first).container_id == id
        with pytest.raises(AlreadyExists, match=id):
            await node.runtime.create_container(request())
        await node.runtime.remove_container(cri.RemoveContainerRequest(container_id=id))
