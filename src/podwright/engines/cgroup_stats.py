"""Statistics of containers and pods that are processes of this host: what the kernel says of their cgroups,
namespaces and writable layers, as CRI messages. Where those are the engine says (`Sight`).

Figures are read when they are asked for; only two are older: how fast CPU time grows needs an earlier sample,
and writable layers are measured about once a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from podwright.engines import cgroup_figures as figures
from podwright.engines.base import Container, Figure, Sandbox
from podwright.engines.figures import of_stats
from podwright.errors import InvalidArgument
from podwright.stats import groups, interfaces
from podwright.stats.disk import Disk
from podwright.stats.disk import Use as DiskUse
from podwright.stats.rates import Rates
from podwright.stats.reading import Memory, Reading, Stall, Swap
from podwright.wire import cri_pb2 as cri

PERIOD = 1.0
"""Seconds between samples of the CPU time, while somebody asks."""
LINGER = 30.0
"""Seconds after the last question in which samples are still taken: a kubelet asks every ten."""
SAME_LOOK = 100_000_000
"""Nanoseconds in which a container's figures may be those that its pod's were summed up from."""


class _Counts(NamedTuple):
    """What only grows."""

    cpu: int
    """Nanoseconds."""
    page_faults: int
    major_page_faults: int

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(*(a + b for a, b in zip(self, other, strict=True)))


_NOTHING = _Counts(0, 0, 0)


class Sight(Protocol):
    """Where an engine's containers and pods are on this host."""

    @property
    def mountpoint(self) -> str:
        """How writable layers name their file system: as ImageFsInfo does."""

    @property
    def top(self) -> Path:
        """Something on that file system."""

    def cgroup(self, id: str) -> str:
        """Of a container, or of the process that holds a sandbox; "" when it has none."""

    def parent(self, sandbox: Sandbox) -> str:
        """The cgroup that the request gave the sandbox, "" when it cannot be found. InvalidArgument."""

    def held(self, sandbox: Sandbox) -> bool:
        """Whether a process holds the sandbox, which counts for it."""

    def network(self, sandbox: Sandbox) -> str:
        """A file that is its network namespace, "" when it has none of its own."""

    def layer(self, container_id: str) -> Sequence[str]:
        """The trees of its writable layer and volumes."""


