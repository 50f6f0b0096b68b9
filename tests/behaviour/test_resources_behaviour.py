"""Cgroups: where pods and containers sit, their limits, and changing them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from grpc import RpcError, StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, Pod, decoded, rejected
from tests.behaviour.server import Server

MIB = 1 << 20


def _cgroup(container: Container, controller: str) -> Path:
    """Directory of the container's cgroup for `controller`, on either version."""
    for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup") / controller / path.lstrip("/")
    unified = Path(f"/proc/{container.pid}/cgroup").read_text().strip().rpartition("::/")[2]
    return Path("/sys/fs/cgroup") / unified


def _memory_limit(container: Container) -> int:
    folder = _cgroup(container, "memory")
    v2, v1 = folder / "memory.max", folder / "memory.limit_in_bytes"
    return int((v2 if v2.exists() else v1).read_text())


@pytest.mark.kernel
def test_containers_sit_below_the_pods_parent(client: Client) -> None:
    parent = f"{client.server.parent}/kubepods/pod1"
    container = client.pod(cgroup_parent=parent).run()
    folder = _cgroup(container, "memory")
    assert parent in str(folder)
    assert container.info().get("dockerID", container.id) in folder.name
    container.remove()
    assert not folder.exists()


@pytest.mark.kernel
def test_an_empty_cgroup_parent_works(client: Client) -> None:
    container = client.pod(cgroup_parent="").run()
    assert _cgroup(container, "memory").exists()


@pytest.mark.kernel
def test_a_slice_is_refused_by_the_cgroupfs_driver_or_used_as_a_directory(client: Client) -> None:
    container = client.pod(cgroup_parent=f"{client.server.parent}/a.slice").run()
    assert "a.slice" in str(_cgroup(container, "memory"))


@pytest.mark.kernel
def test_limits_reach_the_kernel(client: Client) -> None:
    container = client.pod().run(
        resources={
            "memory_limit_in_bytes": 64 * MIB,
            "cpu_shares": 512,
            "cpu_quota": 50000,
            "cpu_period": 100000,
        }
    )
    assert _memory_limit(container) == 64 * MIB
    cpu = _cgroup(container, "cpu")
    if (cpu / "cpu.max").exists():
        assert (cpu / "cpu.max").read_text().split() == ["50000", "100000"]
    else:
        assert (cpu / "cpu.cfs_quota_us").read_text().strip() == "50000"
        assert (cpu / "cpu.shares").read_text().strip() == "512"


@pytest.mark.kernel
def test_zero_means_not_set(client: Client) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 0, "cpu_quota": 0, "cpu_shares": 0})
    limits = container.info()["runtimeSpec"]["linux"]["resources"]
    assert not limits.get("memory", {}).get("limit")
    assert not limits.get("cpu", {}).get("quota")
    assert container.exec("true").code == 0


@pytest.mark.kernel
def test_swap_is_limited_to_memory_where_it_can_be(client: Client) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 64 * MIB})
    folder = _cgroup(container, "memory")
    v1 = folder / "memory.memsw.limit_in_bytes"
    if v1.exists():
        assert int(v1.read_text()) == 64 * MIB
    elif (folder / "memory.swap.max").exists():
        assert (folder / "memory.swap.max").read_text().strip() == "0"
    else:
        assert "swap" not in container.info()["runtimeSpec"]["linux"]["resources"]["memory"]


@pytest.mark.kernel
def test_oom_score_is_what_the_host_allows(client: Client) -> None:
    pod = client.pod()
    container = pod.run(resources={"oom_score_adj": 900})
    assert Path(f"/proc/{container.pid}/oom_score_adj").read_text().strip() == "900"
    # Below the daemon's own score only CAP_SYS_RESOURCE helps; without it the container still runs.
    low = pod.run(resources={"oom_score_adj": -997})
    score = int(Path(f"/proc/{low.pid}/oom_score_adj").read_text())
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert score in (-997, own)


def _update(container: Container, **fields: Any) -> None:
    request = cri.UpdateContainerResourcesRequest(
        container_id=container.id,
        linux=cri.LinuxContainerResources(**fields),
    )
    container.runtime.UpdateContainerResources(request)


@pytest.mark.kernel
def test_updates_reach_the_kernel(client: Client) -> None:
    pod = client.pod()
    running = pod.run(resources={"memory_limit_in_bytes": 64 * MIB})
    _update(running, memory_limit_in_bytes=96 * MIB)
    assert _memory_limit(running) == 96 * MIB
    created = pod.create("/bin/sleep", "2147483", resources={"memory_limit_in_bytes": 64 * MIB})
    _update(created, memory_limit_in_bytes=48 * MIB)
    created.start()
    assert _memory_limit(created) == 48 * MIB


def test_update_of_a_running_container(client: Client) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 64 * MIB, "cpu_shares": 512})
    _update(container, memory_limit_in_bytes=96 * MIB)
    resources = container.status().resources.linux
    # What the update did not name stays.
    assert (resources.memory_limit_in_bytes, resources.cpu_shares) == (96 * MIB, 512)


def test_update_of_a_created_container_counts_at_start(client: Client) -> None:
    container = client.pod().create("/bin/sleep", "2147483", resources={"memory_limit_in_bytes": 64 * MIB})
    _update(container, memory_limit_in_bytes=48 * MIB)
    assert container.status().resources.linux.memory_limit_in_bytes == 48 * MIB
    container.start()
    assert container.status().resources.linux.memory_limit_in_bytes == 48 * MIB


