"""Statistics: of whom they are, and how they hang together."""

from __future__ import annotations

import time

from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, Pod, rejected
from tests.behaviour.stage import until

MIB = 1 << 20


def _of_container(container: Container) -> cri.ContainerStats:
    request = cri.ContainerStatsRequest(container_id=container.id)
    answer: cri.ContainerStats = container.runtime.ContainerStats(request).stats
    return answer


def _of_pod(pod: Pod) -> cri.PodSandboxStats:
    request = cri.PodSandboxStatsRequest(pod_sandbox_id=pod.id)
    answer: cri.PodSandboxStats = pod.client.runtime.PodSandboxStats(request).stats
    return answer


def test_statistics_name_their_container_and_their_time(client: Client) -> None:
    before = time.time_ns()
    container = client.pod().run(name="counted", labels={"a": "b"}, annotations={"c": "d"})
    stats = _of_container(container)
    assert stats.attributes == cri.ContainerAttributes(
        id=container.id,
        metadata=cri.ContainerMetadata(name="counted"),
        labels={"a": "b"},
        annotations={"c": "d"},
    )
    for part in (stats.cpu, stats.memory, stats.writable_layer):
        assert before <= part.timestamp <= time.time_ns()


def test_memory_and_disk_are_what_a_running_container_has(client: Client) -> None:
    container = client.pod().run(resources={"memory_limit_in_bytes": 64 * MIB})
    # Empty directories take no room on every file system.
    container.sh("echo written > /file")
    stats = _of_container(container)
    memory = stats.memory
    assert 0 < memory.working_set_bytes.value <= memory.usage_bytes.value <= 64 * MIB
    assert memory.available_bytes.value == 64 * MIB - memory.working_set_bytes.value
    assert memory.rss_bytes.value <= memory.usage_bytes.value
    assert stats.writable_layer.used_bytes.value > 0
    assert stats.writable_layer.inodes_used.value > 0
    assert stats.writable_layer.fs_id.mountpoint


def test_counters_only_grow(client: Client) -> None:
    container = client.pod().shell(
        "while :; do i=0; while [ $i -lt 100 ]; do i=$((i+1)); done; sleep 0.01; done"
    )
    first = _of_container(container)

    def grown() -> bool:
        later = _of_container(container)
        assert later.cpu.timestamp > first.cpu.timestamp
        assert later.memory.page_faults.value >= first.memory.page_faults.value
        used = later.cpu.usage_core_nano_seconds.value - first.cpu.usage_core_nano_seconds.value
        assert used >= 0
        return used > 0

    until(grown, "the CPU time to grow")


def test_only_what_runs_has_statistics(client: Client) -> None:
    pod = client.pod()
    running, created, ended = pod.run(), pod.create("/bin/true"), pod.run("/bin/true").ended()
    listed = client.runtime.ListContainerStats(cri.ListContainerStatsRequest()).stats
    assert [stats.attributes.id for stats in listed] == [running.id]
    for container in (created, ended):
        with rejected(StatusCode.NOT_FOUND):
            _of_container(container)
    with rejected(StatusCode.NOT_FOUND):
        client.runtime.ContainerStats(cri.ContainerStatsRequest(container_id="f" * 64))
    with rejected(StatusCode.NOT_FOUND):
        client.runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id="f" * 64))


def test_statistics_filters_are_joined_by_and(client: Client) -> None:
    pod, other = client.pod(labels={"app": "x"}), client.pod(labels={"app": "y"})
    one, two = pod.run(labels={"part": "1"}), pod.run(labels={"part": "2"})
    three = other.run(labels={"part": "1"})

    def containers(**fields: object) -> set[str]:
        wanted = cri.ContainerStatsFilter(**fields)  # type: ignore[arg-type]
        answer = client.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=wanted))
        return {stats.attributes.id for stats in answer.stats}

    def pods(**fields: object) -> set[str]:
        wanted = cri.PodSandboxStatsFilter(**fields)  # type: ignore[arg-type]
        answer = client.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(filter=wanted))
        return {stats.attributes.id for stats in answer.stats}

    assert containers() == {one.id, two.id, three.id}
    assert containers(label_selector={"part": "1"}) == {one.id, three.id}
    assert containers(label_selector={"part": "1"}, pod_sandbox_id=pod.id) == {one.id}
    assert containers(id=two.id[:13], pod_sandbox_id=other.id) == set()
    assert pods() == {pod.id, other.id}
    assert pods(label_selector={"app": "y"}) == {other.id}
    assert pods(id=pod.id, label_selector={"app": "y"}) == set()


def test_a_pods_statistics_hold_those_of_its_containers(client: Client) -> None:
    pod = client.pod(name="summed", labels={"a": "b"})
    containers = [pod.run() for _ in range(3)]
    pod.run("/bin/true").ended()
    stats = _of_pod(pod)
    assert stats.attributes == cri.PodSandboxAttributes(
        id=pod.id, metadata=pod.config.metadata, labels={"a": "b"}
    )
    linux = stats.linux
    assert {each.attributes.id for each in linux.containers} == {each.id for each in containers}
    parts = sum(each.memory.working_set_bytes.value for each in linux.containers)
    assert linux.memory.working_set_bytes.value >= parts > 0
    assert linux.cpu.timestamp > 0
    assert linux.process.process_count.value >= 3
    assert linux.network.default_interface.name == "eth0"


def test_a_pod_that_is_not_ready_has_no_statistics(client: Client) -> None:
    pod = client.pod()
    pod.stop()
    assert not client.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest()).stats
    with rejected(StatusCode.NOT_FOUND):
        _of_pod(pod)


def test_metrics_are_labelled_as_their_descriptors_say(client: Client) -> None:
    pod = client.pod(name="metered", namespace="there")
    container = pod.run(name="measured")
    pod.run("/bin/true").ended()
    answer = client.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest())
    keys = {each.name: list(each.label_keys) for each in answer.descriptors}
    assert len(keys) == len(answer.descriptors) and all(each.help for each in answer.descriptors)
    [found] = client.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics
    assert found.pod_sandbox_id == pod.id
    [part] = found.container_metrics
    assert part.container_id == container.id, "only what runs"
    for each in (*found.metrics, *part.metrics):
        labels = dict(zip(keys[each.name], each.label_values, strict=True))
        of_pod = each.name.startswith("container_network_")
        assert labels["pod"] == "metered" and labels["namespace"] == "there"
        assert labels["id"] == (pod.id if of_pod else container.id)
        assert labels["container"] == ("" if of_pod else "measured")
        assert bool(labels["image"]) != of_pod
        assert each.timestamp > 0
    assert {each.label_values[5] for each in found.metrics} == {"eth0"}
    values = {each.name: each.value.value for each in part.metrics if len(each.label_values) == 5}
    assert values["container_memory_usage_bytes"] >= values["container_memory_working_set_bytes"] > 0
    assert values["container_processes"] >= 1
    assert (
        abs(values["container_last_seen"] - time.time()) < 3600 and values["container_start_time_seconds"] > 0
    )
    pod.stop()
    assert not client.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics


def test_the_stream_of_metrics_is_the_list(client: Client) -> None:
    pods = {client.pod(name=f"streamed-{number}").id for number in range(3)}
    messages = list(client.runtime.StreamPodSandboxMetrics(cri.StreamPodSandboxMetricsRequest()))
    assert {each.pod_sandbox_id for message in messages for each in message.pod_sandbox_metrics} == pods
