"""Exec and attach over SPDY and WebSocket, as clients of every protocol version speak them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.streaming.stand_in import Node, node, remote


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Node]:
    async with node(tmp_path) as made:
        yield made


# SPDY


async def test_output_and_success(served: Node) -> None:
    client = await remote(await served.exec_url("echo", "hello", "there"), "stdout")
    assert await client.all("stdout") == b"hello there\n"
    assert await client.status() == {"metadata": {}, "status": "Success"}
    assert await client.session.closed is None


async def test_an_exit_code_is_a_document(served: Node) -> None:
    client = await remote(await served.exec_url("exit", "3"), "stdout")
    assert await client.status() == {
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: 3",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
