"""Statistics of real containers and pods: what is said is what the kernel shows, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.core import metric_table
from podwright.engines import cgroup_stats as statistics
from podwright.engines.base import Container, Figure, Sandbox
from podwright.linux import cgroups, namespaces
from podwright.stats import disk
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import NODE, POD, Bench
from tests.oci.test_oci_handlers import HANDLERS

pytestmark = pytest.mark.root

MIB = 1 << 20
SLEEP = ("sleep", "1000")
BUSY = ("sh", "-c", "while :; do :; done")


async def of(bench: Bench, container: Container) -> cri.ContainerStats:
    return (await bench.engine.container_stats([container]))[container.id]


async def of_pod(bench: Bench, sandbox: Sandbox) -> cri.LinuxPodSandboxStats:
    return (await bench.engine.sandbox_stats([sandbox]))[sandbox.id]


def file(bench: Bench, container: Container, controller: str, v1: str, v2: str) -> str:
    """What a file of the container's cgroup says."""
    path = cgroups.location(f"{bench.config.cgroup_parent}/{container.id}")
    directory = cgroups.directory(path, controller)
    return (directory / (v1 if cgroups.layout().version == 1 else v2)).read_text()


def limited(bytes: int) -> cri.ContainerConfig:
    resources = cri.LinuxContainerResources(memory_limit_in_bytes=bytes)
    return cri.ContainerConfig(linux=cri.LinuxContainerConfig(resources=resources))


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.02)


async def test_memory_is_what_the_cgroup_says(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, *SLEEP, config=limited(64 * MIB))
    free = await bench.container(sandbox, *SLEEP)
    memory = (await of(bench, container)).memory
    usage = int(file(bench, container, "memory", "memory.usage_in_bytes", "memory.current"))
    figures = dict(
        line.split() for line in file(bench, container, "memory", "memory.stat", "memory.stat").splitlines()
    )
    old = cgroups.layout().version == 1
    assert memory.usage_bytes.value == usage > 0
    assert memory.rss_bytes.value == int(figures["total_rss" if old else "anon"]) > 0
    inactive = int(figures["total_inactive_file" if old else "inactive_file"])
    assert memory.working_set_bytes.value == usage - inactive
    assert memory.available_bytes.value == 64 * MIB - memory.working_set_bytes.value
    assert memory.page_faults.value == int(figures["total_pgfault" if old else "pgfault"]) > 0
    assert memory.HasField("major_page_faults")
    assert not (await of(bench, free)).memory.HasField("available_bytes"), "nothing limits it"


async def test_cpu_time_grows_as_fast_as_is_said(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    busy, idle = await bench.container(sandbox, *BUSY), await bench.container(sandbox, *SLEEP)
    first = await of(bench, busy)
    assert not first.cpu.HasField("usage_nano_cores"), "there is one sample"
    later = first

    async def known() -> bool:
        nonlocal later
        later = await of(bench, busy)
        return later.cpu.HasField("usage_nano_cores")

    await until(known)
    used = later.cpu.usage_core_nano_seconds.value - first.cpu.usage_core_nano_seconds.value
    passed = later.cpu.timestamp - first.cpu.timestamp
    assert used > 0 and passed > 0
    assert later.cpu.usage_nano_cores.value == pytest.approx(used / passed * 1e9, rel=0.01)
    # The sampler goes on without being asked: the rate is of the last second, not since the last question.
    await of(bench, idle)
    await asyncio.sleep(1.6)
    assert (await of(bench, idle)).cpu.usage_nano_cores.value < 200_000_000
    assert (await of_pod(bench, sandbox)).cpu.usage_nano_cores.value > 0


async def test_sampling_ends_when_nobody_asks_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "PERIOD", 0.01)
    monkeypatch.setattr(statistics, "LINGER", 0.2)
    container = await bench.container(await bench.sandbox(), *SLEEP)
    await of(bench, container)
    sampling = bench.engine._stats._sampling
    assert sampling is not None and list(bench.engine._stats._rates.keys())
    await asyncio.wait_for(asyncio.shield(sampling), 30)
    assert not list(bench.engine._stats._rates.keys())
    await of(bench, container)
    assert bench.engine._stats._sampling is not sampling, "it begins again"