class Statistics:
    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._disk = Disk()
        self._rates = Rates()
        self._members: dict[str, set[str]] = {}
        """Of each sandbox its containers, from their creation to their removal."""
        self._there: set[str] = set()
        """All containers of them. What is asked for another one would be kept for ever."""
        self._users: dict[str, set[str]] = {}
        """Of each cgroup that sandboxes were given as their parent, those sandboxes."""
        self._shared: set[str] = set()
        """Of them those that ever had two at once: what they count is nobody's alone."""
        self._counted: dict[str, _Counts] = {}
        """What each container had counted when it was last seen: its cgroup goes when it ends."""
        self._spent: dict[str, _Counts] = {}
        """Of each sandbox the sum of its containers that have been removed."""
        self._looks: dict[str, Reading] = {}
        """What pods were just summed up from, for those who ask for the containers next."""
        self._asked = 0.0
        self._sampling: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.wait([self._sampling])
        await self._disk.close()

    # Who is there

    def enter(self, container: Container) -> None:
        """`container` exists."""
        sandbox = container.sandbox
        self._members.setdefault(sandbox.id, set()).add(container.id)
        self._there.add(container.id)
        if sandbox.config.linux.cgroup_parent:
            users = self._users.setdefault(self._sight.parent(sandbox), set())
            users.add(sandbox.id)
            if len(users) > 1:
                self._shared.add(self._sight.parent(sandbox))

    def leave(self, container: Container) -> None:
        """`container` is about to be removed."""
        self._there.discard(container.id)
        self._members.get(container.sandbox.id, set()).discard(container.id)
        self._rates.drop(self._sight.cgroup(container.id))
        self._disk.forget(container.id)
        self._looks.pop(container.id, None)
        if (counts := self._counted.pop(container.id, None)) is not None:
            before = self._spent.get(container.sandbox.id, _NOTHING)
            self._spent[container.sandbox.id] = before.plus(counts)

    def leave_sandbox(self, sandbox: Sandbox) -> None:
        """`sandbox` is about to be removed, its containers were before."""
        for kept in (self._members, self._spent, self._looks):
            kept.pop(sandbox.id, None)
        self._rates.drop(self._sight.cgroup(sandbox.id))
        if sandbox.config.linux.cgroup_parent:
            try:
                parent = self._sight.parent(sandbox)
            except InvalidArgument:
                return  # a bad parent: it was refused, and never measured
            self._rates.drop(parent)
            users = self._users.get(parent, set())
            users.discard(sandbox.id)
            if not users:
                self._users.pop(parent, None)
                self._shared.discard(parent)

    # Figures

    async def of_containers(self, containers: Sequence[Container]) -> dict[str, cri.ContainerStats]:
        """By id; those that have just ended are left out."""
        self._sample()
        layers = await self.layers(containers)
        found = {}
        for container in containers:
            if container.id not in self._there:
                continue
            look = self._looks.pop(container.id, None)
            if look is None or time.time_ns() - look.at > SAME_LOOK:
                look = self.read(container.id)
            if look is not None:
                path = self._sight.cgroup(container.id)
                found[container.id] = self._container(look, self._rate(path, look), layers.get(container.id))
        return found

    async def of_sandboxes(self, sandboxes: Sequence[Sandbox]) -> dict[str, cri.LinuxPodSandboxStats]:
        """By id, without their containers."""
        self._sample()
        traffic = await self.traffic(sandboxes)
        return {sandbox.id: self._sandbox(sandbox, traffic.get(sandbox.id)) for sandbox in sandboxes}

    async def figures(self, containers: Sequence[Container]) -> dict[str, list[Figure]]:
        """What metrics show of each, by id; those that have just ended are left out."""
        stats = await self.of_containers(containers)
        layers = await self.layers(containers)
        there = {
            container.id: (self._sight.cgroup(container.id), container.facts.pid)
            for container in containers
            if container.id in stats
        }
        looked = await asyncio.to_thread(lambda: {id: figures.look(*each) for id, each in there.items()})
        top = self._sight.top
        return {
            id: [
                *of_stats(stats[id]),
                *figures.of_container(each, stats[id].memory),
                *figures.of_layer(layers.get(id), top),
            ]
            for id, each in looked.items()
        }

    async def sandbox_figures(self, sandboxes: Sequence[Sandbox]) -> dict[str, list[Figure]]:
        """The traffic of each interface of each pod that has a network of its own, by id."""
        return {
            id: [figure for each in found for figure in figures.of_interface(each)]
            for id, found in (await self.traffic(sandboxes)).items()
        }

    async def traffic(self, sandboxes: Sequence[Sandbox]) -> dict[str, tuple[interfaces.Interface, ...]]:
        """The interfaces of those pods that have a network of their own, by id."""
        found = {sandbox.id: self._sight.network(sandbox) for sandbox in sandboxes}
        return await interfaces.of_namespaces({id: file for id, file in found.items() if file})

    async def layers(self, containers: Iterable[Container]) -> dict[str, DiskUse]:
        """What their writable layers and volumes take, by id; those that are large come later."""
        there = [each.id for each in containers if each.id in self._there]
        return await self._disk.of({id: trees for id in there if (trees := self._sight.layer(id))})

    def read(self, id: str) -> Reading | None:
        """The cgroup of container `id`, or of the pause process of sandbox `id`; None when it is gone."""
        path = self._sight.cgroup(id)
        found = groups.read(path) if path else None
        if found is not None and id in self._there:
            memory = found.memory
            faults = (memory.page_faults, memory.major_page_faults) if memory else (0, 0)
            self._counted[id] = _Counts(found.cpu or 0, *faults)
        return found

    def _rate(self, path: str, look: Reading) -> int | None:
        """Nanocores. From now on the cgroup `path` is sampled."""
        if look.cpu is None:
            return None
        rate = self._rates.rate(path, look.at, look.cpu)
        self._rates.note(path, look.at, look.cpu)
        return rate

    def _container(self, look: Reading, rate: int | None, layer: DiskUse | None) -> cri.ContainerStats:
        stats = cri.ContainerStats()
        _fill_cpu(stats.cpu, look.at, look.cpu, rate)
        if look.memory is not None:
            _fill_memory(stats.memory, look.at, look.memory)
        if look.swap is not None:
            _fill_swap(stats.swap, look.at, look.swap)
        _fill_pressure(stats, look)
        if layer is not None:
            part = stats.writable_layer
            part.timestamp = layer.at
            part.fs_id.mountpoint = self._sight.mountpoint
            part.used_bytes.value, part.inodes_used.value = layer.bytes, layer.inodes
        return stats

    # Pods

    def _sandbox(
        self, sandbox: Sandbox, traffic: Sequence[interfaces.Interface] | None
    ) -> cri.LinuxPodSandboxStats:
        """A pod that was given a cgroup of its own is what that counts, containers that are gone included;
        any other is the sum of its containers."""
        stats = cri.LinuxPodSandboxStats()
        parent = self._sight.parent(sandbox) if sandbox.config.linux.cgroup_parent else ""
        look = groups.read(parent) if parent and parent not in self._shared else None
        if look is not None:
            rate, processes = self._rate(parent, look), groups.pids(parent)
        else:
            look, rate, processes = self._sum(sandbox)
        _fill_cpu(stats.cpu, look.at, look.cpu, rate)
        if look.memory is not None:
            _fill_memory(stats.memory, look.at, look.memory)
        _fill_pressure(stats, look)
        stats.process.timestamp = look.at
        if processes is not None:
            stats.process.process_count.value = processes
        if traffic:
            stats.network.timestamp = time.time_ns()
            _fill_interface(stats.network.default_interface, traffic[0])
            for each in traffic[1:]:
                _fill_interface(stats.network.interfaces.add(), each)
        return stats

    def _sum(self, sandbox: Sandbox) -> tuple[Reading, int | None, int | None]:
        """What a pod without a cgroup of its own uses: its containers, and its pause process if it has one;
        how fast, and how many tasks it has."""
        ids = [*self._members.get(sandbox.id, ())]
        if self._sight.held(sandbox):
            ids.append(sandbox.id)
        looks: list[Reading] = []
        rates: list[int] = []
        tasks: list[int] = []
        spent = self._spent.get(sandbox.id, _NOTHING)
        for id in ids:
            look = self.read(id)
            if look is None:
                spent = spent.plus(self._counted.get(id, _NOTHING))
                continue
            self._looks[id] = look
            looks.append(look)
            path = self._sight.cgroup(id)
            if (rate := self._rate(path, look)) is not None:
                rates.append(rate)
            if (count := groups.pids(path)) is not None:
                tasks.append(count)
        return (
            _added(looks, spent),
            sum(rates) if rates or not looks else None,
            sum(tasks) if tasks or not looks else None,
        )

    # Sampling

    def _sample(self) -> None:
        """Somebody asks: samples of the CPU time are taken for a while."""
        self._asked = time.monotonic()
        if self._sampling is None or self._sampling.done():
            self._sampling = asyncio.get_running_loop().create_task(self._take_samples())

    async def _take_samples(self) -> None:
        while time.monotonic() - self._asked < LINGER:
            await asyncio.sleep(PERIOD)
            for number, path in enumerate(self._rates.keys(), start=1):
                used = groups.cpu(path)
                if used is None:
                    self._rates.drop(path)
                else:
                    self._rates.note(path, time.time_ns(), used)
                if not number % 100:
                    await asyncio.sleep(0)
            self._looks.clear()
        self._rates.clear()


