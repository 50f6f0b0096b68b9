"""Changing the limits of containers: what the kernel then has, what the bundle's spec says, and what becomes
of both when a limit is refused. In every state, with each runtime."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from podwright.engines.base import Container
from podwright.errors import FailedPrecondition, InvalidArgument, Unimplemented
from podwright.linux import cgroups
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import Bench

pytestmark = pytest.mark.root

MIB = 1 << 20
V1 = {
    "limit": ("memory", "memory.limit_in_bytes"),
    "quota": ("cpu", "cpu.cfs_quota_us"),
    "shares": ("cpu", "cpu.shares"),
    "cpus": ("cpuset", "cpuset.cpus"),
}
V2 = {
    "limit": ("memory", "memory.max"),
    "quota": ("cpu", "cpu.max"),
    "shares": ("cpu", "cpu.weight"),
    "cpus": ("cpuset", "cpuset.cpus.effective"),
}


@dataclass
class Case:
    bench: Bench
    handler: str

    async def made(self, *command: str, start: bool = True, **resources: int | str) -> Container:
        config = cri.ContainerConfig()
        config.linux.resources.MergeFrom(cri.LinuxContainerResources(**resources))  # type: ignore[arg-type]
        sandbox = await self.bench.sandbox(handler=self.handler)
        return await self.bench.container(
            sandbox, *(command or ("sleep", "1000")), config=config, start=start
        )

    def kernel(self, container: Container, what: str) -> str:
        controller, file = (V1 if cgroups.layout().version == 1 else V2)[what]
        path = f"{self.bench.config.cgroup_parent}/{container.id}"
        return (cgroups.directory(path, controller) / file).read_text().split()[0]

    def spec(self, container: Container) -> dict[str, dict[str, object]]:
        file = Path(self.bench.config.run, "containers", container.id, "config.json")
        tree = msgspec.json.decode(file.read_bytes())
        limits: dict[str, dict[str, object]] = tree["linux"]["resources"]
        return limits

    async def line(self, container: Container) -> None:
        """Wait until it has said something."""
        async for _ in reader.follow(container.log_path, follow=True):
            return

    def score(self, container: Container) -> object:
        file = Path(self.bench.config.run, "containers", container.id, "config.json")
        return msgspec.json.decode(file.read_bytes())["process"].get("oomScoreAdj")


@pytest.fixture(params=["crun", "runc"])
async def case(request: pytest.FixtureRequest, bench: Bench) -> AsyncIterator[Case]:
    yield Case(bench, request.param)


async def test_a_running_container_gets_new_limits(case: Case) -> None:
    container = await case.made(memory_limit_in_bytes=64 * MIB, cpu_shares=512)
    cpu = str(min(os.sched_getaffinity(0)))
    wanted = cri.LinuxContainerResources(
        memory_limit_in_bytes=96 * MIB,
        cpu_shares=512,
        cpu_period=100_000,
        cpu_quota=50_000,
        cpuset_cpus=cpu,
    )
    before = case.spec(container)
    await case.bench.engine.update_container(container, wanted, container.config.linux.resources)
    assert case.kernel(container, "limit") == str(96 * MIB)
    assert case.kernel(container, "quota") == "50000"
    assert case.kernel(container, "cpus") == cpu
    spec = case.spec(container)
    assert spec["memory"]["limit"] == 96 * MIB
    assert spec["cpu"] == {"shares": 512, "period": 100_000, "quota": 50_000, "cpus": cpu}
    # What is not the request's stays: the devices, the node's process limit.
    assert {key: spec[key] for key in before if key not in ("cpu", "memory")} == {
        key: before[key] for key in before if key not in ("cpu", "memory")
    }


async def test_a_created_container_starts_with_the_new_limits(case: Case) -> None:
    container = await case.made(start=False, memory_limit_in_bytes=64 * MIB)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=48 * MIB)
    await case.bench.engine.update_container(container, wanted, container.config.linux.resources)
    await case.bench.engine.start_container(container)
    assert case.kernel(container, "limit") == str(48 * MIB)
    assert case.spec(container)["memory"]["limit"] == 48 * MIB


async def test_minus_one_lifts_limits(case: Case) -> None:
    container = await case.made(cpu_quota=-1, cpu_period=100_000, memory_limit_in_bytes=-1)
    unlimited = case.kernel(container, "limit"), case.kernel(container, "quota")
    limited = cri.LinuxContainerResources(cpu_quota=50_000, memory_limit_in_bytes=64 * MIB)
    await case.bench.engine.update_container(container, limited, container.config.linux.resources)
    assert (case.kernel(container, "limit"), case.kernel(container, "quota")) == (str(64 * MIB), "50000")
    await case.bench.engine.update_container(container, container.config.linux.resources, limited)
    assert (case.kernel(container, "limit"), case.kernel(container, "quota")) == unlimited


async def test_an_ended_container_tells_the_new_limits(case: Case) -> None:
    container = await case.made(memory_limit_in_bytes=64 * MIB)
    await case.bench.engine.signal_container(container, signal.SIGKILL)
    await case.bench.exit_of(container)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=48 * MIB)
    await case.bench.engine.update_container(container, wanted, container.config.linux.resources)
    assert case.spec(container)["memory"]["limit"] == 48 * MIB
    await case.bench.remove(container)
    await case.bench.engine.update_container(container, wanted)


async def test_what_was_not_limited_is_not_limited_again(case: Case) -> None:
    """The way back from a refused update: its values are unset, where nothing else shall hold."""
    container = await case.made(cpu_shares=512)
    unlimited = {what: case.kernel(container, what) for what in ("limit", "quota", "cpus")}
    before = case.spec(container)
    former = container.config.linux.resources
    refused = cri.LinuxContainerResources(
        cpu_shares=256,
        memory_limit_in_bytes=64 * MIB,
        cpu_period=50_000,
        cpu_quota=25_000,
        cpuset_cpus=str(min(os.sched_getaffinity(0))),
    )
    await case.bench.engine.update_container(container, refused, former)
    await case.bench.engine.update_container(container, former, refused)
    if cgroups.layout().version == 1:
        assert case.kernel(container, "shares") == "512"
    assert {what: case.kernel(container, what) for what in ("limit", "quota")} == {
        what: unlimited[what] for what in ("limit", "quota")
    }
    assert case.kernel(container, "cpus") == unlimited["cpus"]
    assert case.spec(container) == before


async def test_processors_that_are_not_there_are_refused_in_words(case: Case) -> None:
    with pytest.raises(FailedPrecondition, match=r"resources\.cpuset_cpus: '900' has 900, and"):
        await case.made(start=False, cpuset_cpus="900")


async def test_what_the_host_has_no_place_for_is_refused_in_every_state(case: Case) -> None:
    if cgroups.layout().version == 2:
        pytest.skip("cgroup v2 has a place for them")
    container = await case.made("true", start=False)
    wanted = cri.LinuxContainerResources(unified={"memory.high": "1000000"})
    with pytest.raises(FailedPrecondition, match=r"linux\.unified\[memory.high\]"):
        await case.bench.engine.check_update(container, wanted)
    await case.bench.engine.start_container(container)
    await case.bench.exit_of(container)
    with pytest.raises(FailedPrecondition, match=r"linux\.unified\[memory.high\]"):
        await case.bench.engine.check_update(container, wanted)


async def test_a_limit_below_what_it_uses_is_refused_in_words(case: Case) -> None:
    container = await case.made(
        "sh",
        "-c",
        "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo ready; sleep 1000 & wait; echo ${#x}",
        memory_limit_in_bytes=400 * MIB,
    )
    await case.line(container)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=16 * MIB)
    with pytest.raises(FailedPrecondition, match=r"linux\.memory_limit_in_bytes: 16777216 bytes are less"):
        await case.bench.engine.check_update(container, wanted)
        await case.bench.engine.update_container(container, wanted, container.config.linux.resources)
    await case.bench.engine.update_container(container, container.config.linux.resources, wanted)
    assert case.kernel(container, "limit") == str(400 * MIB)


async def test_oom_scores_follow_but_for_processes_that_chose_their_own(case: Case) -> None:
    container = await case.made(
        "sh",
        "-c",
        "sleep 1002 & (echo 950 > /proc/self/oom_score_adj; echo ready; exec sleep 1001) & wait",
        oom_score_adj=900,
    )
    await case.line(container)
    path = f"{case.bench.config.cgroup_parent}/{container.id}"

    def scores() -> list[int]:
        pids = cgroups.pids(path)
        return sorted(int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in pids)

    assert scores() == [900, 900, 950]
    wanted = cri.LinuxContainerResources(oom_score_adj=930)
    await case.bench.engine.update_container(container, wanted, container.config.linux.resources)
    assert scores() == [930, 930, 950]
    assert case.score(container) == 930


async def test_a_runtime_that_cannot_says_so_before_anything_is_changed(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sleep", "1000", start=False)
    low = cri.LinuxContainerResources(oom_score_adj=2000)
    with pytest.raises(InvalidArgument, match="oom_score_adj"):
        await bench.engine.check_update(container, low)
    gvisor = replace(container, sandbox=replace(sandbox, handler="runsc"))
    with pytest.raises(Unimplemented, match="runsc"):
        await bench.engine.check_update(gvisor, cri.LinuxContainerResources(cpu_shares=2))
