"""`podwright serve --manifests` on real containers: what it keeps outlives it, also when it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml

from podwright.api import Cri
from podwright.client import connect
from podwright.errors import NotFound, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.kube.conftest import IMAGE, Command

pytestmark = pytest.mark.root
SEED = int(os.environ.get("PODWRIGHT_SEED", "0")) or random.randrange(1 << 30)


ROUNDS = int(os.environ.get("PODWRIGHT_ROUNDS", "3"))


def pod(name: str, word: str) -> str:
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", f"trap 'exit 0' TERM; echo {word} > /tmp/word; sleep 600 & wait"],
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"hostNetwork": True, "containers": [container]},
        }
    )


class Node:
    def __init__(self, command: Command, directory: Path) -> None:
        self.command, self.directory = command, directory
        self.server: Process | None = None

    async def serve(self, *options: str) -> None:
        self.server = await self.command.start("serve", "--manifests", self.directory, *options)
        assert self.server.stdout is not None
        async with asyncio.timeout(60):
            told = await self.server.stdout.readline()
        assert b"keeps the pods of" in told, told

    async def end(self, number: signal.Signals) -> None:
        assert self.server is not None
        self.server.send_signal(number)
        async with asyncio.timeout(60):
            _, said = await self.server.communicate()
        assert b"Traceback" not in said, said.decode()
        self.server = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Cri]:
        async with connect(f"unix://{self.command.run_directory}/podwright.sock") as client:
            yield client

    async def words(self, client: Cri) -> dict[str, list[str]]:
        """By pod, what its running containers have written: one each, whoever counts."""
        found: dict[str, list[str]] = {}
        filter = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
        for one in (await client.list_containers(cri.ListContainersRequest(filter=filter))).containers:
            request = cri.ExecSyncRequest(container_id=one.id, cmd=["cat", "/tmp/word"], timeout=10)
            with suppress(NotFound):
                name = one.labels["io.kubernetes.pod.name"].rpartition("-")[0]
                answer = await client.exec_sync(request)
                found.setdefault(name, []).append(answer.stdout.decode().strip())
        return found

    async def until(self, wanted: dict[str, list[str]]) -> None:
        found: object = None
        try:
            async with asyncio.timeout(60), self.client() as client:
                while True:
                    with suppress(PodwrightError):
                        found = await self.words(client)
                        assert all(len(one) == 1 for one in found.values()), found
                        if found == wanted:
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{found} is not {wanted} (PODWRIGHT_SEED={SEED})") from None


@pytest.fixture
async def node(podwright: Command, tmp_path: Path) -> AsyncIterator[Node]:
    directory = tmp_path / "manifests"
    directory.mkdir()
    made = Node(podwright, directory)
    try:
        yield made
    finally:
        if made.server is not None:
            made.server.kill()
            await made.server.communicate()


async def test_static_pods_outlive_a_server_that_leaves_or_is_killed(node: Node) -> None:
    (node.directory / "a.yaml").write_text(pod("a", "one"))
    await node.serve()
    await node.until({"a": ["one"]})
    async with node.client() as client:
        before = (await client.list_containers(cri.ListContainersRequest())).containers
    await node.end(signal.SIGTERM)
    await node.serve()
    await node.until({"a": ["one"]})
    async with node.client() as client:
        after = (await client.list_containers(cri.ListContainersRequest())).containers
    assert [one.id for one in after] == [one.id for one in before]
    await node.end(signal.SIGKILL)
    (node.directory / "a.yaml").unlink()
    (node.directory / "b.yaml").write_text(pod("b", "two"))
    await node.serve()
    await node.until({"b": ["two"]})
    (node.directory / "b.yaml").unlink()
    await empty(node)


async def test_a_server_killed_at_random_moments_loses_nothing_and_makes_nothing_twice(node: Node) -> None:
    chance = random.Random(SEED)
    wanted: dict[str, list[str]] = {}
    for round in range(ROUNDS):
        await node.serve()
        name, word = chance.choice(["a", "b"]), f"w{round}"
        file = node.directory / f"{name}.yaml"
        if wanted.get(name) and chance.random() < 0.4:
            file.unlink()
            del wanted[name]
        else:
            draft = node.directory / ".draft"
            draft.write_text(pod(name, word))
            draft.rename(file)
            wanted[name] = [word]
        await asyncio.sleep(chance.random() * 1.2)
        await node.end(signal.SIGKILL)
    await node.serve()
    await node.until(wanted)
    for file in node.directory.iterdir():
        file.unlink()
    await empty(node)


async def empty(node: Node) -> None:
    """Nothing is left, and what is noted of it goes last."""
    notes = node.command.root / "static" / "pods"
    async with asyncio.timeout(60):
        while list(notes.iterdir()):  # noqa: ASYNC110 - it is another process that acts
            await asyncio.sleep(0.05)
    async with node.client() as client:
        assert not (await client.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    assert node.command.left() == []
    await node.end(signal.SIGTERM)
