"""Statistics of containers of a real containerd: from their cgroups, and what its shims tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from podwright.engines.base import Container, ContainerFacts
from podwright.engines.containerd import task_metrics
from podwright.engines.containerd.api import Containerd, any_of
from podwright.engines.containerd.stats import Statistics
from podwright.errors import DeadlineExceeded, PodwrightError, Unavailable
from podwright.stats import groups
from podwright.stats.disk import measured
from podwright.stats.reading import Device, HugePages, Memory, Swap
from podwright.wire.containerd import metrics_v1_pb2, metrics_v2_pb2, types_pb2
from tests.containerd.daemon import Daemon
from tests.containerd.made import Room, room

WORK = "head -c 3000000 /dev/urandom >/file; cat /file >/dev/null; while :; do sleep 1000; done"


@pytest.fixture
async def made(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    async with room(daemon, tmp_path) as opened:
        yield opened


@pytest.fixture
async def stats(made: Room) -> AsyncIterator[Statistics]:
    found = Statistics(made.config, made.places, made.tasks, made.containerd)
    yield found
    await found.close()


async def worked(made: Room, stats: Statistics, **how: Any) -> Container:
    """A container that has written a file and waits."""
    container = await made.container("sh", "-c", WORK, **how)
    stats.enter(container)
    script = "while ! test -s /file || ! ps | grep -q '[s]leep 1000'; do sleep 0.02; done"
    done = await made.sessions.exec_sync(container, ["sh", "-c", script], 60, 1000)
    assert done.code == 0, done
    return container


@pytest.mark.root
async def test_a_container_of_this_kernel_is_measured_without_the_daemon(
    made: Room, stats: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await worked(made, stats)
    first = (await stats.of_containers([container]))[container.id]
    assert first.writable_layer.used_bytes.value >= 3000000
    assert first.writable_layer.fs_id.mountpoint == str(
        made.daemon.root / "io.containerd.snapshotter.v1.overlayfs"
    )

    async def nobody(*_: object, **__: object) -> None:
        raise AssertionError("the daemon was asked")

    monkeypatch.setattr(made.containerd, "ask", nobody)
    again = (await stats.of_containers([container]))[container.id]
    read = groups.read(made.tasks.cgroup(container.id))
    assert read is not None and read.memory is not None and read.cpu is not None
    assert 0 < again.cpu.usage_core_nano_seconds.value <= read.cpu
    assert again.memory.usage_bytes.value == pytest.approx(read.memory.usage, abs=1 << 20)
    figures = {each.name for each in (await stats.figures([container]))[container.id]}
    assert {"container_processes", "container_fs_usage_bytes"} <= figures


@pytest.mark.root
async def test_a_snapshotter_without_an_overlay_says_what_a_layer_takes(
    made: Room, stats: Statistics
) -> None:
    container = await worked(made, stats, snapshotter="native")
    volume = made.places.volume(container.id, 0)
    volume.mkdir(parents=True)
    (volume / "file").write_bytes(b"x" * 300000)
    volumes = measured([str(volume.parent)])
    assert volumes is not None
    layer = (await stats.of_containers([container]))[container.id].writable_layer
    size, inodes = await made.snapshots.usage(container.id, "native")
    assert layer.used_bytes.value == size + volumes.bytes
    assert layer.inodes_used.value == inodes + volumes.inodes
    assert size > 3000000 and layer.fs_id.mountpoint.endswith("native")


@pytest.mark.root
async def test_what_a_shim_tells_is_what_the_cgroup_says(made: Room, stats: Statistics) -> None:
    container = await worked(made, stats)
    path = made.tasks.cgroup(container.id)
    for _ in range(100):
        # It sleeps, but the kernel gives back late what an exec in it had.
        before = groups.read(path), groups.detail(path)
        told, detail = (await task_metrics.ask(made.containerd, [container.id]))[container.id]
        read, seen = groups.read(path), groups.detail(path)
        assert read is not None and before[0] is not None
        if before[0].memory == read.memory and before[1] == seen:
            break
    assert read is not None
    assert told.cpu == pytest.approx(read.cpu, rel=0.02)
    assert told.memory == read.memory
    assert abs(told.at - read.at) < 60 * 10**9
    if read.swap is not None and told.swap is not None:
        assert told.swap.usage == read.swap.usage
    for name in ("cache", "mapped_file", "active_file", "inactive_file", "max_usage", "limit_hits"):
        assert getattr(detail, name) == getattr(seen, name), name
    for name in ("faults", "oom_kills", "pids", "pids_limit", "periods", "throttled"):
        assert getattr(detail, name) == getattr(seen, name), name
    assert detail.pids == 2


@pytest.mark.root
async def test_a_container_of_another_kernel_is_what_its_shim_tells(
    made: Room, stats: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await worked(made, stats)
    # To be no process of this kernel is to have a first process that is not in the cgroup.
    theirs = replace(await worked(made, stats), facts=ContainerFacts(pid=1))
    monkeypatch.setattr(groups, "detail", None)
    found = await stats.of_containers([ours, theirs])
    assert found.keys() == {ours.id, theirs.id}
    assert found[theirs.id].memory.usage_bytes.value > 0
    assert found[theirs.id].cpu.usage_core_nano_seconds.value > 0
    assert found[theirs.id].writable_layer.used_bytes.value >= 3000000
    told = {each.name: each.value for each in (await stats.figures([theirs]))[theirs.id]}
    assert told["container_threads"] == 2 and "container_processes" not in told
    pods = await stats.of_sandboxes([ours.sandbox, theirs.sandbox])
    memory = pods[theirs.sandbox.id].memory.usage_bytes.value
    assert memory == pytest.approx(found[theirs.id].memory.usage_bytes.value, rel=0.2)
    await made.tasks.kill(theirs.id, 9)
    await made.exit(theirs)
    async with asyncio.timeout(60):
        # The cgroup goes a moment after its last process.
        while theirs.id in (found := await stats.of_containers([ours, theirs])):
            pass
    assert found.keys() == {ours.id}
    stats.leave(theirs)
    assert (await stats.of_containers([ours, theirs])).keys() == {ours.id}


@pytest.mark.root
async def test_a_pod_of_another_kernel_is_what_its_own_process_uses_here(
    made: Room, stats: Statistics
) -> None:
    pause = await worked(made, stats)
    sandbox = replace(pause.sandbox, id=pause.id)
    theirs = replace(await worked(made, stats), facts=ContainerFacts(pid=1), sandbox=sandbox)
    stats.enter(theirs)
    one = (await stats.of_containers([theirs]))[theirs.id].memory.usage_bytes.value
    held = groups.read(made.tasks.cgroup(pause.id))
    assert held is not None and held.memory is not None and one > 3000000
    pod = (await stats.of_sandboxes([sandbox]))[sandbox.id].memory.usage_bytes.value
    assert pod == pytest.approx(held.memory.usage, abs=1 << 20)


def metric(data: metrics_v1_pb2.Metrics | metrics_v2_pb2.Metrics) -> types_pb2.Metric:
    found = types_pb2.Metric(id="a", data=any_of(data))
    found.timestamp.FromNanoseconds(7)
    return found


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), Unavailable("away"), PodwrightError("unknown")])
async def test_shims_that_do_not_answer_take_nothing_else_with_them(error: PodwrightError) -> None:
    async def ask(*_: object) -> None:
        raise error

    containerd = SimpleNamespace(ask=ask, tasks=SimpleNamespace(Metrics=None))
    assert await task_metrics.ask(cast(Containerd, containerd), ["a" * 64]) == {}


def test_metrics_of_cgroup_v2() -> None:
    data = metrics_v2_pb2.Metrics()
    data.cpu.usage_usec, data.cpu.user_usec, data.cpu.throttled_usec = 5, 3, 2
    memory = data.memory
    memory.usage, memory.inactive_file, memory.anon, memory.usage_limit = 100, 30, 50, 2**64 - 1
    memory.pgfault, memory.pgmajfault, memory.swap_usage, memory.swap_limit = 8, 1, 9, 0
    data.memory_events.oom_kill = 4
    data.pids.current, data.pids.limit = 6, 2**64 - 1
    data.io.usage.add(major=8, minor=1, rbytes=11, wbytes=12, rios=13, wios=14)
    data.hugetlb.add(pagesize="2MB", current=15)
    found = task_metrics.decoded(metric(data))
    assert found is not None
    reading, detail = found
    assert (reading.at, reading.cpu) == (7, 5000)
    assert reading.memory == Memory(100, 70, 50, 8, 1, None)
    assert reading.swap == Swap(9, 0)
    assert (detail.user, detail.throttled, detail.oom_kills) == (3000, 2000, 4)
    assert (detail.pids, detail.pids_limit, detail.faults) == (6, None, (8, 1))
    assert detail.devices == (Device(8, 1, {"Read": 11, "Write": 12}, {"Read": 13, "Write": 14}),)
    assert detail.huge_pages == (HugePages("2MB", 15, None),)


def test_metrics_of_cgroup_v1_with_limits_and_swap() -> None:
    data = metrics_v1_pb2.Metrics()
    data.cpu.usage.total = 5
    memory = data.memory
    memory.usage.usage, memory.total_inactive_file, memory.total_rss = 100, 130, 50
    memory.hierarchical_memory_limit, memory.hierarchical_swap_limit = 1000, 1500
    memory.swap.usage, memory.swap.limit = 120, 1500
    data.blkio.io_service_bytes_recursive.add(major=8, minor=0, op="Read", value=21)
    data.blkio.io_serviced_recursive.add(major=8, minor=0, op="Read", value=2)
    found = task_metrics.decoded(metric(data))
    assert found is not None
    reading, detail = found
    assert reading.memory == Memory(100, 0, 50, 0, 0, 1000)
    assert reading.swap == Swap(20, 500)
    assert detail.devices == (Device(8, 0, {"Read": 21}, {"Read": 2}),)
    assert (detail.pids, detail.throttled, detail.kernel) == (None, None, None)


def test_metrics_of_another_kind_tell_nothing() -> None:
    found = types_pb2.Metric(id="a")
    found.data.type_url = "containerd.runhcs.stats.v1.Statistics"
    assert task_metrics.decoded(found) is None
