"""`podwright pull` on the embedded engine: killed and tried again, and followed at a server's socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podwright.client import connect
from podwright.pulls import pulling
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own
from tests.images.conftest import Registry, registry
from tests.images.layouts import TarMaker, write_layout
from tests.images.paced import Paced, paced
from tests.images.test_pulling_images import Images

__all__ = ["registry"]

pytestmark = pytest.mark.root

PROGRAM = (sys.executable, "-c", "from podwright.cli.main import main; main()")
PATIENCE = 60.0


@pytest.fixture
async def slow_registry() -> AsyncIterator[Paced]:
    async with paced() as started:
        yield started


@asynccontextmanager
async def podwright(tmp_path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    places = ("--root", str(tmp_path / "root"), "--run", str(tmp_path / "run"))
    child = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *places,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def line(stream: asyncio.StreamReader | None, part: str) -> None:
    """Wait for a line with `part` in it."""
    assert stream is not None
    async with asyncio.timeout(PATIENCE):
        while part not in (found := (await stream.readline()).decode()):
            assert found, f"it ended before it said {part!r}"


async def test_a_pull_that_was_killed_goes_on_with_what_is_complete(
    tmp_path: Path, slow_registry: Paced
) -> None:
    images = Images(tmp_path / "layouts", slow_registry)
    below, middle, above = images.add("a", "base", "middle", "top")
    slow_registry.shut(above)
    name = f"{slow_registry.address}/a:v1"
    async with podwright(tmp_path, "pull", name) as killed:
        async with asyncio.timeout(PATIENCE):
            await slow_registry.halfway[above].wait()
        await line(killed.stderr, f"layer {middle[7:19]} done")
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
    async with asyncio.timeout(PATIENCE):
        await slow_registry.quiet()  # its skopeo has gone, too
    slow_registry.open()
    async with podwright(tmp_path, "pull", name) as child:
        out, err = await asyncio.wait_for(child.communicate(), PATIENCE)
        assert child.returncode == 0, err.decode()
        assert out.startswith(b"sha256:")
    counts = Counter(slow_registry.blobs_asked())
    assert (counts[below], counts[middle], counts[above]) == (1, 1, 2)
    root = tmp_path / "root/images"
    assert list((root / "tmp").iterdir()) == [] and list((root / "blobs/incoming").iterdir()) == []


async def test_ctrl_c_leaves_no_process_and_no_half_blob(tmp_path: Path, slow_registry: Paced) -> None:
    images = Images(tmp_path / "layouts", slow_registry)
    (layer,) = images.add("a", "base")
    slow_registry.shut(layer)
    async with podwright(tmp_path, "pull", f"{slow_registry.address}/a:v1") as child:
        async with asyncio.timeout(PATIENCE):
            await slow_registry.halfway[layer].wait()
        child.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(child.wait(), PATIENCE) == 130
        assert child.stderr is not None
        assert b"Traceback" not in await child.stderr.read()
    async with asyncio.timeout(PATIENCE):
        await slow_registry.quiet()
    root = tmp_path / "root/images"
    assert list((root / "tmp").iterdir()) == [] and list((root / "blobs/incoming").iterdir()) == []


async def test_a_pull_is_followed_at_the_socket(tmp_path: Path, registry: Registry) -> None:
    tars = [TarMaker().add(f"f{number}", os.urandom(3_000_000)).done() for number in range(3)]
    image_id = write_layout(tmp_path / "layout", tars)
    registry.push(tmp_path / "layout", "followed:v1")
    name = f"{registry.address}/followed:v1"
    request = cri.PullImageRequest(image=cri.ImageSpec(image=name))
    async with podwright(tmp_path, "serve") as server:
        await line(server.stdout, "serves")
        async with connect(str(tmp_path / "run/podwright.sock"), timeout=PATIENCE) as client:
            states = [state async for state in pulling(client, request)]
            last = states[-1]
            assert (last.image, last.stage, last.image_ref) == (name, own.PULL_DONE, image_id)
            assert [layer.stage for layer in last.layers] == [own.LAYER_DONE] * 3
            assert all(layer.bytes == layer.total > 2_900_000 for layer in last.layers)
            (again,) = [state async for state in pulling(client, request) if state.stage == own.PULL_DONE]
            assert again.image_ref == image_id
        server.terminate()
        assert await asyncio.wait_for(server.wait(), PATIENCE) == 0
