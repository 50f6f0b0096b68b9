"""Statistics of fake containers and pods: fields, units, counters that never fall, what a script says."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.clock import VirtualClock
from podwright.engines.base import Container, Image, Presence, Sandbox
from podwright.engines.fake import stats as stats_module
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.scenario import apply, parse
from podwright.engines.fake.world import FakeContainer, FakeSandbox, World
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri
from tests.fake.containers import START, Case, Node

MIB = 1 << 20
SLEEP = ("sleep", "inf")


async def measured(case: Case) -> cri.ContainerStats:
    return (await case.node.engine.container_stats([case.container]))[case.container.id]


async def pod(node: Node, number: int = 1, *, host_network: bool = False, share_pid: bool = False) -> Sandbox:
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=f"pod{number}", namespace="ns", uid="u")
    )
    options = config.linux.security_context.namespace_options
    options.network = cri.NODE if host_network else cri.POD
    options.pid = cri.POD if share_pid else cri.CONTAINER
    sandbox = Sandbox(f"{number:064x}", f"pod{number}", config, "")
    async with AsyncExitStack() as undo:
        await node.engine.create_sandbox(sandbox, undo)
        undo.pop_all()
    return sandbox


async def measured_pod(node: Node, sandbox: Sandbox) -> cri.LinuxPodSandboxStats:
    return (await node.engine.sandbox_stats([sandbox]))[sandbox.id]


def unset(message: Any, path: str = "") -> list[str]:
    """Fields of messages that nobody has filled in."""
    missing: list[str] = []
    for field in message.DESCRIPTOR.fields:
        name = f"{path}{field.name}"
        if field.message_type is not None and not field.is_repeated:
            if not message.HasField(field.name):
                missing.append(name)
            elif field.message_type.name != "UInt64Value":
                missing += unset(getattr(message, field.name), f"{name}.")
        elif field.name in ("timestamp", "name", "mountpoint") and not getattr(message, field.name):
            missing.append(name)
    return missing


async def test_every_field_of_a_container_is_there_and_stamped_by_the_worlds_clock(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.start(*SLEEP, resources={"memory_limit_in_bytes": 256 * MIB})
    await node.clock.advance(100)
    stats = await measured(case)
    assert unset(stats) == ["attributes"], "core fills those in"
    stamps = {
        part.timestamp for part in (stats.cpu, stats.memory, stats.writable_layer, stats.swap, stats.io)
    }
    [stamp] = stamps
    assert stamp == pytest.approx(START + 100 * 10**9, abs=1000)
    assert stats.writable_layer.fs_id.mountpoint == node.world.scenario.images.mountpoint


async def test_every_field_of_a_pod_is_there(tmp_path: Path) -> None:
    node = Node(tmp_path)
    sandbox = await pod(node)
    await node.start(*SLEEP, resources={"memory_limit_in_bytes": 256 * MIB})
    await node.clock.advance(60)
    stats = await measured_pod(node, sandbox)
    # No container is in this pod: nothing is limited.
    assert unset(stats) == ["memory.available_bytes"]
    network = stats.network.default_interface
    assert network.name == "eth0" and network.rx_bytes.value > 0 and network.tx_bytes.value > 0
    assert (network.rx_errors.value, network.tx_errors.value) == (0, 0)
    assert not stats.containers, "core fills those in"
    assert not (await measured_pod(node, await pod(node, 2, host_network=True))).HasField("network")


async def test_only_what_runs_uses_anything(tmp_path: Path) -> None:
    node = Node(tmp_path)
    created, running = await node.create(*SLEEP), await node.start(*SLEEP)
    ended = await node.start("true")
    await node.clock.advance(1)
    assert not ended.running
    cases = [created, running, ended]
    found = await node.engine.container_stats([case.container for case in cases])
    assert found.keys() == {running.container.id}
    ready, stopped = await pod(node, 1), await pod(node, 2)
    await node.engine.stop_sandbox(stopped)
    assert (await node.engine.sandbox_stats([ready, stopped])).keys() == {ready.id}


SCRIPT: dict[str, Any] = {
    "cpu": {"ramp": {"from": 0, "per_second": 0.01, "max": 2}},
    "memory": [["0s", "10MiB"], ["60s", "70MiB"]],
    "swap": "1MiB",
    "disk": {"ramp": {"from": 0, "per_second": "1KiB"}},
    "inodes": 12,
    "processes": 3.6,
    "page_faults": 100,
    "major_page_faults": 2,
    "cpu_pressure": 0.25,
    "io_pressure": [[0, 0], [50, 0], [50, 1], [55, 1], [55, 0]],
}


async def test_figures_follow_the_script(tmp_path: Path) -> None:
    node = Node(tmp_path, {"containers": [{"match": {"container": "web"}, "stats": SCRIPT}]})
    case, other = await node.start(*SLEEP, name="web"), await node.start(*SLEEP, name="other")
    await node.clock.advance(60)
    stats = await measured(case)
    assert stats.cpu.usage_nano_cores.value == pytest.approx(0.6e9)
    assert stats.cpu.usage_core_nano_seconds.value == pytest.approx(0.6e9 * 60 / 2)
    assert stats.memory.working_set_bytes.value == 70 * MIB
    assert stats.memory.rss_bytes.value < 70 * MIB < stats.memory.usage_bytes.value
    assert (stats.memory.page_faults.value, stats.memory.major_page_faults.value) == (6000, 120)
    assert not stats.memory.HasField("available_bytes"), "nothing limits it"
    assert stats.swap.swap_usage_bytes.value == MIB
    assert stats.writable_layer.used_bytes.value == 60 * 1024
    assert stats.writable_layer.inodes_used.value == 12
    assert stats.cpu.psi.Some == stats.cpu.psi.Full
    pressure = stats.cpu.psi.Some
    assert (pressure.Total, pressure.Avg10, pressure.Avg60) == (15 * 10**9, 25, 25)
    assert pressure.Avg300 == pytest.approx(5), "it has not run for longer"
    assert stats.io.psi.Some.Avg10 == pytest.approx(50) and stats.io.psi.Some.Total == 5 * 10**9
    assert stats.memory.psi.Some.Total == 0
    assert (await measured(other)).memory.working_set_bytes.value != 70 * MIB


async def test_figures_begin_with_the_start_not_with_the_creation(tmp_path: Path) -> None:
    node = Node(tmp_path, {"containers": [{"stats": {"cpu": 1}}]})
    case = await node.create(*SLEEP)
    await node.clock.advance(50)
    await node.engine.start_container(case.container)
    await node.clock.advance(10)
    assert (await measured(case)).cpu.usage_core_nano_seconds.value == pytest.approx(10e9)


async def test_a_limit_says_what_is_available_and_an_update_changes_it(tmp_path: Path) -> None:
    node = Node(tmp_path, {"containers": [{"stats": {"memory": "100MiB"}}]})
    case = await node.start(*SLEEP, resources={"memory_limit_in_bytes": 160 * MIB})
    memory = (await measured(case)).memory
    assert memory.available_bytes.value == 60 * MIB
    for limit, working_set, available in [(110, 100, 10), (80, 80, 0)]:
        await node.engine.update_container(
            case.container, cri.LinuxContainerResources(memory_limit_in_bytes=limit * MIB)
        )
        memory = (await measured(case)).memory
        assert memory.working_set_bytes.value == working_set * MIB
        assert memory.available_bytes.value == available * MIB
        assert memory.usage_bytes.value <= limit * MIB


async def test_a_pod_is_the_sum_of_its_containers(tmp_path: Path) -> None:
    script = {"cpu": 0.5, "memory": "100MiB", "processes": 3, "page_faults": 10, "io_pressure": 0.5}
    node = Node(
        tmp_path,
        {
            "containers": [
                {"match": {"container": "a"}, "stats": script},
                {"match": {"container": "b"}, "stats": {**script, "cpu": 0.25, "io_pressure": 0.75}},
            ],
            "pods": [{"network": {"received": "1MB/s", "sent": "10KB/s", "send_errors": 0.5}}],
        },
    )
    sandbox = await pod(node, share_pid=True)
    made = node.world.sandboxes[sandbox.id]
    cases = {}
    for name in ("a", "b"):
        cases[name] = await node.create(*SLEEP, name=name, resources={"memory_limit_in_bytes": 150 * MIB})
        cases[name].made.sandbox = made
        made.containers.append(cases[name].made)
        await node.engine.start_container(cases[name].container)
    await node.start(*SLEEP, name="a")
    await node.clock.advance(100)
    stats = await measured_pod(node, sandbox)
    assert stats.cpu.usage_nano_cores.value == 0.75e9
    assert stats.cpu.usage_core_nano_seconds.value == pytest.approx(75e9)
    assert stats.memory.working_set_bytes.value == 200 * MIB
    assert stats.memory.available_bytes.value == 100 * MIB
    assert stats.memory.page_faults.value == 2000
    assert stats.process.process_count.value == 3 + 3 + 1, "the pause process is one, too"
    assert stats.io.psi.Full.Avg60 == 75, "that of the container which waits longest"
    interface = stats.network.default_interface
    assert (interface.rx_bytes.value, interface.tx_bytes.value) == (100_000_000, 1_000_000)
    assert (interface.rx_errors.value, interface.tx_errors.value) == (0, 50)
    # A container that ends takes what it uses with it, but not what it has used up.
    await cases["a"].signal(9)
    await node.clock.advance(10)
    after = await measured_pod(node, sandbox)
    assert after.cpu.usage_nano_cores.value == 0.25e9
    assert after.cpu.usage_core_nano_seconds.value == pytest.approx(75e9 + 2.5e9)
    assert after.memory.working_set_bytes.value == 100 * MIB
    assert after.memory.page_faults.value == 2100
    await node.engine.remove_container(cases["a"].container)
    assert (await measured_pod(node, sandbox)).cpu.usage_core_nano_seconds.value >= 77.5e9 - 1


async def test_figures_without_a_script_are_small_differ_and_are_the_same_again(tmp_path: Path) -> None:
    async def figures() -> list[tuple[int, int]]:
        node = Node(tmp_path)
        cases = [await node.start(*SLEEP) for _ in range(20)]
        await node.clock.advance(1000)
        found = [await measured(case) for case in cases]
        return [
            (each.cpu.usage_core_nano_seconds.value, each.memory.working_set_bytes.value) for each in found
        ]

    first = await figures()
    assert first == await figures()
    assert len(set(first)) > 10
    assert all(0 < cpu <= 66e9 and MIB <= memory <= 128 * MIB for cpu, memory in first)


async def test_a_new_scenario_changes_nobody_who_exists(tmp_path: Path) -> None:
    node = Node(tmp_path, {"containers": [{"stats": {"cpu": 1}}]})
    before = await node.start(*SLEEP)
    node.world.scenario = apply(node.world.scenario, {"containers": [{"stats": {"cpu": 2}}]})
    after = await node.start(*SLEEP)
    assert (await measured(before)).cpu.usage_nano_cores.value == 10**9
    assert (await measured(after)).cpu.usage_nano_cores.value == 2 * 10**9


steps = st.lists(st.floats(0, 100), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(steps, st.sampled_from([0.5, {"noise": [{"sine": {"base": 1, "amplitude": 1, "period": 7}}, 0.4]}]))
def test_counters_never_fall(waits: list[float], curve: Any) -> None:
    async def run() -> list[tuple[int, ...]]:
        clock = VirtualClock()
        world = World(clock, parse({"containers": [{"stats": {"cpu": curve, "page_faults": curve}}]}))
        engine = FakeEngine(world)
        [script] = world.scenario.containers
        sandbox = world.sandboxes["a"] = FakeSandbox("a", ips=("10.0.0.1",), ready=True)
        for id in ("b", "c"):
            world.containers[id] = FakeContainer(
                id, presence=Presence.RUNNING, sandbox=sandbox, usage=script.stats
            )
        seen: list[tuple[int, ...]] = []
        for number, wait in enumerate(waits):
            await clock.advance(wait)
            if number == len(waits) // 2:
                world.ended(world.containers["b"], 0)
            asked = Sandbox("a", "a", cri.PodSandboxConfig(), "")
            found = (await engine.sandbox_stats([asked]))["a"]
            seen.append(
                (
                    found.cpu.usage_core_nano_seconds.value,
                    found.memory.page_faults.value,
                    found.network.default_interface.rx_bytes.value,
                )
            )
        return seen

    seen = asyncio.run(run())
    for which in range(3):
        column = [each[which] for each in seen]
        assert column == sorted(column)


async def test_thirty_thousand_containers_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop gets its turns meanwhile, and the whole costs little."""
    world = World(VirtualClock())
    engine = FakeEngine(world)
    config, image = cri.ContainerConfig(), Image("", (), (), 1, {})
    containers = []
    for number in range(30_000):
        id = f"{number:064x}"
        pod = world.sandboxes.setdefault(id[:-1], FakeSandbox(id[:-1], ready=True))
        world.containers[id] = FakeContainer(id, presence=Presence.RUNNING, sandbox=pod)
        asked = Sandbox(pod.id, "", cri.PodSandboxConfig(), "")
        containers.append(Container(id, "", asked, config, image, ""))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    before = time.process_time()
    found = await engine.container_stats(containers)
    took = time.process_time() - before
    assert len(found) == 30_000
    assert turns >= 30_000 // stats_module.AT_ONCE
    assert took < 3, f"{took / 30_000 * 1e6:.0f} µs for each"
    pods = await engine.sandbox_stats([Sandbox(id, "", cri.PodSandboxConfig(), "") for id in world.sandboxes])
    assert len(pods) == len(world.sandboxes) and next(iter(pods.values())).process.process_count.value == 16
    counting.cancel()
    await asyncio.wait([counting])


