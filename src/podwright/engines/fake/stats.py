"""What fake containers and pods use: the figures of the statistics calls, computed when asked for.

Everything follows from the container's script, its id and the time since its start: no state is kept and
nothing runs in the background. Counters (CPU time, page faults, bytes sent) are areas below their curves.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from podwright.engines.base import Container, Presence, Sandbox
from podwright.engines.fake.curves import Curve
from podwright.engines.fake.scenario import NetworkUsageScript, UsageScript
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.engines.fake.world import FakeContainer, FakeSandbox, World

AT_ONCE = 500
"""Containers measured before the event loop gets a turn: about 10 ms."""
MIB = 1 << 20
CACHE = 0.15
"""Of a working set: how much page cache that can be given up comes on top of it."""
ANONYMOUS = 0.8
"""Of a working set: how much is not backed by files."""
WINDOWS = (10.0, 60.0, 300.0)
"""Seconds over which the kernel averages pressure."""

_NOTHING_SAID = UsageScript()
_NO_TRAFFIC_SAID = NetworkUsageScript()


async def of_containers(world: World, containers: Sequence[Container]) -> dict[str, cri.ContainerStats]:
    """Of those that run, by id."""
    found: dict[str, cri.ContainerStats] = {}
    for number, container in enumerate(containers, start=1):
        made = world.containers.get(container.id)
        if made is not None and made.presence is Presence.RUNNING:
            found[made.id] = _of_container(world, made)
        if not number % AT_ONCE:
            await asyncio.sleep(0)
    return found


async def of_sandboxes(world: World, sandboxes: Sequence[Sandbox]) -> dict[str, cri.LinuxPodSandboxStats]:
    """Of those that are ready, by id: the sum of their containers, and the network's traffic."""
    found: dict[str, cri.LinuxPodSandboxStats] = {}
    for number, sandbox in enumerate(sandboxes, start=1):
        made = world.sandboxes.get(sandbox.id)
        if made is not None and made.ready:
            running = [
                each
                for each in made.containers
                if each.presence is Presence.RUNNING and world.containers.get(each.id) is each
            ]
            found[sandbox.id] = _of_sandbox(world, made, running)
        if not number % AT_ONCE:
            await asyncio.sleep(0)
    return found


def counted(world: World, made: FakeContainer) -> tuple[int, int, int]:
    """What a running container has used up: nanoseconds of CPU, page faults, those of them that read."""
    usage, passed = made.usage or _NOTHING_SAID, world.clock.monotonic() - made.started
    return (
        int(_area(usage.cpu, passed, made.id, _cores(made.id)) * 1e9),
        int(_area(usage.page_faults, passed, made.id, _faults(made.id))),
        int(_area(usage.major_page_faults, passed, made.id, 0.0)),
    )


def processes(world: World, made: FakeContainer) -> int:
    """How many a running container has."""
    usage = made.usage or _NOTHING_SAID
    return round(_level(usage.processes, world.clock.monotonic() - made.started, made.id, 1.0))


def _of_container(world: World, made: FakeContainer) -> cri.ContainerStats:
    now, passed = world.clock.now(), world.clock.monotonic() - made.started
    usage, id = made.usage or _NOTHING_SAID, made.id
    stats = cri.ContainerStats()
    stats.CopyFrom(_EMPTY)
    cpu, memory, layer, swap = stats.cpu, stats.memory, stats.writable_layer, stats.swap
    cpu.timestamp = memory.timestamp = layer.timestamp = swap.timestamp = stats.io.timestamp = now
    (
        cpu.usage_core_nano_seconds.value,
        memory.page_faults.value,
        memory.major_page_faults.value,
    ) = counted(world, made)
    cpu.usage_nano_cores.value = int(_level(usage.cpu, passed, id, _cores(id)) * 1e9)
    _fill_memory(memory, _working_set(made, passed), made.limit)
    swapped = int(_level(usage.swap, passed, id, 0.0))
    swap.swap_usage_bytes.value = swapped
    swap.swap_available_bytes.value = 0
    layer.fs_id.mountpoint = world.scenario.images.mountpoint
    layer.used_bytes.value = int(_level(usage.disk, passed, id, 4096.0 * (1 + _digits(id, 3) % 32)))
    layer.inodes_used.value = int(_level(usage.inodes, passed, id, 2.0 + _digits(id, 3) % 16))
    if usage.cpu_pressure is not None:
        cpu.psi.CopyFrom(_pressure(usage.cpu_pressure, passed, id))
    if usage.memory_pressure is not None:
        memory.psi.CopyFrom(_pressure(usage.memory_pressure, passed, id))
    if usage.io_pressure is not None:
        stats.io.psi.CopyFrom(_pressure(usage.io_pressure, passed, id))
    return stats


