"""A started node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

pytest.register_assert_rewrite("tests.core.invariants", "tests.core.driving")

from tests.core import workloads  # noqa: E402
from tests.core.client import Client  # noqa: E402
from tests.core.node import Node  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def archive(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def make(location: str) -> None:
        node = Node()
        await node.start()
        client, ids = Client(node), workloads.Ids()
        await workloads.a_running_container(client, ids)
        await client.checkpoint(ids["main"], location)
        await client.remove_pod(ids["pod"])
        await node.stop()

    path = tmp_path_factory.mktemp("checkpoint") / "archive.tar"
    asyncio.run(make(str(path)))
    workloads.ARCHIVE[:] = [path]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    await node.start()
    yield node
    await node.stop()
