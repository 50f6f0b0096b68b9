"""examples/cri_client.py against a server without and with a network."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import podwright
from podwright.linux import mounts

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parent.parent.parent
IMAGE = "localhost/podwright/busybox:latest"


@pytest.mark.parametrize("bridge", [False, True])
async def test_a_client_of_stubs_takes_a_pod_through_its_life(tmp_path: Path, bridge: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    config = tmp_path / "config.toml"
    (tmp_path / "net.d").mkdir()
    config.write_text(
        f'root = "{tmp_path}/root"\nrun = "{tmp_path}/run"\nlisten = "{tmp_path}/cri.sock"\n'
        f'[cni]\nconf_dir = "{tmp_path}/net.d"\ndefault_bridge = {str(bridge).lower()}\n'
    )
    program = (str(Path(sys.executable).with_name("podwright")), "--config", str(config))
    await _done(sys.executable, REPOSITORY / "tools" / "busybox_rootfs.py", tmp_path / "rootfs")
    await _done(*program, "image", "import", tmp_path / "rootfs", IMAGE)
    server = await asyncio.create_subprocess_exec(
        *program, "serve", "--log-level", "error", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        async with asyncio.timeout(30):
            assert b" serves " in await server.stdout.readline()
        said = await _done(
            sys.executable, REPOSITORY / "examples" / "cri_client.py", tmp_path / "cri.sock", IMAGE
        )
    finally:
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await server.wait()
    async with podwright.open(config=config):
        pass  # the server keeps its bridge; who opens the state next sees that no pod is left on it
    name = "life" if bridge else os.uname().nodename
    assert ("(on the network of the host)" in said) is not bridge
    assert "exec: hello from an exec (exit code 0)\n" in said
    assert "exited with 3 (Error)\n" in said
    assert f"log: hello from {name}\nlog: asked to stop\nleft: 0\n" in said
    assert mounts.mounts_below(tmp_path) == []


async def _done(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