def _fill_cpu(cpu: cri.CpuUsage, at: int, used: int | None, rate: int | None) -> None:
    cpu.timestamp = at
    if used is not None:
        cpu.usage_core_nano_seconds.value = used
    if rate is not None:
        cpu.usage_nano_cores.value = rate


def _fill_memory(part: cri.MemoryUsage, at: int, memory: Memory) -> None:
    part.timestamp = at
    part.working_set_bytes.value = memory.working_set
    part.usage_bytes.value = memory.usage
    part.rss_bytes.value = memory.rss
    part.page_faults.value = memory.page_faults
    part.major_page_faults.value = memory.major_page_faults
    if memory.limit is not None:
        # Without a limit there is no such figure: the kubelet takes the node's.
        part.available_bytes.value = max(0, memory.limit - memory.working_set)


def _fill_swap(part: cri.SwapUsage, at: int, swap: Swap) -> None:
    part.timestamp = at
    part.swap_usage_bytes.value = swap.usage
    if swap.limit is not None:
        part.swap_available_bytes.value = max(0, swap.limit - swap.usage)


def _fill_pressure(stats: cri.ContainerStats | cri.LinuxPodSandboxStats, look: Reading) -> None:
    if look.cpu_stall is not None:
        _fill_stall(stats.cpu.psi, look.cpu_stall)
    if look.memory_stall is not None:
        _fill_stall(stats.memory.psi, look.memory_stall)
    if look.io_stall is not None:
        stats.io.timestamp = look.at
        _fill_stall(stats.io.psi, look.io_stall)


def _fill_stall(part: cri.PsiStats, stall: Stall) -> None:
    for line, pressure in ((part.Some, stall.some), (part.Full, stall.full)):
        line.Total, line.Avg10, line.Avg60, line.Avg300 = pressure


def _fill_interface(part: cri.NetworkInterfaceUsage, interface: interfaces.Interface) -> None:
    part.name = interface.name
    part.rx_bytes.value, part.rx_errors.value = interface.received.bytes, interface.received.errors
    part.tx_bytes.value, part.tx_errors.value = interface.sent.bytes, interface.sent.errors


def _added(looks: Sequence[Reading], spent: _Counts) -> Reading:
    """The sum, with what those that are gone have `spent`; limited only if all are. Pressure does not add up:
    it is that of whoever has waited longest."""
    memories = [look.memory for look in looks if look.memory is not None]
    limits = [memory.limit for memory in memories if memory.limit is not None]
    memory = Memory(
        sum(each.usage for each in memories),
        sum(each.working_set for each in memories),
        sum(each.rss for each in memories),
        sum(each.page_faults for each in memories) + spent.page_faults,
        sum(each.major_page_faults for each in memories) + spent.major_page_faults,
        sum(limits) if limits and len(limits) == len(memories) else None,
    )
    return Reading(
        time.time_ns(),
        sum(look.cpu or 0 for look in looks) + spent.cpu,
        memory,
        None,
        _longest([look.cpu_stall for look in looks]),
        _longest([look.memory_stall for look in looks]),
        _longest([look.io_stall for look in looks]),
    )


def _longest(stalls: Iterable[Stall | None]) -> Stall | None:
    known = [stall for stall in stalls if stall is not None]
    return max(known, key=lambda stall: stall.some.total) if known else None
