"""Metrics of fake containers and pods: those that follow from their statistics. There is no kernel to ask for
more: no disks, no throttling, no descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from podwright.engines.base import Container, Figure, Sandbox
from podwright.engines.fake import stats
from podwright.engines.figures import of_faults, of_stats, of_traffic

if TYPE_CHECKING:
    from podwright.engines.fake.world import World

DEVICE = "/dev/fake"


async def of_containers(world: World, containers: Sequence[Container]) -> dict[str, list[Figure]]:
    """Of those that run, by id."""
    found = {}
    for id, each in (await stats.of_containers(world, containers)).items():
        faults = (each.memory.page_faults.value, each.memory.major_page_faults.value)
        processes = stats.processes(world, world.containers[id])
        found[id] = [
            *of_stats(each),
            *of_faults(faults, faults),
            Figure("container_fs_usage_bytes", each.writable_layer.used_bytes.value, (DEVICE,)),
            Figure("container_processes", processes),
            Figure("container_threads", processes),
            Figure("container_threads_max", 0),
        ]
    return found


async def of_sandboxes(world: World, sandboxes: Sequence[Sandbox]) -> dict[str, list[Figure]]:
    """Of those that are ready, by id: the traffic of their interface, if they have one."""
    found = {}
    for id, each in (await stats.of_sandboxes(world, sandboxes)).items():
        if each.HasField("network"):
            interface = each.network.default_interface
            received = (interface.rx_bytes.value, None, interface.rx_errors.value, None)
            sent = (interface.tx_bytes.value, None, interface.tx_errors.value, None)
            found[id] = list(of_traffic(interface.name, received, sent))
    return found
