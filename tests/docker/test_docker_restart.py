"""Docker Engines that go away and come back, and networks of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from podwright.config import Config, DockerConfig
from podwright.engines.base import Presence
from podwright.engines.docker.engine import DockerEngine
from podwright.errors import Unavailable
from podwright.linux import mounts
from tests.docker.conftest import configured, docker_opened, left_over
from tests.docker.daemon import Daemon, load_busybox, start
from tests.oci.bench import POD

pytestmark = pytest.mark.root


class Restarted:
    """A dockerd that a test stops and starts again on the same files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemon: Daemon = start(directory)
        load_busybox(self.daemon)

    def stop(self) -> None:
        self.daemon.stop()

    def start(self) -> None:
        self.daemon = start(self.directory)


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Restarted]:
    made = Restarted(tmp_path / "docker")
    try:
        yield made
    finally:
        made.stop()
        mounts.unmount_below(tmp_path / "docker")


async def test_after_dockers_restart_the_ends_are_seen_and_networks_given_back(
    restarted: Restarted, tmp_path: Path
) -> None:
    config = configured(restarted.daemon, tmp_path)
    async with docker_opened(config) as bench:
        sandbox = await bench.sandbox(network=POD)
        container = await bench.container(
            sandbox, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"
        )
        following = asyncio.ensure_future(anext(aiter(bench.engine.exits())))
        # Its stop ends every container, and tells of it as long as it can.
        await asyncio.to_thread(restarted.stop)
        with pytest.raises(Unavailable, match=r"no Docker Engine answers at unix://"):
            await bench.engine.sandbox_alive(sandbox)
        await asyncio.wait([following])
        following.exception()
        await asyncio.to_thread(restarted.start)
        assert not await bench.engine.sandbox_alive(sandbox)
        seen = await bench.engine.observe_container(container)
        assert seen.presence is Presence.EXITED
        assert seen.exit is not None
        assert seen.exit.code == 9
        network = bench.engine.network
        assert network.cached_ids() == {sandbox.id}
        await bench.engine.stop_sandbox(sandbox)
        assert network.cached_ids() == set()
    assert not left_over(restarted.daemon, config)


async def test_a_pod_on_a_network_of_dockers_own(daemon: Daemon, tmp_path: Path) -> None:
    name = f"pw-{tmp_path.name[:20]}"
    wanted = {"Name": name, "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.249.7.0/28"}]}}
    made = json.loads(daemon.request("POST", "/networks/create", json.dumps(wanted).encode()))
    try:
        config = configured(daemon, tmp_path, network=f"docker:{name}")
        async with docker_opened(config) as bench:
            assert not (await bench.engine.status()).network_error
            sandbox = await bench.sandbox(network=POD)
            (address,) = sandbox.facts.ips
            assert address.startswith("10.249.7.")
            assert address in await bench.run(sandbox, "cat /proc/net/fib_trie")
        assert not left_over(daemon, config)
    finally:
        daemon.request("DELETE", f"/networks/{made['Id']}")


async def test_a_network_that_docker_does_not_have_is_told(daemon: Daemon, tmp_path: Path) -> None:
    config = configured(daemon, tmp_path, network="docker:nosuch")
    async with AsyncExitStack() as stack:
        engine = DockerEngine(config)
        await engine.open()
        stack.push_async_callback(engine.close)
        assert "'nosuch'" in (await engine.status()).network_error


async def test_without_a_docker_engine_nothing_opens(tmp_path: Path) -> None:
    endpoint = f"unix://{tmp_path}/no.sock"
    config = Config(root=str(tmp_path), docker=DockerConfig(endpoint=endpoint))
    with pytest.raises(Unavailable, match=f"no Docker Engine answers at {endpoint}"):
        await DockerEngine(config).open()
