"""Sandboxes through the socket: states, what statuses echo, removal, and nothing left after a failure."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, rejected
from tests.behaviour.server import Server
from tests.behaviour.stage import until

UNKNOWN = "f" * 64


def test_version_names_runtime_and_api(client: Client) -> None:
    answer = client.runtime.Version(cri.VersionRequest())
    assert answer.runtime_name == "podwright"
    assert answer.runtime_api_version == "v1"
    assert answer.runtime_version


def test_status_reports_both_conditions(client: Client) -> None:
    conditions = client.runtime.Status(cri.StatusRequest()).status.conditions
    assert {c.type: c.status for c in conditions} == {"RuntimeReady": True, "NetworkReady": True}


def test_status_lists_handlers_and_features(client: Client) -> None:
    answer = client.runtime.Status(cri.StatusRequest(verbose=True))
    names = {handler.name for handler in answer.runtime_handlers}
    assert {"", "crun", "runc"} <= names
    assert answer.features.supplemental_groups_policy
    # Not all hosts can make user namespaces for pods.
    able = any(handler.features.user_namespaces for handler in answer.runtime_handlers)
    assert answer.features.user_namespaces_host_network == able
    assert answer.info


def test_runtime_config_tells_the_cgroup_driver(client: Client) -> None:
    assert client.runtime.RuntimeConfig(cri.RuntimeConfigRequest()).linux.cgroup_driver == cri.CGROUPFS


def test_pod_addresses_are_kept(client: Client, server: Server) -> None:
    def update(cidr: str) -> None:
        network = cri.NetworkConfig(pod_cidr=cidr)
        client.runtime.UpdateRuntimeConfig(
            cri.UpdateRuntimeConfigRequest(runtime_config=cri.RuntimeConfig(network_config=network))
        )

    update("10.77.0.0/24,fd77::/64")
    update("")
    with rejected(StatusCode.INVALID_ARGUMENT, "pod_cidr"):
        update("10.77.0.0/240")
    server.restart()
    answer = client.runtime.Status(cri.StatusRequest(verbose=True))
    assert answer.info["podCIDR"] == "10.77.0.0/24,fd77::/64"


def test_unknown_rpcs_are_unimplemented(client: Client) -> None:
    with client.server.connect() as channel, rejected(StatusCode.UNIMPLEMENTED):
        unknown: Any = channel.unary_unary("/runtime.v1.RuntimeService/CheckpointPod")
        unknown(b"")


def test_sandbox_status_echoes_the_request(client: Client) -> None:
    labels = {"io.kubernetes.pod.uid": "u", "odd/key": "", "ünï": "ço∂é"}
    annotations = {"a": "b" * 1000, "line": "one\ntwo"}
    before = time.time_ns()
    pod = client.pod(labels=labels, annotations=annotations, hostname="echo", attempt=3)
    status = pod.status()
    assert status.id == pod.id and len(pod.id) == 64
    assert status.metadata == pod.config.metadata
    assert status.state == cri.SANDBOX_READY
    assert before <= status.created_at <= time.time_ns()
    assert dict(status.labels) == labels
    assert dict(status.annotations) == annotations
    assert status.linux.namespaces.options == pod.config.linux.security_context.namespace_options
    assert status.runtime_handler == ""


def test_sandbox_list_echoes_the_request(client: Client) -> None:
    pod = client.pod(labels={"a": "b"}, annotations={"c": "d"}, handler="crun")
    request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(id=pod.id))
    [item] = client.runtime.ListPodSandbox(request).items
    assert item.metadata == pod.config.metadata
    assert (dict(item.labels), dict(item.annotations)) == ({"a": "b"}, {"c": "d"})
    assert item.runtime_handler == "crun"
    assert item.created_at == pod.status().created_at


def test_sandbox_filters_are_joined_by_and(client: Client) -> None:
    one = client.pod(labels={"app": "x", "tier": "1"})
    two = client.pod(labels={"app": "x", "tier": "2"})
    two.stop()

    def found(**fields: object) -> set[str]:
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(**fields))  # type: ignore[arg-type]
        return {item.id for item in client.runtime.ListPodSandbox(request).items}

    ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
    assert found(label_selector={"app": "x"}) == {one.id, two.id}
    assert found(label_selector={"app": "x"}, state=ready) == {one.id}
    assert found(label_selector={"app": "x", "tier": "2"}) == {two.id}
    assert found(label_selector={"app": "y"}) == set()
    assert found(id=one.id, label_selector={"tier": "2"}) == set()


def test_verbose_sandbox_status_tells_more(client: Client) -> None:
    pod = client.pod()
    answer = pod.full_status(verbose=True)
    assert isinstance(json.loads(answer.info["info"]), dict)
    assert answer.status == pod.status()
    assert not pod.full_status().info


@pytest.mark.kernel
def test_verbose_sandbox_status_names_the_network_namespace(client: Client) -> None:
    pod = client.pod()
    info = json.loads(pod.full_status(verbose=True).info["info"])
    assert Path(info["netns"]).exists()
    assert info["netNamespaceClosed"] is False


def test_stop_can_be_repeated_and_sandbox_stays_listed(client: Client) -> None:
    pod = client.pod()
    for _ in range(3):
        pod.stop()
    assert pod.status().state == cri.SANDBOX_NOTREADY
    listed = client.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
    assert pod.id in {item.id for item in listed}
    pod.remove()
    pod.remove()
    with rejected(StatusCode.NOT_FOUND):
        pod.status()


def test_stop_and_remove_of_unknown_objects_succeed(client: Client) -> None:
    runtime = client.runtime
    runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=UNKNOWN))
    runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=UNKNOWN))
    runtime.StopContainer(cri.StopContainerRequest(container_id=UNKNOWN))
    runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=UNKNOWN))
    spec = cri.ImageSpec(image="localhost/never/was:1")
    client.images.RemoveImage(cri.RemoveImageRequest(image=spec))


def test_other_calls_for_unknown_objects_say_not_found(client: Client) -> None:
    runtime = client.runtime
    with rejected(StatusCode.NOT_FOUND):
        runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=UNKNOWN))
    with rejected(StatusCode.NOT_FOUND):
        runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=UNKNOWN))
    with rejected(StatusCode.NOT_FOUND):
        runtime.StartContainer(cri.StartContainerRequest(container_id=UNKNOWN))
    with rejected(StatusCode.NOT_FOUND):
        runtime.ExecSync(cri.ExecSyncRequest(container_id=UNKNOWN, cmd=["true"]))
    with rejected(StatusCode.NOT_FOUND):
        runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=UNKNOWN))
    with rejected(StatusCode.NOT_FOUND):
        runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=UNKNOWN))
    with rejected(StatusCode.NOT_FOUND):
        config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="x"))
        runtime.CreateContainer(cri.CreateContainerRequest(pod_sandbox_id=UNKNOWN, config=config))


def test_remove_of_a_ready_sandbox_stops_it_first(client: Client) -> None:
    pod = client.pod()
    container = pod.run()
    with client.events() as events:
        pod.remove()
        assert events.kinds(4) == [
            ("STOPPED", container.id),
            ("STOPPED", pod.id),
            ("DELETED", container.id),
            ("DELETED", pod.id),
        ]
    with rejected(StatusCode.NOT_FOUND):
        container.status()
    with rejected(StatusCode.NOT_FOUND):
        pod.status()


@pytest.mark.kernel
def test_no_process_outlives_the_removal_of_its_sandbox(client: Client) -> None:
    pod = client.pod()
    pid = pod.run().pid
    pod.remove()
    assert not Path(f"/proc/{pid}").exists()


def test_stop_of_a_sandbox_ends_its_containers_without_grace(client: Client) -> None:
    pod = client.pod()
    container = pod.shell("trap 'echo term' TERM; echo up; while :; do sleep 0.1; done")
    container.await_output("up")
    began = time.monotonic()
    pod.stop()
    assert time.monotonic() - began < 5
    status = container.status()
    assert (status.state, status.exit_code) == (cri.CONTAINER_EXITED, 137)
    assert "term" not in container.output()


def test_a_stopped_sandbox_takes_no_container(client: Client) -> None:
    pod = client.pod()
    pod.stop()
    with rejected(StatusCode.FAILED_PRECONDITION):
        pod.create("/bin/true")


def test_an_unknown_handler_is_refused(client: Client) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "nonesuch"):
        client.pod(handler="nonesuch")


@pytest.mark.parametrize("missing", ["name", "namespace", "uid"])
def test_incomplete_sandbox_metadata_is_refused(client: Client, missing: str) -> None:
    config = client.pod_config()
    config.metadata.ClearField(missing)
    with rejected(StatusCode.INVALID_ARGUMENT, missing):
        client.pod(config)


@pytest.mark.kernel
def test_a_failed_sandbox_leaves_nothing(client: Client, server: Server) -> None:
    config = client.pod_config(sysctls={"net.ipv4.no_such_key": "1"})
    before = server.leftovers()
    for _ in range(2):
        # The second attempt shows that the name was given back as well.
        with rejected(StatusCode.INVALID_ARGUMENT, "net.ipv4.no_such_key"):
            client.pod(config)
    assert server.leftovers() == before
    assert not client.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items


def test_a_failed_network_leaves_nothing(client: Client, server: Server) -> None:
    before = server.leftovers()
    with server.broken_network() as words, rejected(StatusCode.UNAVAILABLE, words):
        client.pod()
    assert server.leftovers() == before
    until(lambda: _network_ready(client), "the repaired configuration to be noticed")
    client.pod()


def test_missing_network_configuration_is_reported_and_noticed(client: Client, server: Server) -> None:
    with server.without_network() as words:
        until(lambda: not _network_ready(client), "NetworkReady to turn false")
        status = client.runtime.Status(cri.StatusRequest()).status
        [condition] = [c for c in status.conditions if c.type == "NetworkReady"]
        assert condition.reason and words in condition.message
        client.runtime.Version(cri.VersionRequest())
        # Host network needs no configuration.
        assert client.pod(network=cri.NODE).status().state == cri.SANDBOX_READY
    until(lambda: _network_ready(client), "NetworkReady to turn true")


def _network_ready(client: Client) -> bool:
    conditions = client.runtime.Status(cri.StatusRequest()).status.conditions
    return bool(next(c.status for c in conditions if c.type == "NetworkReady"))
