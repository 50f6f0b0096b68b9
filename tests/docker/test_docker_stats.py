"""Statistics of containers and pods on a real Docker Engine are those of their cgroups."""

from __future__ import annotations

import asyncio

import pytest

from podwright.core import metric_table
from podwright.engines.docker.stats import found_cgroup
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench
from tests.oci.clients import PATIENCE

pytestmark = pytest.mark.root

BUSY = ("sh", "-c", "echo some-bytes >/file; mount -t tmpfs x /none 2>/dev/null; while :; do :; done")


async def test_a_container_and_its_pod(docker_bench: Bench) -> None:
    engine = docker_bench.engine
    name = docker_bench.config.cgroup_parent
    own = cri.PodSandboxConfig(linux=cri.LinuxPodSandboxConfig(cgroup_parent=f"{name}/pod"))
    sandbox = await docker_bench.sandbox(network=POD, config=own)
    container = await docker_bench.container(sandbox, *BUSY)
    before = (await engine.container_stats([container]))[container.id]
    async with asyncio.timeout(PATIENCE):
        while True:
            stats = (await engine.container_stats([container]))[container.id]
            if stats.cpu.usage_nano_cores.value > 50_000_000 and stats.HasField("writable_layer"):
                break
            await asyncio.sleep(0.1)
    assert stats.cpu.usage_core_nano_seconds.value > before.cpu.usage_core_nano_seconds.value
    assert 0 < stats.memory.working_set_bytes.value <= stats.memory.usage_bytes.value
    assert stats.writable_layer.used_bytes.value >= 4096 and stats.writable_layer.inodes_used.value >= 2
    filesystem = await engine.images.filesystem_use()
    assert stats.writable_layer.fs_id.mountpoint == filesystem.mountpoint
    pod = (await engine.sandbox_stats([sandbox]))[sandbox.id]
    assert pod.cpu.usage_core_nano_seconds.value >= stats.cpu.usage_core_nano_seconds.value
    assert pod.process.process_count.value >= 2  # the container's and the one that holds the pod
    assert pod.network.default_interface.name == "eth0"
    figures = (await engine.container_figures([container]))[container.id]
    assert {each.name for each in figures} <= {each.name for each in metric_table.TABLE}
    assert "container_processes" in {each.name for each in figures}
    assert any(each.labels == ("eth0",) for each in (await engine.sandbox_figures([sandbox]))[sandbox.id])
    await engine.signal_container(container, 9)
    await docker_bench.exit_of(container)
    assert container.id not in await engine.container_stats([container])
    await docker_bench.clear()
    cgroups.prune(f"{name}/pod")


async def test_a_pod_without_a_cgroup_of_its_own_is_the_sum_of_its_processes(docker_bench: Bench) -> None:
    engine = docker_bench.engine
    sandbox = await docker_bench.sandbox()
    one = await docker_bench.container(sandbox, *BUSY)
    two = await docker_bench.container(sandbox, "sleep", "1000")
    other = await docker_bench.container(await docker_bench.sandbox(), "sleep", "1000")
    pod = (await engine.sandbox_stats([sandbox]))[sandbox.id]
    parts = await engine.container_stats([one, two, other])
    assert pod.process.process_count.value == 3
    whole = sum(parts[each.id].memory.usage_bytes.value for each in (one, two))
    assert pod.memory.usage_bytes.value > whole * 0.8
    assert not pod.HasField("network"), "it has the host's"
    spent = pod.cpu.usage_core_nano_seconds.value
    await docker_bench.remove(one)
    pod = (await engine.sandbox_stats([sandbox]))[sandbox.id]
    assert pod.cpu.usage_core_nano_seconds.value >= spent, "what is gone has been used"


async def test_another_process_with_that_number_is_not_measured(docker_bench: Bench) -> None:
    container = await docker_bench.container(await docker_bench.sandbox(), "sleep", "1000")
    docker_id = str(container.facts.own["docker"])
    [pid] = [
        pid
        for each in cgroups.directories(f"{docker_bench.config.cgroup_parent}/{docker_id}")[:1]
        for pid in cgroups.read_pids(each)
    ]
    assert found_cgroup(pid, docker_id) == f"{docker_bench.config.cgroup_parent}/{docker_id}"
    assert found_cgroup(pid, "0" * 64) == found_cgroup(1, docker_id) == found_cgroup(0, docker_id) == ""


async def test_nothing_is_remembered_of_what_is_removed(docker_bench: Bench) -> None:
    engine = docker_bench.engine
    sandbox = await docker_bench.sandbox()
    container = await docker_bench.container(sandbox, "sleep", "1000")
    await engine.container_stats([container])
    await engine.sandbox_stats([sandbox])
    here = engine._stats._sight
    kept = (here.trees, here._processes, here._cgroups, engine._stats._members)  # type: ignore[attr-defined]
    assert all(kept)
    removing = asyncio.ensure_future(docker_bench.remove(container))
    while not removing.done():
        await engine.container_stats([container])
        await asyncio.sleep(0)
    await removing
    await docker_bench.remove_sandbox(sandbox)
    assert not any(kept)
    assert not list(engine._stats._rates.keys())
