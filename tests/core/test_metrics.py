"""Metrics: labels in the order of their descriptors, of whom they are, and the same as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from podwright.core import streams
from podwright.core.metric_table import LABELS, TABLE
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri
from tests.testing import requests

kinds = {each.name: each.kind for each in TABLE}

SCENARIO = {
    "containers": [
        {"stats": {"cpu": 2, "memory": "100MiB", "processes": 3, "io_pressure": 0.5, "swap": "1MiB"}}
    ],
    "pods": [{"network": {"received": "1KB/s", "sent": "2KB/s"}}],
}


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode(SCENARIO) as node:
        yield node


async def measured(node: FakeNode) -> list[cri.PodSandboxMetrics]:
    answer = await node.cri.list_pod_sandbox_metrics(cri.ListPodSandboxMetricsRequest())
    return list(answer.pod_metrics)


def all_of(pods: list[cri.PodSandboxMetrics]) -> Iterator[cri.Metric]:
    for pod in pods:
        yield from pod.metrics
        for container in pod.container_metrics:
            yield from container.metrics


async def test_descriptors_name_each_metric_once(node: FakeNode) -> None:
    answer = await node.cri.list_metric_descriptors(cri.ListMetricDescriptorsRequest())
    assert max(Counter(each.name for each in answer.descriptors).values()) == 1
    for each in answer.descriptors:
        assert each.name.startswith("container_") and each.help.endswith(".")
        assert tuple(each.label_keys[:5]) == LABELS == ("pod", "namespace", "container", "id", "image")
        counts = each.name.endswith("_total") or each.name == "container_memory_failcnt"
        counter = kinds[each.name] == cri.MetricType.COUNTER
        assert counter == (counts and each.name != "container_fs_inodes_total"), each.name


async def test_the_set_is_what_containerd_and_crio_report() -> None:
    names = set(kinds)
    for group, count in {
        "container_cpu_": 6,
        "container_memory_": 12,
        "container_network_": 8,
        "container_fs_": 8,
        "container_hugetlb_": 2,
        "container_pressure_": 6,
        "container_spec_": 6,
    }.items():
        assert len([name for name in names if name.startswith(group)]) == count, group
    single = ["blkio_device_usage_total", "oom_events_total", "start_time_seconds", "last_seen", "processes"]
    single += ["threads", "threads_max", "file_descriptors", "sockets", "ulimits_soft"]
    assert {f"container_{name}" for name in single} <= names
    assert len(names) == 48 + len(single)


async def test_labels_are_those_of_the_descriptor_in_its_order(node: FakeNode) -> None:
    pod = await requests.run_pod(node.cri, "labelled")
    container = await requests.run_container(node.cri, pod)
    await node.advance("100s")
    answer = await node.cri.list_metric_descriptors(cri.ListMetricDescriptorsRequest())
    keys = {each.name: list(each.label_keys) for each in answer.descriptors}
    [found] = await measured(node)
    [part] = found.container_metrics
    assert (found.pod_sandbox_id, part.container_id) == (pod, container)
    status = (await node.cri.container_status(cri.ContainerStatusRequest(container_id=container))).status
    sandbox = (await node.cri.pod_sandbox_status(cri.PodSandboxStatusRequest(pod_sandbox_id=pod))).status
    namespace = sandbox.metadata.namespace
    for each in all_of([found]):
        labels = dict(zip(keys[each.name], each.label_values, strict=True))
        assert each.metric_type == kinds[each.name]
        assert (labels["pod"], labels["namespace"]) == ("labelled", namespace)
        if each.name.startswith("container_network_"):
            assert (labels["container"], labels["id"], labels["image"]) == ("", pod, "")
            assert labels["interface"] == "eth0"
        else:
            assert (labels["container"], labels["id"]) == (status.metadata.name, container)
            assert labels["image"] == (status.image.user_specified_image or status.image.image)
    failures = [each for each in part.metrics if each.name == "container_memory_failures_total"]
    assert {tuple(each.label_values[5:]) for each in failures} == {
        (kind, scope) for kind in ("pgfault", "pgmajfault") for scope in ("container", "hierarchy")
    }


async def test_values_are_those_of_the_statistics(node: FakeNode) -> None:
    pod = await requests.run_pod(node.cri, "one")
    container = await requests.run_container(node.cri, pod)
    await node.advance("100s")
    stats = (await node.cri.container_stats(cri.ContainerStatsRequest(container_id=container))).stats
    status = (await node.cri.container_status(cri.ContainerStatusRequest(container_id=container))).status
    [found] = await measured(node)
    values = {each.name: each.value.value for each in found.container_metrics[0].metrics}
    assert values["container_cpu_usage_seconds_total"] == stats.cpu.usage_core_nano_seconds.value // 10**9
    assert values["container_cpu_usage_seconds_total"] == pytest.approx(200, abs=2)
    assert values["container_memory_working_set_bytes"] == stats.memory.working_set_bytes.value == 100 << 20
    assert values["container_memory_rss"] == stats.memory.rss_bytes.value
    assert values["container_memory_swap"] == 1 << 20
    assert values["container_processes"] == 3
    assert values["container_pressure_io_waiting_seconds_total"] == pytest.approx(50, abs=1)
    assert values["container_fs_usage_bytes"] == stats.writable_layer.used_bytes.value
    assert values["container_start_time_seconds"] == status.started_at // 10**9
    assert values["container_last_seen"] == node.world.clock.now() // 10**9
    traffic = {each.name: each.value.value for each in found.metrics}
    assert traffic["container_network_receive_bytes_total"] == pytest.approx(100_000, rel=0.02)
    assert traffic["container_network_transmit_bytes_total"] == pytest.approx(200_000, rel=0.02)


async def test_limits_are_those_that_hold_now(node: FakeNode) -> None:
    pod = await requests.run_pod(node.cri, "limited")
    container = await requests.run_container(node.cri, pod)
    resources = cri.LinuxContainerResources(
        cpu_period=50_000, cpu_quota=20_000, cpu_shares=512, memory_limit_in_bytes=1 << 30
    )
    await node.cri.update_container_resources(
        cri.UpdateContainerResourcesRequest(container_id=container, linux=resources)
    )
    [found] = await measured(node)
    values = {each.name: each.value.value for each in found.container_metrics[0].metrics}
    spec = {name.removeprefix("container_spec_"): value for name, value in values.items() if "_spec_" in name}
    assert spec["cpu_period"] == 50_000 and spec["cpu_quota"] == 20_000 and spec["cpu_shares"] == 512
    assert spec["memory_limit_bytes"] == 1 << 30
    assert spec["memory_reservation_limit_bytes"] == 0


async def test_only_what_runs_is_measured(node: FakeNode) -> None:
    ready, stopped = await requests.run_pod(node.cri, "ready"), await requests.run_pod(node.cri, "stopped")
    running, ended = [await requests.run_container(node.cri, ready, name) for name in ("a", "b")]
    await node.cri.stop_container(cri.StopContainerRequest(container_id=ended))
    await node.cri.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=stopped))
    [found] = await measured(node)
    assert found.pod_sandbox_id == ready
    assert [each.container_id for each in found.container_metrics] == [running]


async def test_the_stream_has_what_the_list_has_in_bounded_messages(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(45):
        await requests.run_container(node.cri, await requests.run_pod(node.cri, f"pod-{number}"))
    listed = await measured(node)
    assert len(listed) == 45
    largest = max(each.ByteSize() for each in listed)
    monkeypatch.setattr(streams, "CHUNK", 3 * largest)
    request = cri.StreamPodSandboxMetricsRequest()
    messages = [each async for each in node.cri.stream_pod_sandbox_metrics(request)]
    heard = [each for message in messages for each in message.pod_sandbox_metrics]
    for each in all_of([*listed, *heard]):
        each.timestamp = 0
    assert heard == listed
    assert len(messages) >= 15
    assert max(message.ByteSize() for message in messages) < 5 * largest