def _of_sandbox(
    world: World, sandbox: FakeSandbox, containers: Sequence[FakeContainer]
) -> cri.LinuxPodSandboxStats:
    now, monotonic = world.clock.now(), world.clock.monotonic()
    stats = cri.LinuxPodSandboxStats()
    stats.CopyFrom(_EMPTY_POD)
    cpu, memory = stats.cpu, stats.memory
    cpu.timestamp = memory.timestamp = stats.io.timestamp = stats.process.timestamp = now
    nanoseconds, faults, major = sandbox.spent
    cores, working_set, count = 0.0, 0, 1 if sandbox.pid else 0
    limit = sum(made.limit for made in containers) if all(made.limit for made in containers) else 0
    for made in containers:
        usage, passed = made.usage or _NOTHING_SAID, monotonic - made.started
        used = counted(world, made)
        nanoseconds, faults, major = nanoseconds + used[0], faults + used[1], major + used[2]
        cores += _level(usage.cpu, passed, made.id, _cores(made.id))
        working_set += _working_set(made, passed)
        count += processes(world, made)
    cpu.usage_core_nano_seconds.value, cpu.usage_nano_cores.value = nanoseconds, int(cores * 1e9)
    memory.page_faults.value, memory.major_page_faults.value = faults, major
    _fill_memory(memory, working_set, limit)
    stats.process.process_count.value = count
    _press(cpu.psi, containers, "cpu_pressure", monotonic)
    _press(memory.psi, containers, "memory_pressure", monotonic)
    _press(stats.io.psi, containers, "io_pressure", monotonic)
    if sandbox.ips:
        stats.network.timestamp = now
        _fill_network(stats.network.default_interface, sandbox, monotonic - sandbox.created)
    return stats


def _fill_memory(memory: cri.MemoryUsage, working_set: int, limit: int) -> None:
    memory.working_set_bytes.value = working_set
    usage = working_set + int(working_set * CACHE)
    memory.usage_bytes.value = min(usage, limit) if limit else usage
    memory.rss_bytes.value = int(working_set * ANONYMOUS)
    if limit:
        # Without a limit there is no such figure: the kubelet takes the node's.
        memory.available_bytes.value = limit - working_set


def _fill_network(interface: cri.NetworkInterfaceUsage, sandbox: FakeSandbox, passed: float) -> None:
    script, id = sandbox.traffic or _NO_TRAFFIC_SAID, sandbox.id
    interface.name = "eth0"
    interface.rx_bytes.value = int(_area(script.received, passed, id, 50.0 + _digits(id, 2)))
    interface.tx_bytes.value = int(_area(script.sent, passed, id, 30.0 + _digits(id, 3) % 200))
    interface.rx_errors.value = int(_area(script.receive_errors, passed, id, 0.0))
    interface.tx_errors.value = int(_area(script.send_errors, passed, id, 0.0))


def _press(psi: cri.PsiStats, containers: Iterable[FakeContainer], which: str, monotonic: float) -> None:
    """The pod's pressure: that of the container which has waited longest."""
    for made in containers:
        curve: Curve | None = getattr(made.usage, which) if made.usage is not None else None
        if curve is not None:
            found = _pressure(curve, monotonic - made.started, made.id)
            if found.Some.Total >= psi.Some.Total:
                psi.CopyFrom(found)


def _pressure(curve: Curve, passed: float, id: str) -> cri.PsiStats:
    area = curve.integral(passed, id)
    averages = []
    for window in WINDOWS:
        before = max(0.0, passed - window)
        averages.append(min(100.0, (area - curve.integral(before, id)) / window * 100))
    found = cri.PsiData(Total=int(area * 1e9), Avg10=averages[0], Avg60=averages[1], Avg300=averages[2])
    return cri.PsiStats(Full=found, Some=found)


def _working_set(made: FakeContainer, passed: float) -> int:
    usage = made.usage or _NOTHING_SAID
    bytes = int(_level(usage.memory, passed, made.id, (8.0 + _digits(made.id, 1) % 57) * MIB))
    return min(bytes, made.limit) if made.limit else bytes


def _cores(id: str) -> float:
    return (2 + _digits(id, 0) % 64) / 1000


def _faults(id: str) -> float:
    return 1.0 + _digits(id, 2) % 8


def _digits(id: str, which: int) -> int:
    """A number from 0 to 255 that belongs to an object: the same each time."""
    return zlib.crc32(id.encode()) >> 8 * which & 0xFF


def _level(curve: Curve | None, passed: float, id: str, otherwise: float) -> float:
    return otherwise if curve is None else curve.at(passed, id)


def _area(curve: Curve | None, passed: float, id: str, otherwise: float) -> float:
    return otherwise * passed if curve is None else curve.integral(passed, id)


_CALM = cri.PsiStats(Full=cri.PsiData(), Some=cri.PsiData())
_EMPTY = cri.ContainerStats(
    cpu=cri.CpuUsage(psi=_CALM), memory=cri.MemoryUsage(psi=_CALM), io=cri.IoUsage(psi=_CALM)
)
"""A copy of it is filled in: half the work of making all its parts."""
_EMPTY_POD = cri.LinuxPodSandboxStats(
    cpu=cri.CpuUsage(psi=_CALM), memory=cri.MemoryUsage(psi=_CALM), io=cri.IoUsage(psi=_CALM)
)
