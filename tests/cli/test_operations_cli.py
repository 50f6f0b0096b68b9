"""ps --operations, as a user meets it: at a server, at a run that has the state, and where nobody answers."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from podwright.api import Cri
from podwright.cli.door import Door
from podwright.cli.share import lasting
from podwright.config import Config
from podwright.core.runtime import Runtime
from podwright.house import open_house
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.wire import cri_pb2 as cri


async def podwright(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "podwright", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def started(runtime: Cri) -> str:
    """A container that ignores SIGTERM."""
    image = cri.ImageSpec(image="busybox:1")
    await runtime.pull_image(cri.PullImageRequest(image=image))
    pod = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="web", namespace="default", uid="1"))
    sandbox = await runtime.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod))
    container = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="app"),
        image=image,
        command=["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
    )
    request = cri.CreateContainerRequest(pod_sandbox_id=sandbox.pod_sandbox_id, config=container)
    id = (await runtime.create_container(request)).container_id
    await runtime.start_container(cri.StartContainerRequest(container_id=id))
    return id


async def until_stopping(runtime: Runtime) -> None:
    async with asyncio.timeout(30):
        while not any(call.name == "StopContainer" for call in runtime.in_flight.calls()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def stopping(runtime: Runtime) -> AsyncIterator[str]:
    """A stop's grace period runs: ten minutes."""
    id = await started(runtime)
    request = cri.StopContainerRequest(container_id=id, timeout=600)
    call = asyncio.ensure_future(runtime.stop_container(request))
    try:
        await until_stopping(runtime)
        yield id
    finally:
        await runtime.stop_container(cri.StopContainerRequest(container_id=id))
        await call


ROW = re.compile(r"StopContainer +web/app +grace period \(\d+s\) +\d+s +(?:599|[45]\d\d|600)s left")


async def test_server_tells_what_it_does(tmp_path: Path) -> None:
    root = tmp_path / "state"
    socket = str(tmp_path / "cri.sock")
    gate = Gate()
    async with open_house(Config(root=str(root), run=str(root / "run"), engine="fake")) as runtime:
        gate.open(runtime)
        async with listening(socket, gate), stopping(runtime) as id:
            status, out, errors = await podwright("--socket", socket, "ps", "--operations")
            assert (status, errors) == (0, "")
            heading, row = out.splitlines()
            assert heading.split() == ["OPERATION", "OBJECT", "STAGE", "AGE", "NOTE"]
            assert ROW.fullmatch(row), row
            _, out, _ = await podwright("--socket", socket, "ps", "--operations", "-o", "json")
            [operation] = json.loads(out)["operations"]
            assert (operation["rpc"], operation["containerId"]) == ("StopContainer", id)
            assert (operation["podNamespace"], operation["clientGone"]) == ("default", False)
        async with listening(socket, gate):
            _, out, _ = await podwright("--socket", socket, "ps", "--operations")
            assert len(out.splitlines()) == 1, "nothing goes on any more"


async def test_run_that_has_the_state_tells_what_it_does(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('engine = "fake"\n')
    options = ["--config", str(file), "--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]
    door = Door(file, str(tmp_path / "root"), str(tmp_path / "run"))
    async with lasting(door, None) as runtime, stopping(cast(Runtime, runtime)):
        async with asyncio.timeout(30):
            while door.neighbour() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        status, out, errors = await podwright(*options, "ps", "--operations")
        assert (status, errors) == (0, "")
        assert ROW.search(out), out


async def test_where_nobody_has_the_state_there_is_nobody_to_ask(tmp_path: Path) -> None:
    options = ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]
    status, out, errors = await podwright(*options, "ps", "--operations")
    assert (status, out) == (1, "") and "nobody to ask what goes on" in errors
    assert not (tmp_path / "root").exists(), "to look makes nothing"


async def test_server_of_another_runtime_cannot_tell(tmp_path: Path) -> None:
    class Other:
        async def version(self, request: cri.VersionRequest) -> cri.VersionResponse:
            return cri.VersionResponse(version="0.1.0", runtime_name="another")

    gate, socket = Gate(), str(tmp_path / "cri.sock")
    gate.open(cast(Cri, Other()))
    async with listening(socket, gate):
        status, _, errors = await podwright("--socket", socket, "ps", "--operations")
    assert status == 1 and "does not tell what goes on" in errors


@pytest.mark.parametrize("option", ["-q"])
async def test_operations_have_no_ids(option: str) -> None:
    status, _, errors = await podwright("ps", "--operations", option)
    assert status == 2 and "no ids" in errors