def test_update_of_an_ended_container_is_kept(client: Client) -> None:
    container = client.once("/bin/true", resources={"memory_limit_in_bytes": 64 * MIB})
    _update(container, memory_limit_in_bytes=48 * MIB)
    assert container.status().resources.linux.memory_limit_in_bytes == 48 * MIB


def test_a_failed_update_changes_nothing(client: Client, server: Server) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 64 * MIB})
    # The memory limit is written before the processors are refused.
    with server.refusing_update(), pytest.raises(RpcError):
        _update(container, memory_limit_in_bytes=96 * MIB, cpuset_cpus="900")
    assert container.status().resources.linux.memory_limit_in_bytes == 64 * MIB
    assert container.status().resources.linux.cpuset_cpus == ""
    _update(container, memory_limit_in_bytes=80 * MIB)
    assert container.status().resources.linux.memory_limit_in_bytes == 80 * MIB


@pytest.mark.kernel
def test_a_failed_update_leaves_the_kernels_limits(client: Client) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 64 * MIB})
    with rejected(StatusCode.FAILED_PRECONDITION, "linux.cpuset_cpus"):
        _update(container, memory_limit_in_bytes=96 * MIB, cpuset_cpus="900")
    assert _memory_limit(container) == 64 * MIB


IMPOSSIBLE = pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"cpu_shares": -1}, "cpu_shares"),
        ({"cpu_shares": 1}, "cpu_shares"),
        ({"cpu_shares": 262_145}, "cpu_shares"),
        ({"cpu_period": 10}, "cpu_period"),
        ({"cpu_quota": 10}, "cpu_quota"),
        ({"memory_limit_in_bytes": -2}, "memory_limit_in_bytes"),
        ({"cpuset_cpus": "3-1"}, "cpuset_cpus"),
        ({"oom_score_adj": 1001}, "oom_score_adj"),
        ({"unified": {"../cpu.max": "1"}}, "unified"),
        ({"unified": {"cgroup.procs": "1"}}, "unified"),
        ({"hugepage_limits": [cri.HugepageLimit(page_size="big", limit=1)]}, "hugepage_limits"),
        ({"hugepage_limits": [cri.HugepageLimit(page_size="3KB", limit=1)]}, "hugepage_limits"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)


@IMPOSSIBLE
def test_impossible_updates_are_refused_by_name(client: Client, fields: dict[str, Any], named: str) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 64 * MIB})
    with rejected(StatusCode.INVALID_ARGUMENT, f"linux.{named}"):
        _update(container, **({"memory_limit_in_bytes": 96 * MIB} | fields))
    assert container.status().resources.linux.memory_limit_in_bytes == 64 * MIB


@IMPOSSIBLE
def test_impossible_limits_are_refused_by_name(client: Client, fields: dict[str, Any], named: str) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, f"config.linux.resources.{named}"):
        client.pod().run(resources=fields)


def test_an_update_for_windows_is_refused(client: Client) -> None:
    container = client.pod().run()
    request = cri.UpdateContainerResourcesRequest(container_id=container.id)
    request.windows.cpu_count = 1
    with rejected(StatusCode.INVALID_ARGUMENT, "windows"):
        container.runtime.UpdateContainerResources(request)


def test_updates_outlive_the_server(client: Client, server: Server) -> None:
    pod = client.pod()
    container = pod.run(resources={"memory_limit_in_bytes": 64 * MIB})
    _update(container, memory_limit_in_bytes=96 * MIB)
    _update_pod(client, pod.id, resources={"cpu_shares": 512})
    server.restart()
    assert container.status().resources.linux.memory_limit_in_bytes == 96 * MIB
    assert _info(pod)["resources"] == {"cpu_shares": 512}


def _update_pod(client: Client, id: str, **parts: dict[str, int]) -> None:
    request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=id)
    for part, fields in parts.items():
        getattr(request, part).MergeFrom(cri.LinuxContainerResources(**fields))  # type: ignore[arg-type]
    client.runtime.UpdatePodSandboxResources(request)


def _info(pod: Pod) -> dict[str, Any]:
    return decoded(pod.full_status(verbose=True).info)


def test_what_a_pod_has_as_a_whole_is_noted(client: Client) -> None:
    pod = client.pod()
    _update_pod(client, pod.id, overhead={"cpu_shares": 10}, resources={"memory_limit_in_bytes": MIB})
    _update_pod(client, pod.id, resources={"cpu_shares": 1024})
    assert _info(pod)["overhead"] == {"cpu_shares": 10}
    assert _info(pod)["resources"] == {"cpu_shares": 1024}
    with rejected(StatusCode.INVALID_ARGUMENT, "resources.cpu_shares"):
        _update_pod(client, pod.id, resources={"cpu_shares": -5})
    with rejected(StatusCode.NOT_FOUND, "nobody"):
        _update_pod(client, "nobody", resources={"cpu_shares": 5})
    pod.stop()
    with rejected(StatusCode.FAILED_PRECONDITION, "not ready"):
        _update_pod(client, pod.id, resources={"cpu_shares": 5})


@pytest.mark.kernel
def test_a_bad_cpuset_is_an_error_that_names_it(client: Client) -> None:
    pod = client.pod()
    with rejected(StatusCode.FAILED_PRECONDITION, "config.linux.resources.cpuset_cpus: '900' has 900"):
        pod.create("/bin/true", resources={"cpuset_cpus": "900"})
    allowed = str(min(os.sched_getaffinity(0)))
    container = pod.run(resources={"cpuset_cpus": allowed})
    assert (_cgroup(container, "cpuset") / "cpuset.cpus").read_text().strip() == allowed


def test_ids_in_cgroup_parents_must_be_absolute(client: Client) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "cgroup_parent"):
        client.pod(cgroup_parent="../../escape")