async def test_the_calls_of_the_cri_tell_it(tmp_path: Path) -> None:
    script = {"containers": [{"stats": {"cpu": "250m", "memory": "64MiB"}}]}
    async with FakeNode(script, root=tmp_path) as node:
        house = node.cri
        config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="pod", namespace="ns", uid="u"))
        run = await house.run_pod_sandbox(cri.RunPodSandboxRequest(config=config))
        await house.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image="app")))
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main"), image=cri.ImageSpec(image="app"), labels={"a": "b"}
        )
        created = await house.create_container(
            cri.CreateContainerRequest(
                pod_sandbox_id=run.pod_sandbox_id, config=container, sandbox_config=config
            )
        )
        await house.start_container(cri.StartContainerRequest(container_id=created.container_id))
        await node.advance("40s")
        [listed] = (await house.list_container_stats(cri.ListContainerStatsRequest())).stats
        assert (listed.attributes.id, dict(listed.attributes.labels)) == (created.container_id, {"a": "b"})
        assert listed.cpu.usage_core_nano_seconds.value == pytest.approx(10e9)
        asked = cri.PodSandboxStatsRequest(pod_sandbox_id=run.pod_sandbox_id)
        of_pod = (await house.pod_sandbox_stats(asked)).stats
        assert of_pod.attributes.metadata.name == "pod"
        assert of_pod.linux.memory.working_set_bytes.value == 64 * MIB
        [inside] = of_pod.linux.containers
        assert inside.attributes.id == created.container_id
