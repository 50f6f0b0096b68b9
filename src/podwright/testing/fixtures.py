"""Fixtures for pytest: `pytest_plugins = ["podwright.testing.fixtures"]`.

`fake_node` and `fake_node_factory` are nodes in the test's own event loop and want pytest-asyncio, in either
mode; `fake_server` is a process of its own, for tests of any style.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from podwright.testing.node import FakeNode
from podwright.testing.process import FakeServer

ROOM = 60
"""Bytes of a directory's path that leave enough of the 107 which a socket's address may have."""


@pytest_asyncio.fixture
async def fake_node() -> AsyncIterator[FakeNode]:
    """A fake node with a virtual clock and no scenario."""
    async with FakeNode() as node:
        yield node


@pytest_asyncio.fixture
async def fake_node_factory() -> AsyncIterator[Callable[..., Any]]:
    """`await fake_node_factory(scenario, …)` makes a node as FakeNode's arguments say; it goes with the
    test."""
    async with AsyncExitStack() as stack:

        async def make(*arguments: Any, **options: Any) -> FakeNode:
            return await stack.enter_async_context(FakeNode(*arguments, **options))

        yield make


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A `podwright serve --engine fake` process with its own sockets, on the machine's clock."""
    # Of pytest's own directories many are longer than a socket's address may be, and of other ones some.
    roomy = len(tempfile.gettempdir()) < ROOM
    directory = Path(tempfile.mkdtemp(prefix="podwright-fake-", dir=None if roomy else "/tmp"))
    try:
        with FakeServer(directory) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)