async def test_the_writable_layer_is_what_the_container_wrote(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(
        sandbox, "sh", "-c", "dd if=/dev/zero of=/file bs=1M count=3; mkdir /d; ln /file /d/other; sleep 1000"
    )
    top = Path(bench.config.root) / "containers" / container.id / "upper"
    await until((top / "d" / "other").exists)
    os.sync()
    layer = (await of(bench, container)).writable_layer
    assert layer.fs_id.mountpoint == (await bench.engine.images.filesystem_use()).mountpoint
    assert 3 * MIB <= layer.used_bytes.value < 3.5 * MIB, "a file with two names counts once"
    expected = disk.measured([str(top)])
    assert expected is not None and layer.inodes_used.value == expected.inodes >= 3


async def test_what_has_ended_or_gone_is_left_out(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    running, ended, removed = [
        await bench.container(sandbox, *command) for command in (SLEEP, ("true",), SLEEP)
    ]
    await bench.exit_of(ended)
    await bench.remove(removed)
    await until(lambda: not cgroups.directories(f"{bench.config.cgroup_parent}/{ended.id}"))
    found = await bench.engine.container_stats([running, ended, removed])
    assert found.keys() == {running.id}


async def test_each_interface_is_counted_in_the_pods_namespace(bench: Bench) -> None:
    """No process is in this pod: its namespace is only pinned."""
    sandbox = await bench.sandbox(network=POD)
    pin = Path(bench.config.run) / "sandboxes" / sandbox.id / "ns" / "net"

    def more() -> str:
        subprocess.run(["ip", "link", "add", "aaa0", "type", "bridge"], check=True)
        return Path("/proc/thread-self/net/dev").read_text()

    text = await namespaces.inside(pin, "net", more)
    network = (await of_pod(bench, sandbox)).network
    assert network.default_interface.name == "eth0", "it is the first, whatever others are called"
    assert [each.name for each in network.interfaces] == ["aaa0"]
    [line] = [line for line in text.splitlines() if line.strip().startswith("eth0:")]
    assert network.default_interface.rx_bytes.value >= int(line.split()[1])
    assert network.default_interface.tx_bytes.value >= int(line.split()[9])
    assert network.default_interface.HasField("rx_errors") and network.default_interface.HasField("tx_errors")
    assert network.timestamp > 0
    assert not (await of_pod(bench, await bench.sandbox(network=NODE))).HasField("network")


async def test_a_pod_without_a_cgroup_of_its_own_is_the_sum_of_its_containers(bench: Bench) -> None:
    sandbox, other = await bench.sandbox(pid=POD), await bench.sandbox()
    one, two = await bench.container(sandbox, *SLEEP), await bench.container(sandbox, *BUSY)
    await bench.container(other, *BUSY)
    pod = await of_pod(bench, sandbox)
    parts = await bench.engine.container_stats([one, two])
    working_sets = [parts[each.id].memory.working_set_bytes.value for each in (one, two)]
    assert pod.memory.working_set_bytes.value > sum(working_sets) > 0, "its pause process is part of it"
    assert pod.memory.working_set_bytes.value < 3 * sum(working_sets)
    assert pod.process.process_count.value == 3
    assert not pod.memory.HasField("available_bytes")
    before = pod.cpu.usage_core_nano_seconds.value
    assert before >= parts[two.id].cpu.usage_core_nano_seconds.value > 0
    await bench.engine.signal_container(two, signal.SIGKILL)
    await bench.exit_of(two)
    await until(lambda: not cgroups.directories(f"{bench.config.cgroup_parent}/{two.id}"))
    assert (await of_pod(bench, sandbox)).cpu.usage_core_nano_seconds.value >= before, "counters only grow"
    await bench.remove(two)
    assert (await of_pod(bench, sandbox)).cpu.usage_core_nano_seconds.value >= before


async def test_a_pod_with_a_cgroup_of_its_own_is_what_that_counts(bench: Bench) -> None:
    parent = f"{bench.config.cgroup_parent}/pod-own"
    config = cri.PodSandboxConfig(linux=cri.LinuxPodSandboxConfig(cgroup_parent=parent))
    sandbox = await bench.sandbox(config=config)
    container = await bench.container(sandbox, *BUSY)
    used = 0

    async def worked() -> bool:
        nonlocal used
        used = (await of(bench, container)).cpu.usage_core_nano_seconds.value
        return used > 20_000_000

    await until(worked)
    await bench.remove(container)
    later = await bench.container(sandbox, *SLEEP)
    pod = await of_pod(bench, sandbox)
    assert pod.cpu.usage_core_nano_seconds.value >= used
    assert pod.process.process_count.value == 1
    both = await bench.sandbox(config=config)
    await bench.container(both, *SLEEP)
    assert (await of_pod(bench, both)).process.process_count.value == 1, "it shares its parent now"
    assert (await of_pod(bench, sandbox)).process.process_count.value == 1
    assert later.id in (await bench.engine.container_stats([later]))
    await bench.clear()
    cgroups.remove(parent)


async def test_nothing_is_kept_of_what_is_gone(bench: Bench) -> None:
    measuring = bench.engine._stats
    parent = f"{bench.config.cgroup_parent}/pod-left"

    def kept() -> int:
        names = ("_members", "_there", "_users", "_shared", "_counted", "_spent", "_looks")
        return sum(len(getattr(measuring, name)) for name in names) + len(measuring._disk._known)

    def held() -> list[str]:
        """What is open of cgroups and of namespaces."""
        names = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return [name for name in names if "cgroup" in name or "net:[" in name]

    config = cri.PodSandboxConfig(linux=cri.LinuxPodSandboxConfig(cgroup_parent=parent))
    for each in (config, None):
        sandbox = await bench.sandbox(network=POD, pid=POD, config=each)
        container = await bench.container(sandbox, *SLEEP)
        await of(bench, container)
        await of_pod(bench, sandbox)
        assert kept() > 0
        removing = asyncio.ensure_future(bench.remove(container))
        # Who asks meanwhile must not leave anything behind either.
        while not removing.done():
            await bench.engine.container_stats([container])
            await bench.engine.container_figures([container])
        await removing
        await bench.remove_sandbox(sandbox)
    assert kept() == 0
    assert not held()
    assert not list(measuring._rates.keys())
    cgroups.remove(parent)


@pytest.mark.parametrize("handler", HANDLERS)
async def test_each_handlers_containers_are_measured(bench: Bench, handler: str) -> None:
    """A container of gVisor is what its sandbox uses on the host."""
    sandbox = await bench.sandbox(network=POD, handler=handler)
    container = await bench.container(sandbox, *SLEEP)
    stats = await of(bench, container)
    assert stats.cpu.usage_core_nano_seconds.value > 0 and stats.memory.working_set_bytes.value > 0
    pod = await of_pod(bench, sandbox)
    assert pod.process.process_count.value > 0 and pod.network.default_interface.name == "eth0"
    [figures] = (await bench.engine.container_figures([container])).values()
    values = {each.name: each.value for each in figures if not each.labels}
    assert values["container_processes"] >= 1 and values["container_file_descriptors"] >= 3
    layout = cgroups.layout()
    there = layout.unified and (layout.unified / bench.config.cgroup_parent[1:] / container.id).is_dir()
    accounted = bool(there) and Path("/proc/pressure/cpu").exists()
    for part in (stats.cpu, stats.memory, stats.io, pod.cpu, pod.memory, pod.io):
        assert part.HasField("psi") == accounted
    assert ("container_pressure_io_waiting_seconds_total" in values) == accounted


async def test_metrics_are_what_the_kernel_shows(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    script = "exec 5</dev/null; dd if=/dev/zero of=/f bs=1M count=2 conv=fsync 2>/dev/null; sleep 1000 & wait"
    container = await bench.container(sandbox, "sh", "-c", script, config=limited(64 * MIB))

    async def ready() -> bool:
        [figures] = (await bench.engine.container_figures([container])).values()
        return Figure("container_processes", 2) in figures

    await until(ready)
    os.sync()
    stats = await of(bench, container)
    [figures] = (await bench.engine.container_figures([container])).values()
    keys = {each.name: each.labels for each in metric_table.TABLE}
    for each in figures:
        assert len(each.labels) == len(keys[each.name]), each
    assert len({(each.name, each.labels) for each in figures}) == len(figures), "each once"
    values = {each.name: each.value for each in figures if not each.labels}
    assert values["container_memory_rss"] == stats.memory.rss_bytes.value
    assert values["container_memory_max_usage_bytes"] >= values["container_memory_usage_bytes"] > 0
    assert values["container_threads"] == 2 and values["container_threads_max"] >= 0
    assert values["container_oom_events_total"] == values["container_memory_failcnt"] == 0
    assert {"container_cpu_user_seconds_total", "container_cpu_cfs_periods_total"} <= values.keys()
    # Of a shell 0, 1, 2, 5 and perhaps one of its own, of sleep 0, 1, 2, 5.
    opened = len(os.listdir(f"/proc/{container.facts.pid}/fd"))  # noqa: PTH208
    assert opened < values["container_file_descriptors"] < 2 * opened + 2 and opened >= 4
    assert values["container_sockets"] == 0
    labelled = {(each.name, *each.labels): each.value for each in figures if each.labels}
    limit = int(await bench.exec(container, "sh", "-c", "ulimit -Sn"))
    assert labelled["container_ulimits_soft", "max_open_files"] == limit
    faults = stats.memory.page_faults.value
    assert labelled["container_memory_failures_total", "pgfault", "hierarchy"] >= faults > 0
    used = {name[1:]: value for name, value in labelled.items() if name[0] == "container_fs_usage_bytes"}
    [(device,)] = used
    whole = os.statvfs(bench.config.root)
    assert labelled["container_fs_limit_bytes", device] == whole.f_blocks * whole.f_frsize
    assert labelled["container_fs_inodes_total", device] == whole.f_files
    traffic = (await bench.engine.sandbox_figures([sandbox]))[sandbox.id]
    assert len(traffic) == 8 and {each.labels for each in traffic} == {("eth0",)}
    for each in traffic:
        assert len(each.labels) == len(keys[each.name])


async def test_metrics_leave_out_what_has_ended(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    running, ended = await bench.container(sandbox, *SLEEP), await bench.container(sandbox, "true")
    await bench.exit_of(ended)
    await until(lambda: not cgroups.directories(f"{bench.config.cgroup_parent}/{ended.id}"))
    assert (await bench.engine.container_figures([running, ended])).keys() == {running.id}
    assert await bench.engine.sandbox_figures([sandbox]) == {}, "it has the host's network"


async def test_out_of_memory_is_counted(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    script = "(dd if=/dev/zero bs=64M count=1 of=/dev/null); sleep 1000"
    container = await bench.container(sandbox, "sh", "-c", script, config=limited(16 * MIB))
    values: dict[str, int] = {}

    async def killed() -> bool:
        [figures] = (await bench.engine.container_figures([container])).values()
        values.update({each.name: each.value for each in figures if not each.labels})
        return values["container_oom_events_total"] > 0

    await until(killed)
    assert values["container_memory_max_usage_bytes"] <= 16 * MIB
