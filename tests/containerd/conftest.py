"""A containerd of the tests' own, real, the engine's connection with it, and the engine on it; after each
test nothing of the engine may be left, in containerd or on the host."""

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

from podwright.config import CniConfig, Config
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.engine import ContainerdEngine
from podwright.engines.oci.engine import OciEngine
from podwright.hooks.running import Hooks
from podwright.linux import cgroups, mounts
from tests.containerd.daemon import BUSYBOX, NAMESPACE, Daemon, running
from tests.oci.bench import Bench, processes_with


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


def engine_config(daemon: Daemon, directory: Path, handler: str = "crun") -> Config:
    """A configuration that shares nothing with others but the containerd."""
    name = secrets.token_hex(4)
    conf = directory / "net.d"
    conf.mkdir()
    subnet = f"10.{100 + os.getpid() % 50}.{secrets.randbelow(250)}.0/24"
    ipam = {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": [[{"subnet": subnet}]]}
    bridge = {"type": "bridge", "bridge": f"pwc{name}", "isGateway": True, "ipam": ipam}
    network = {"cniVersion": "1.0.0", "name": f"test-{name}", "plugins": [bridge]}
    (conf / "10-test.conflist").write_text(json.dumps(network))
    return Config(
        engine="containerd",
        root=str(directory / "root"),
        run=str(directory / "run"),
        listen=str(directory / "podwright.sock"),
        default_handler=handler,
        handlers=daemon.handlers,
        cgroup_parent=f"/pwc-{name}",
        cni=CniConfig(conf_dir=str(conf)),
        containerd=daemon.config,
    )


def left_over(daemon: Daemon, config: Config) -> list[str]:
    """What is still there of a podwright, after its bridge has been taken away."""
    for conf in Path(config.cni.conf_dir).iterdir():
        bridge = json.loads(conf.read_text())["plugins"][0]["bridge"]
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True)
    directory = Path(config.cni.conf_dir).parent
    ours = [each.id for each in daemon.containers(f'labels."podwright.io/root"=="{config.root}"')]
    snapshots = daemon.ctr("snapshots", "list").splitlines()[1:]
    tasks = daemon.ctr("tasks", "list").splitlines()[1:]
    return [
        *(f"record {each}" for each in ours),
        *(f"record in the sandbox store {each}" for each in daemon.sandboxes()),
        # Those of images are named after what they hold.
        *(f"snapshot {each}" for each in snapshots if not each.startswith("sha256:")),
        *(f"task {each}" for each in tasks),
        *(f"shim {each}" for each in daemon.shims()),
        *(f"mount {each.target}" for each in mounts.mounts_below(directory)),
        *(f"mount {each.target}" for each in mounts.mounts_below(daemon.state)),
        *(f"address {each.name}" for each in directory.glob("ipam/*/10.*")),
        *(f"cgroup {each}" for each in cgroups.directories(config.cgroup_parent)),
        *(f"process {each}" for path in (config.root, config.run) for each in processes_with(path)),
        *(f"file {each}" for kind in ("sandboxes", "containers") for each in directory.glob(f"r*/{kind}/*")),
    ]


@pytest.fixture
def containerd_config(daemon: Daemon, tmp_path: Path) -> Iterator[Config]:
    config = engine_config(daemon, tmp_path)
    yield config
    assert not left_over(daemon, config)


@asynccontextmanager
async def containerd_opened(config: Config, hooks: Hooks | None = None) -> AsyncIterator[Bench]:
    """An engine driven as core drives it; at the end what was made with it is removed."""
    engine = ContainerdEngine(config, hooks)
    await engine.open()
    try:
        image = await engine.images.find(BUSYBOX)
        assert image is not None, f"{BUSYBOX} is not in {NAMESPACE}"
        # The oci engine's bench asks nothing of it that every engine has not.
        bench = Bench(cast(OciEngine, engine), config, image)
        following = asyncio.ensure_future(bench.collect_exits())
        try:
            yield bench
        finally:
            try:
                await bench.clear()
            finally:
                following.cancel()
                await asyncio.wait([following])
    finally:
        await engine.close()


@pytest.fixture
async def containerd_bench(containerd_config: Config) -> AsyncIterator[Bench]:
    async with containerd_opened(containerd_config) as made:
        yield made
