"""Limits, as the host's cgroup files have them. Files of cgroup v1 and v2, whichever this host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, decoded, rejected
from tests.matrix.server import CPU, NODE_LIMIT, PIDS, MatrixServer

pytestmark = pytest.mark.root

MIB = 1 << 20
ROOT = Path("/sys/fs/cgroup")
V2 = (ROOT / "cgroup.controllers").exists()
CONTROLLERS = (
    set((ROOT / "cgroup.controllers").read_text().split()) if V2 else {each.name for each in ROOT.iterdir()}
)


def folder(container: Container, controller: str) -> Path:
    for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if V2 or controller in controllers.split(","):
            return ROOT / ("" if V2 else controller) / path.lstrip("/")
    raise AssertionError(f"no cgroup of {controller}")


def limit(container: Container, controller: str, v1: str, v2: str) -> str:
    return (folder(container, controller) / (v2 if V2 else v1)).read_text().strip()


def test_cpu_and_memory(client: Client, handler: str) -> None:
    container = client.pod(handler=handler).run(
        resources={
            "memory_limit_in_bytes": 128 * MIB,
            "cpu_shares": 512,
            "cpu_quota": 150000,
            "cpu_period": 50000,
        }
    )
    assert limit(container, "memory", "memory.limit_in_bytes", "memory.max") == str(128 * MIB)
    if V2:
        assert limit(container, "cpu", "", "cpu.max") == "150000 50000"
        assert limit(container, "cpu", "", "cpu.weight") == "20"
    else:
        assert limit(container, "cpu", "cpu.cfs_quota_us", "") == "150000"
        assert limit(container, "cpu", "cpu.cfs_period_us", "") == "50000"
        assert limit(container, "cpu", "cpu.shares", "") == "512"


def test_swap_is_what_was_asked_or_none(client: Client, native: str) -> None:
    """memory_swap_limit is memory and swap together."""
    pod = client.pod(handler=native)
    plain = pod.run(resources={"memory_limit_in_bytes": 64 * MIB})
    v1, v2 = "memory.memsw.limit_in_bytes", "memory.swap.max"
    if not (folder(plain, "memory") / (v2 if V2 else v1)).exists():
        assert "swap" not in plain.info()["runtimeSpec"]["linux"]["resources"]["memory"]
        pytest.skip("this kernel accounts no swap")
    more = pod.run(resources={"memory_limit_in_bytes": 64 * MIB, "memory_swap_limit_in_bytes": 80 * MIB})
    assert limit(plain, "memory", v1, v2) == ("0" if V2 else str(64 * MIB))
    assert limit(more, "memory", v1, v2) == str(16 * MIB if V2 else 80 * MIB)


def test_processors(client: Client, native: str) -> None:
    cpu = str(min(os.sched_getaffinity(0)))
    container = client.pod(handler=native).run(resources={"cpuset_cpus": cpu, "cpuset_mems": "0"})
    assert limit(container, "cpuset", "cpuset.cpus", "cpuset.cpus") == cpu
    assert limit(container, "cpuset", "cpuset.mems", "cpuset.mems") == "0"
    assert container.sh("nproc") == "1"


def test_pause_processes_have_processors_of_their_own(client: Client, native: str) -> None:
    pod = client.pod(handler=native, pid=cri.POD)
    pause = int(decoded(pod.full_status(verbose=True).info)["pid"])
    lines = Path(f"/proc/{pause}/cgroup").read_text().splitlines()
    [path] = [line.split(":", 2)[2] for line in lines if V2 or "cpuset" in line.split(":")[1].split(",")]
    assert (ROOT / ("" if V2 else "cpuset") / path.lstrip("/") / "cpuset.cpus").read_text().strip() == str(
        CPU
    )


def test_go_programs_learn_their_quota(client: Client, native: str) -> None:
    pod = client.pod(handler=native)
    assert pod.run(resources={"cpu_quota": 150000, "cpu_period": 100000}).sh("echo $GOMAXPROCS") == "2"
    assert pod.run(resources={"cpu_quota": 50000}, env={"GOMAXPROCS": "7"}).sh("echo $GOMAXPROCS") == "7"
    assert pod.run().sh("echo $GOMAXPROCS") == ""


def test_processes_are_counted(client: Client, native: str) -> None:
    container = client.pod(handler=native).run()
    assert limit(container, "pids", "pids.max", "pids.max") == str(PIDS)


def test_huge_pages(client: Client, native: str) -> None:
    """Without the controller, limits are left out: the kubelet sends them always."""
    wanted = [cri.HugepageLimit(page_size="2MB", limit=4 * MIB), cri.HugepageLimit(page_size="1GB", limit=0)]
    container = client.pod(handler=native).run(resources={"hugepage_limits": wanted})
    given = container.info()["runtimeSpec"]["linux"]["resources"].get("hugepageLimits", [])
    if "hugetlb" in CONTROLLERS:
        assert limit(container, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(4 * MIB)
        assert limit(container, "hugetlb", "hugetlb.1GB.limit_in_bytes", "hugetlb.1GB.max") == "0"
    else:
        assert given == []
    assert container.exec("true").code == 0


def test_unified_limits(client: Client, native: str, server: MatrixServer) -> None:
    """Files of v2 by their names; v1 has none of them, and the log says so."""
    container = client.pod(handler=native).run(resources={"unified": {"memory.high": str(64 * MIB)}})
    if V2:
        assert limit(container, "memory", "", "memory.high") == str(64 * MIB)
    else:
        assert "unified" not in container.info()["runtimeSpec"]["linux"]["resources"]
        assert any(
            container.id in line and "unified resources are not set" in line
            for line in server.words(20000).splitlines()
        )


def test_memory_that_the_runtime_cannot_start_with_is_refused(client: Client, native: str) -> None:
    pod = client.pod(handler=f"{native}-large")
    with rejected(StatusCode.INVALID_ARGUMENT, "memory_limit_in_bytes"):
        pod.create("/bin/true", resources={"memory_limit_in_bytes": 63 * MIB})
    container = pod.run(resources={"memory_limit_in_bytes": 64 * MIB})
    request = cri.UpdateContainerResourcesRequest(
        container_id=container.id, linux=cri.LinuxContainerResources(memory_limit_in_bytes=MIB)
    )
    with rejected(StatusCode.INVALID_ARGUMENT, "memory_limit_in_bytes"):
        container.runtime.UpdateContainerResources(request)
    assert limit(container, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


def test_block_io_classes(client: Client, native: str, server: MatrixServer) -> None:
    if server.disk is None or not {"blkio", "io"} & CONTROLLERS:
        pytest.skip("no loop device, or no controller for block I/O")
    number = f"{os.major(server.disk.stat().st_rdev)}:{os.minor(server.disk.stat().st_rdev)}"
    pod = client.pod(
        handler=native, annotations={"blockio.resources.beta.kubernetes.io/container.main": "slow"}
    )
    container = pod.run(name="main")
    if V2:
        assert f"{number} rbps={NODE_LIMIT}" in limit(container, "io", "", "io.max")
    else:
        assert limit(container, "blkio", "blkio.throttle.read_bps_device", "") == f"{number} {NODE_LIMIT}"
        assert limit(pod.run(name="free"), "blkio", "blkio.throttle.read_bps_device", "") == ""
    with rejected(StatusCode.INVALID_ARGUMENT, "slow"):
        pod.create("/bin/true", annotations={"io.kubernetes.cri.blockio-class": "no-such"})
    with rejected(StatusCode.FAILED_PRECONDITION, "rdt_config_file"):
        pod.create("/bin/true", annotations={"io.kubernetes.cri.rdt-class": "any"})


@pytest.mark.parametrize("score", [-900, 0, 444, 1000])
def test_oom_scores(client: Client, native: str, score: int) -> None:
    container = client.pod(handler=native).run(resources={"oom_score_adj": score})
    seen = int(container.sh("cat /proc/1/oom_score_adj"))
    # Below the daemon's own score only CAP_SYS_RESOURCE helps.
    assert seen == score or (score < 0 and seen == int(Path("/proc/self/oom_score_adj").read_text()))


def test_the_cgroup_is_where_the_pod_is(client: Client, handler: str, server: MatrixServer) -> None:
    parent = f"{server.parent}/kubepods/burstable/pod-x"
    container = client.pod(handler=handler, cgroup_parent=parent).run()
    where = folder(container, "memory")
    assert f"{parent}/" in str(where) and container.id in where.name
    container.remove()
    assert not where.exists()


def test_the_writable_cgroup(client: Client, native: str) -> None:
    """By the handler or by an allowed annotation, on v2 only: a hierarchy of v1 is the host's whole."""
    asked = {"cgroup2-mount-hierarchy-rw.crio.io": "true"}
    by_annotation = client.pod(handler=native, annotations=asked).run()
    by_handler = client.pod(handler=f"{native}-cgroups").run()
    refused = client.pod(handler=f"{native}-strict", annotations=asked).run()
    for container in (by_annotation, by_handler):
        if V2:
            container.sh("mkdir /sys/fs/cgroup/mine")
        else:
            assert "Read-only" in container.exec("mkdir", "/sys/fs/cgroup/memory/mine").err
    place = "/sys/fs/cgroup/mine" if V2 else "/sys/fs/cgroup/memory/mine"
    assert "Read-only" in refused.exec("mkdir", place).err
