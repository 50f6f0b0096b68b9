"""Pods that a pause container holds, with a real containerd."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright.config import HandlerConfig
from podwright.engines.base import Sandbox, SandboxFacts
from podwright.engines.containerd.podsandbox import Materials
from podwright.engines.containerd.sandboxes import of_shim
from podwright.errors import FailedPrecondition, PodwrightError, Unavailable
from podwright.linux import cgroups, proc, trees
from podwright.wire import cri_pb2 as cri
from tests.containerd.daemon import Daemon
from tests.containerd.sandbox_bench import POD, SandboxBench, configured, one_image, opened, unmounted

pytestmark = pytest.mark.root


@pytest.fixture
async def bench(daemon: Daemon, tmp_path: Path) -> AsyncIterator[SandboxBench]:
    # The root of a user namespace has to reach it: pytest closes its own directories.
    run = Path(tempfile.mkdtemp(prefix="pwc-", dir="/run"))
    run.chmod(0o711)
    handlers = {**daemon.handlers, "broken": HandlerConfig(path="false")}
    config = configured(tmp_path, run, daemon.config, handlers, "runc")
    try:
        with unmounted(run):
            async with opened(config, await one_image(daemon)) as made:
                yield made
                await made.clear()
        assert not cgroups.directories(config.cgroup_parent)
    finally:
        trees.remove(run)


def uid_map(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/uid_map").read_text().split()


async def test_a_pause_container_in_the_pods_namespaces_holds_it(bench: SandboxBench) -> None:
    config = cri.PodSandboxConfig(labels={"app": "x", "long": "y" * 5000}, hostname="held")
    sandbox = await bench.create(bench.wanted(config=config))
    id, pid = sandbox.id, sandbox.facts.pid
    assert proc.alive(pid, sandbox.facts.own["started"])
    assert proc.ns_inode(f"/proc/{pid}/ns/ipc") == proc.ns_inode(bench.places.pin(id, "ipc"))
    assert proc.ns_inode(f"/proc/{pid}/ns/pid") != proc.ns_inode("/proc/self/ns/pid")
    assert proc.ns_inode(f"/proc/{pid}/ns/net") == proc.ns_inode("/proc/self/ns/net")
    assert await bench.sandboxes.alive(sandbox)
    assert not of_shim(sandbox)

    record = await bench.objects.get(id)
    assert record is not None
    assert record.labels["app"] == "x" and "long" not in record.labels
    assert record.labels["podwright.io/kind"] == "sandbox"
    assert (record.snapshotter, record.snapshot_key, record.sandbox) == ("overlayfs", id, "")

    info = await bench.sandboxes.info(sandbox)
    assert info["runtimeType"] == "io.containerd.runc.v2"
    assert info["runtimeSpec"]["process"]["args"] == ["sleep", "100000"]
    assert (info["pid"], info["sandboxer"], info["image"]) == (pid, "podsandbox", "podwright.test/pause:1")

    await bench.remove(sandbox)
    assert await bench.remains(sandbox) == []
    assert not proc.alive(pid)


async def test_a_pod_with_ids_of_its_own_has_a_pause_container_with_them(bench: SandboxBench) -> None:
    config = cri.PodSandboxConfig()
    ids = [cri.IDMapping(host_id=300000, container_id=0, length=65536)]
    config.linux.security_context.namespace_options.userns_options.CopyFrom(
        cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids)
    )
    sandbox = await bench.create(bench.wanted(network=POD, config=config))
    assert len(sandbox.facts.ips) == 1
    assert uid_map(sandbox.facts.pid) == ["0", "300000", "65536"]
    assert Path(f"/proc/{sandbox.facts.pid}/root").stat().st_uid == 300000
    await bench.remove(sandbox)
    assert await bench.remains(sandbox) == []


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [({}, ["task", "network", "start"]), ({"prestart": []}, ["network", "task", "start"])],
    ids=["plain", "with hooks"],
)
async def test_the_network_is_there_before_anything_runs(
    bench: SandboxBench, monkeypatch: pytest.MonkeyPatch, hooks: dict[str, Any], expected: list[str]
) -> None:
    prepared, begun = asyncio.Event(), asyncio.Event()
    order: list[str] = []
    put, create, start, spec = bench.objects.put, bench.tasks.create, bench.tasks.start, Materials.spec

    async def put_and_tell(record: Any) -> None:
        await put(record)
        prepared.set()

    async def attach(sandbox: Sandbox) -> None:
        await prepared.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(begun.wait(), 0.5 if hooks else 30)
        order.append("network")

    async def create_and_tell(id: str, **more: Any) -> int:
        order.append("task")
        begun.set()
        return await create(id, **more)

    async def start_and_tell(id: str) -> int:
        order.append("start")
        return await start(id)

    async def with_hooks(*arguments: Any) -> dict[str, Any]:
        made = await spec(*arguments)
        return {**made, "hooks": hooks} if hooks else made

    monkeypatch.setattr(bench.objects, "put", put_and_tell)
    monkeypatch.setattr(bench.pods, "attach", attach)
    monkeypatch.setattr(bench.tasks, "create", create_and_tell)
    monkeypatch.setattr(bench.tasks, "start", start_and_tell)
    monkeypatch.setattr(Materials, "spec", with_hooks)
    await bench.create(bench.wanted())
    assert order == expected


@pytest.mark.parametrize(
    "step", ["pods.attach", "images.chain", "objects.put", "tasks.create", "tasks.start"]
)
async def test_what_a_failure_left_is_taken_away(
    bench: SandboxBench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def fail(*arguments: object, **more: object) -> None:
        raise Unavailable(f"{step} is broken")

    part, _, method = step.partition(".")
    monkeypatch.setattr(getattr(bench, part), method, fail)
    sandbox = bench.wanted()
    with pytest.raises(Unavailable, match=f"{step} is broken"):
        await bench.create(sandbox)
    assert await bench.remains(sandbox) == []


async def test_a_runtime_that_fails_is_told_in_its_words(bench: SandboxBench) -> None:
    sandbox = bench.wanted(handler="broken")
    with pytest.raises(PodwrightError, match="false did not terminate successfully"):
        await bench.create(sandbox)
    assert await bench.remains(sandbox) == []


async def test_its_end_is_told_and_it_is_not_alive_then(bench: SandboxBench) -> None:
    sandbox = await bench.create(bench.wanted())
    os.kill(sandbox.facts.pid, signal.SIGKILL)
    exit = await bench.exit_of(sandbox)
    assert (exit.code, exit.sandbox) == (137, True)
    assert not await bench.sandboxes.alive(sandbox)
    await bench.remove(sandbox)
    assert await bench.remains(sandbox) == []


async def test_one_that_nobody_noted_anything_of_is_removed_and_twice(bench: SandboxBench) -> None:
    sandbox = await bench.create(bench.wanted())
    pid = sandbox.facts.pid
    forgotten = replace(sandbox, facts=SandboxFacts())
    await bench.sandboxes.stop(forgotten)
    assert not proc.alive(pid)
    for _ in range(2):
        await bench.sandboxes.remove(forgotten)
        assert await bench.remains(sandbox) == []


async def test_a_shim_cannot_hold_pods_when_containerd_has_no_service_for_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    handlers = {"runc": HandlerConfig(path=daemon.handlers["runc"].path, sandboxer="shim")}
    config = configured(tmp_path, tmp_path / "run", daemon.config, handlers, "runc")
    async with opened(config, await one_image(daemon)) as bench:
        with pytest.raises(FailedPrecondition, match=r"io\.containerd\.sandbox\.controller\.v1\.shim"):
            await bench.create(bench.wanted())
