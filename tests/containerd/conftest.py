"""A containerd of the tests' own, real, and the engine's connection with it; after the tests nothing of it
may be left on the host."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from podwright.engines.containerd.api import Containerd
from tests.containerd.daemon import Daemon, running


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One containerd for all tests of this process, with BUSYBOX; stopped, and nothing left, at the end."""
    if os.geteuid() != 0:
        pytest.skip("a containerd needs root")
    with running(tmp_path_factory.mktemp("containerd")) as started:
        yield started


@pytest.fixture
async def api(daemon: Daemon) -> AsyncIterator[Containerd]:
    """The engine's own connection with it, which has looked."""
    containerd = Containerd(daemon.config)
    containerd.open()
    try:
        await containerd.look()
        yield containerd
    finally:
        await containerd.close()
