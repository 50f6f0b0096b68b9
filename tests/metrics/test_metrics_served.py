"""`podwright serve` with and without the endpoint for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podwright.cli.serve import FakeOptions, _serve_fake
from podwright.config import Config, MetricsConfig
from podwright.errors import FailedPrecondition
from podwright.house import open_house
from podwright.server.serve import serve


def config(tmp_path: Path, address: str) -> Config:
    root = tmp_path / "state"
    return Config(
        root=str(root), run=str(root / "run"), engine="fake", metrics=MetricsConfig(address=address)
    )


@asynccontextmanager
async def serving(tmp_path: Path, address: str) -> AsyncIterator[None]:
    ready = asyncio.Event()
    house = open_house(config(tmp_path, address))
    server = asyncio.ensure_future(serve(str(tmp_path / "cri.sock"), house, ready=ready.set))
    waiting = asyncio.ensure_future(ready.wait())
    async with asyncio.timeout(60):
        await asyncio.wait([server, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        if server.done():
            server.result()
        yield
    finally:
        waiting.cancel()
        server.cancel()
        await asyncio.wait([server])


async def test_server_answers_where_it_is_configured(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    async with serving(tmp_path, f"unix://{path}"), asyncio.timeout(60):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ") and b'podwright_sandboxes{state="ready"} 0.0' in answer
    assert b"content-type: text/plain; version=" in answer.lower()


async def test_server_that_cannot_have_its_endpoint_does_not_start(tmp_path: Path) -> None:
    async with serving(tmp_path / "first", f"unix://{tmp_path}/metrics.sock"):
        with pytest.raises(FailedPrecondition, match=r"metrics\.address"):
            async with serving(tmp_path / "second", f"unix://{tmp_path}/metrics.sock"):
                raise AssertionError("it serves")


async def test_server_without_it_does_not_load_the_library(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from podwright.config import Config\n"
        "from podwright.house import open_house\n"
        "from podwright.server.serve import serve\n"
        "def ready():\n"
        "    assert not [name for name in sys.modules if name.startswith('prometheus_client')]\n"
        "    print('served')\n"
        "    asyncio.get_running_loop().call_soon(task.cancel)\n"
        "async def main():\n"
        "    global task\n"
        "    root = sys.argv[1]\n"
        "    house = open_house(Config(root=root, run=root + '/run', engine='fake'))\n"
        "    task = asyncio.ensure_future(serve(root + '/cri.sock', house, ready=ready))\n"
        "    await asyncio.wait([task])\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert out == b"served\n"


def test_fake_node_says_that_it_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _serve_fake(config(tmp_path, "127.0.0.1:0"), FakeOptions(), "served").close()
    assert "metrics.address" in caplog.text
