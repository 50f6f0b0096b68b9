"""A state database that has no room for more rows."""

from __future__ import annotations

import pytest

from podwright.errors import ResourceExhausted
from podwright.wire import cri_pb2 as cri
from tests.core import invariants
from tests.core.client import Client
from tests.core.node import Node


async def test_full_disk_refuses_new_objects_and_lets_old_ones_go(node: Node) -> None:
    client = Client(node)
    pod = await client.pod()
    container = await client.create(pod)
    node.database.execute("PRAGMA max_page_count = 1")  # as many as there are
    pods = [pod]
    with pytest.raises(ResourceExhausted, match="state database"):
        for number in range(1000):
            pods.append(await client.pod(f"{number}-" + "long" * 200))
    await invariants.check(node, client.account, trouble=True, disk=False)
    assert sorted(await node.sandboxes()) == sorted(pods)
    await client.start(container)
    assert (await node.status(container)).state == cri.CONTAINER_RUNNING
    await client.stop(container)
    await invariants.take_apart(node, client)
    await client.pod()
