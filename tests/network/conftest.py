"""A network of its own for tests of real plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from podwright.linux import mounts, syscalls
from podwright.linux.namespaces import raise_loopback
from podwright.linux.threads import run_in_fresh_thread

OwnNetwork = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def own_network() -> OwnNetwork:
    """Runs a coroutine in a thread with new network and mount namespaces; the kernel clears up."""

    def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def body() -> None:
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.mount("sysfs", "/sys", "sysfs")
            assert mounts.read_table()[-1].target == "/sys"
            raise_loopback()
            asyncio.run(test())

        run_in_fresh_thread(body)

    return run
