"""A started node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.core.node import Node


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    await node.start()
    yield node
    await node.stop()
