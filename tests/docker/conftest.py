"""A Docker Engine of the tests' own, real, and podwright's engine on it; after each test nothing of it may be
left, in Docker or on the host."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from podwright.config import CniConfig, Config, DockerConfig
from podwright.engines.docker.engine import DockerEngine
from podwright.engines.oci.engine import OciEngine
from podwright.linux import cgroups
from tests.docker.daemon import BUSYBOX, Daemon, running
from tests.oci.bench import Bench


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One dockerd for all tests of this process; stopped, and nothing of it left, at the end."""
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine needs root")
    with running(tmp_path_factory.mktemp("docker")) as started:
        yield started


def configured(daemon: Daemon, directory: Path, **docker: str) -> Config:
    """A configuration that shares nothing with others but the Docker Engine."""
    name = secrets.token_hex(4)
    conf = directory / "net.d"
    conf.mkdir()
    subnet = f"10.{150 + os.getpid() % 50}.{secrets.randbelow(250)}.0/24"
    ipam = {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": [[{"subnet": subnet}]]}
    bridge = {"type": "bridge", "bridge": f"pwd{name}", "isGateway": True, "ipam": ipam}
    network = {"cniVersion": "1.0.0", "name": f"test-{name}", "plugins": [bridge]}
    (conf / "10-test.conflist").write_text(json.dumps(network))
    return Config(
        engine="docker",
        root=str(directory / "root"),
        run=str(directory / "run"),
        listen=str(directory / "podwright.sock"),
        cgroup_parent=f"/pwd-{name}",
        cni=CniConfig(conf_dir=str(conf)),
        # On hosts without CAP_SYS_RESOURCE only this one can start what asks for it.
        docker=DockerConfig(endpoint=daemon.endpoint, default_runtime="wrapped", **docker),  # type: ignore[arg-type]
    )


def left_over(daemon: Daemon, config: Config) -> list[str]:
    """What is still there of a podwright, after its bridge has been taken away."""
    for conf in Path(config.cni.conf_dir).iterdir():
        bridge = json.loads(conf.read_text())["plugins"][0]["bridge"]
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True)
    labels = [each.get("Labels") or {} for each in daemon.containers()]
    found = [f"container {each}" for each in labels if config.root in json.dumps(each)]
    leases = Path(config.cni.conf_dir).parent / "ipam"
    found += [f"address {each.name}" for each in leases.glob("*/10.*")]
    return [*found, *(f"cgroup {each}" for each in cgroups.directories(config.cgroup_parent))]


@pytest.fixture
def docker_config(daemon: Daemon, tmp_path: Path) -> Iterator[Config]:
    config = configured(daemon, tmp_path)
    yield config
    assert not left_over(daemon, config)


@asynccontextmanager
async def docker_opened(config: Config) -> AsyncIterator[Bench]:
    """An engine driven as core drives it; at the end what was made with it is removed."""
    engine = DockerEngine(config)
    await engine.open()
    image = await engine.images.find(BUSYBOX)
    assert image is not None
    # The oci engine's bench asks nothing of it that every engine has not.
    bench = Bench(cast(OciEngine, engine), config, image)
    following = asyncio.ensure_future(bench.collect_exits())
    try:
        yield bench
        for container in bench.containers.values():
            await engine.remove_container(container)
        for sandbox in bench.sandboxes.values():
            await engine.remove_sandbox(sandbox)
    finally:
        following.cancel()
        await asyncio.wait([following])
        await engine.close()


@pytest.fixture
async def docker_bench(docker_config: Config) -> AsyncIterator[Bench]:
    async with docker_opened(docker_config) as made:
        yield made
