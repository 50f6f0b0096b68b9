"""Processes and connections of the library: on the embedded engine, at a server, and the example."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import podwright
from podwright.api import Cri
from podwright.errors import FailedPrecondition, PodwrightError, Unavailable
from podwright.library import Container, Sandbox
from podwright.wire import cri_pb2 as cri
from tests.streaming.stand_in import Node, node

REPOSITORY = Path(__file__).parent.parent.parent
IMAGE = "localhost/podwright/busybox:latest"
LIMIT = 60

Made = tuple[Node, Container, Sandbox]


@pytest.fixture(params=["here", "far"])
async def made(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Node, Container, Sandbox]]:
    async with node(tmp_path) as each:
        names = ("exec", "attach", "port_forward", "container_status")
        far = SimpleNamespace(**{name: getattr(each.runtime, name) for name in names})
        runtime = cast(Cri, each.runtime if request.param == "here" else far)
        container = Container(runtime, each.container, "main", tmp_path / "log")
        yield each, container, Sandbox(runtime, each.pod, cri.PodSandboxConfig(), None)


async def test_a_process_is_talked_with(made: Made) -> None:
    _, container, _ = made
    async with asyncio.timeout(LIMIT), container.process(["cat"]) as process:
        await process.stdin.write(b"one\ntwo")
        assert await process.stdout.readline() == b"one\n"
        await process.stdin.write(b"\nthree\nlast")
        assert await process.stdout.read(2) == b"tw"
        await process.stdin.close()
        assert [line async for line in process.stdout] == [b"o\n", b"three\n", b"last"]
        assert (await process.stderr.read(), await process.wait()) == (b"", 0)
        with pytest.raises(BrokenPipeError):
            await process.stdin.write(b"x")


async def test_exit_codes_and_errors(made: Made) -> None:
    _, container, _ = made
    async with asyncio.timeout(LIMIT):
        async with container.process(["exit", "9"]) as process:
            assert await process.wait() == 9
        async with container.process(["refuse"]) as process:
            with pytest.raises(FailedPrecondition, match="the runtime says no"):
                await process.stdout.read()
            with pytest.raises(FailedPrecondition, match="the runtime says no"):
                await process.wait()


async def test_leaving_hangs_up(made: Made) -> None:
    each, container, _ = made
    async with asyncio.timeout(LIMIT):
        async with container.process(["hang"]):
            await each.engine.started.wait()
        await each.engine.hung_up.wait()


async def test_a_lost_server_is_raised_where_output_is_read(made: Made) -> None:
    each, container, _ = made
    if hasattr(container._cri, "exec_streams"):
        pytest.skip("there is no server")
    async with asyncio.timeout(LIMIT), container.process(["hang"]) as process:
        await each.engine.started.wait()
        each.server.abort()
        with pytest.raises(Unavailable):
            await process.stdout.readline()


async def test_a_terminal_is_resized(made: Made) -> None:
    _, container, _ = made
    async with asyncio.timeout(LIMIT):
        async with container.process(["sizes", "2"], tty=True, size=(100, 30)) as process:
            assert await process.stdout.read(100) == b"100x30 "
            await process.resize(80, 25)
            assert await process.stdout.read() == b"80x25 "
            assert await process.wait() == 0


async def test_a_connection_to_a_port(made: Made) -> None:
    _, _, sandbox = made
    async with asyncio.timeout(LIMIT):
        async with sandbox.port_forward(7) as (reader, writer):
            await writer.write(b"echo")
            assert await reader.read(10) == b"echo"
            await writer.close()
            assert await reader.read() == b""
        async with sandbox.port_forward(81) as (reader, _):
            with pytest.raises(PodwrightError, match="nothing listens"):
                await reader.read()


@asynccontextmanager
async def own_house(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    maker = await asyncio.create_subprocess_exec(
        sys.executable, REPOSITORY / "tools" / "busybox_rootfs.py", tmp_path / "rootfs"
    )
    assert await maker.wait() == 0
    async with podwright.open(tmp_path / "root", tmp_path / "run") as runtime:
        await runtime.import_root(tmp_path / "rootfs", IMAGE, {"Cmd": ["sh"]})
    try:
        yield {"PODWRIGHT_ROOT": str(tmp_path / "root"), "PODWRIGHT_RUN": str(tmp_path / "run")}
    finally:
        async with podwright.open(tmp_path / "root", tmp_path / "run") as runtime:
            left = await runtime.sandboxes()
            for sandbox in left:
                await runtime.cri.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
                await runtime.cri.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
    assert left == []


@pytest.mark.root
async def test_the_example_works(tmp_path: Path) -> None:
    async with own_house(tmp_path) as environment:
        example = await asyncio.create_subprocess_exec(
            sys.executable,
            REPOSITORY / "examples" / "processes.py",
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await asyncio.wait_for(example.communicate(), LIMIT)
        finally:
            if example.returncode is None:
                example.kill()
                await example.wait()
    assert out.decode().splitlines() == [
        "got one",
        "got two",
        "exit code: 3",
        "terminal: 43 132",
        "attached",
        "container: 4",
        "port 8080: a page",
    ]
    assert example.returncode == 0
