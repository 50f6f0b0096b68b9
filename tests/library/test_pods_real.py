"""The library's Pod on real containers, seen from inside: in this process, at a socket, on containerd."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import podwright
from bench.daemons import Containerd
from bench.stage import IMAGE as BENCH_IMAGE
from bench.stage import open_stage
from podwright.config import Config
from podwright.kube.node import observe
from podwright.kube.static.keeper import Keeper
from podwright.library import Runtime
from podwright.linux import mounts
from podwright.server.calls import Gate
from podwright.server.serve import listening
from tests.library.test_library import IMAGE, runtime

pytestmark = pytest.mark.root
__all__ = ["runtime"]

SCRIPT = """
trap 'echo bye > /dev/termination-log; exit 0' TERM
touch /tmp/up
echo "$GREETING from $POD_NAME"
sleep 600 & wait
"""


def tree(image: str) -> dict[str, Any]:
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SCRIPT],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "greeting"}}},
        ],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "words", "mountPath": "/words"}],
        "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
    }
    init = {
        "name": "first",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "cat /words/greeting"],
        "volumeMounts": [{"name": "words", "mountPath": "/words"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "whole"},
        "spec": {
            "initContainers": [init],
            "containers": [main],
            "volumes": [{"name": "words", "configMap": {"name": "words"}}],
        },
    }


WORDS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "words"},
    "data": {"greeting": "hello"},
}


async def lives(runtime: Runtime, image: str) -> None:
    """A pod comes up, is looked at from inside, and goes."""
    async with asyncio.timeout(90), await runtime.pod(tree(image), objects=[WORDS]) as pod:
        await pod.ready(60)
        main = pod.containers["main"]
        told = await main.exec(["sh", "-c", "hostname; cat /words/greeting; echo; hostname -i"])
        assert told.stdout.decode().split() == ["whole", "hello", *pod.ips[:1]]
        async for line in main.logs(follow=True):
            assert line.text == b"hello from whole"
            break
        assert [line.text async for line in pod.containers["first"].logs()] == [b"hello"]
        statuses = pod.status.containerStatuses or []
        assert [one.ready for one in statuses] == [True] and pod.status.qosClass == "Burstable"
        outcome = await pod.delete()
        (ended,) = [one for one in outcome.containers if one.name == "main"]
        assert (ended.exit_code, ended.message.strip()) == (0, "bye")
    ours = [one for one in await runtime.sandboxes() if one.metadata.name == "whole"]
    assert ours == [] and not list((Path(runtime.config.root) / "pods").glob("*"))


async def test_a_pod_in_this_process_and_at_a_servers_socket(runtime: Runtime, tmp_path: Path) -> None:
    await lives(runtime, IMAGE)
    gate = Gate()
    async with listening(str(tmp_path / "cri.sock"), gate):
        gate.open(runtime.cri)
        async with podwright.open(tmp_path / "client", endpoint=f"unix://{tmp_path}/cri.sock") as remote:
            await lives(remote, IMAGE)


async def is_kept(runtime: Runtime, config: Config, endpoint: str, directory: Path) -> None:
    """A file in a directory is a pod there, until it goes."""

    async def wait(ready: list[str], other_than: str = "") -> None:
        while True:
            pods = keeper.pods
            there = [one.name for one in pods if one.ready and one.uid != other_than]
            if there == ready and len(pods) == len(ready):
                return
            await asyncio.sleep(0.05)

    directory.mkdir()
    made = tree(BENCH_IMAGE)
    (directory / "whole.json").write_bytes(msgspec.json.encode(made))
    (directory / "words.json").write_bytes(msgspec.json.encode(WORDS))
    node = await observe(runtime.cri, config)
    async with asyncio.timeout(90), Keeper(runtime.cri, directory, config, endpoint=endpoint) as keeper:
        await wait([f"whole-{node.name}"])
        first = keeper.pods[0].uid
    made["metadata"]["labels"] = {"edited": "yes"}
    (directory / "whole.json").write_bytes(msgspec.json.encode(made))
    async with asyncio.timeout(90), Keeper(runtime.cri, directory, config, endpoint=endpoint) as keeper:
        await wait([f"whole-{node.name}"], other_than=first)
        (directory / "whole.json").unlink()
        await wait([])
    assert await runtime.sandboxes() == []


@asynccontextmanager
async def containerd() -> AsyncIterator[Containerd]:
    with open_stage() as stage:
        daemon = await asyncio.to_thread(Containerd, stage)
        try:
            yield daemon
        finally:
            await asyncio.to_thread(daemon.close)


@pytest.mark.skipif(shutil.which("containerd") is None, reason="no containerd")
async def test_a_pod_on_containerd(tmp_path: Path) -> None:
    async with containerd() as daemon:
        config = msgspec.structs.replace(
            Config(root=str(tmp_path / "client"), run=str(tmp_path / "run")),
            node=msgspec.structs.replace(Config().node, cgroup_root=f"/{daemon.stage.bridge}"),
        )
        async with podwright.open(endpoint=f"unix://{daemon.socket}", config=config) as remote:
            await lives(remote, BENCH_IMAGE)
            await is_kept(remote, config, f"unix://{daemon.socket}", tmp_path / "manifests")
    assert mounts.mounts_below(tmp_path) == []
