"""Containers through the socket: their life, what their status says, how they stop and end."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, alive, mount, rejected
from tests.behaviour.stage import until


def test_a_container_goes_from_created_to_running_to_exited(client: Client) -> None:
    pod = client.pod()
    container = pod.create("/bin/sh", "-c", "read line; exit 3", stdin=False)
    status = container.status()
    assert status.state == cri.CONTAINER_CREATED
    assert status.created_at > 0
    assert (status.started_at, status.finished_at, status.exit_code) == (0, 0, 0)
    container.start()
    status = container.ended().status()
    assert status.created_at < status.started_at <= status.finished_at
    assert time.time_ns() - status.finished_at < 60e9
    container.remove()
    with rejected(StatusCode.NOT_FOUND):
        container.status()


def test_container_status_echoes_the_request(client: Client) -> None:
    pod = client.pod()
    labels, annotations = {"io.kubernetes.container.name": "c"}, {"io.kubernetes.container.hash": "1"}
    resources = {"cpu_shares": 512, "memory_limit_in_bytes": 64 << 20}
    mounts = [mount("/tmp", "/mnt", readonly=True, propagation=cri.PROPAGATION_PRIVATE)]
    container = pod.run(
        name="echo", attempt=2, labels=labels, annotations=annotations, resources=resources, mounts=mounts
    )
    status = container.status()
    assert status.id == container.id and len(container.id) == 64
    assert status.metadata == cri.ContainerMetadata(name="echo", attempt=2)
    assert dict(status.labels) == labels
    assert dict(status.annotations) == annotations
    assert list(status.mounts) == mounts
    assert status.log_path == str(container.log_file)
    assert status.resources.linux.cpu_shares == 512
    assert status.resources.linux.memory_limit_in_bytes == 64 << 20
    assert status.user.linux.uid == 0
    assert status.stop_signal == cri.SIGTERM
    assert status.reason == "" and status.message == ""


def test_container_status_names_its_image_in_three_ways(client: Client) -> None:
    reference = client.registry.reference("busybox")
    container = client.pod().create("/bin/true")
    status = container.status()
    assert status.image_id == client.registry.ids["busybox"]
    assert status.image.image == reference
    assert status.image_ref.startswith(f"{reference.rpartition(':')[0]}@sha256:")
    [listed] = client.runtime.ListContainers(
        cri.ListContainersRequest(filter=cri.ContainerFilter(id=container.id))
    ).containers
    assert listed.image_ref == listed.image_id == status.image_id


def test_an_image_id_is_enough_to_create(client: Client) -> None:
    pod = client.pod()
    config = pod.container_config("/bin/true")
    config.image.CopyFrom(cri.ImageSpec(image=client.registry.ids["busybox"]))
    assert pod.create(config=config).status().image_id == client.registry.ids["busybox"]


def test_an_absent_image_is_not_found(client: Client) -> None:
    pod = client.pod()
    config = pod.container_config("/bin/true")
    config.image.CopyFrom(cri.ImageSpec(image=client.registry.reference("never-pulled")))
    with rejected(StatusCode.NOT_FOUND, "never-pulled"):
        pod.create(config=config)


def test_container_filters_are_joined_by_and(client: Client) -> None:
    pod, other = client.pod(), client.pod()
    one = pod.run(labels={"app": "x"})
    two = pod.create("/bin/true", labels={"app": "x"})
    three = other.run(labels={"app": "x"})

    def found(**fields: object) -> set[str]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(**fields))  # type: ignore[arg-type]
        return {c.id for c in client.runtime.ListContainers(request).containers}

    running = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    assert found(label_selector={"app": "x"}) == {one.id, two.id, three.id}
    assert found(state=running) == {one.id, three.id}
    assert found(state=running, pod_sandbox_id=pod.id) == {one.id}
    assert found(id=two.id, state=running) == set()


def test_start_works_once_only(client: Client) -> None:
    pod = client.pod()
    running = pod.run()
    with rejected(StatusCode.FAILED_PRECONDITION):
        running.start()
    ended = pod.run("/bin/true").ended()
    with rejected(StatusCode.FAILED_PRECONDITION):
        ended.start()
    assert ended.status().state == cri.CONTAINER_EXITED


def test_stop_of_a_container_that_does_not_run_succeeds_at_once(client: Client) -> None:
    pod = client.pod()
    created = pod.create("/bin/true")
    created.stop(30)
    ended = pod.run("/bin/true").ended()
    ended.stop(30)
    assert ended.status().exit_code == 0


def test_remove_of_a_running_container_stops_it_first(client: Client) -> None:
    container = client.pod().run()
    with client.events() as events:
        container.remove()
        stopped, deleted = events.next(), events.next()
    assert (stopped.container_event_type, deleted.container_event_type) == (
        cri.CONTAINER_STOPPED_EVENT,
        cri.CONTAINER_DELETED_EVENT,
    )
    [status] = stopped.containers_statuses
    assert (status.id, status.state, status.exit_code) == (container.id, cri.CONTAINER_EXITED, 137)
    with rejected(StatusCode.NOT_FOUND):
        container.status()
    container.remove()


@pytest.mark.kernel
def test_no_process_outlives_the_removal_of_its_container(client: Client) -> None:
    container = client.pod().run()
    pid = container.pid
    container.remove()
    assert not alive(pid)


def test_remove_keeps_the_log_file(client: Client) -> None:
    container = client.once("/bin/echo", "kept")
    container.remove()
    assert container.output() == "kept\n"


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (1, "Error"), (77, "Error"), (255, "Error")])
def test_exit_codes_and_reasons(client: Client, code: int, reason: str) -> None:
    status = client.once("/bin/sh", "-c", f"exit {code}").status()
    assert (status.exit_code, status.reason) == (code, reason)


def test_death_by_a_signal_is_128_and_its_number(client: Client) -> None:
    # As the first process of a PID namespace it would be spared: it shares the pod's.
    pod = client.pod(pid=cri.POD)
    for name, number in (("KILL", 9), ("TERM", 15), ("HUP", 1)):
        status = pod.shell(f"kill -{name} $$; sleep 60").ended().status()
        assert (status.exit_code, status.reason) == (128 + number, "Error")


@pytest.mark.kernel
def test_death_by_a_signal_from_outside(client: Client) -> None:
    container = client.pod().run()
    os.kill(container.pid, signal.SIGKILL)
    status = container.ended().status()
    assert (status.exit_code, status.reason) == (137, "Error")


def test_out_of_memory_is_told_from_a_plain_kill(client: Client) -> None:
    eat = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"
    container = client.once("/bin/sh", "-c", eat, resources={"memory_limit_in_bytes": 16 << 20})
    status = container.status()
    if status.exit_code != 137:
        # The shell survived the end of its child; the kill counts all the same.
        assert "survived" not in container.output() or status.reason == "OOMKilled"
    assert status.reason == "OOMKilled"


def test_out_of_memory_of_the_first_process(client: Client) -> None:
    eat = "exec tail /dev/zero"
    status = client.once("/bin/sh", "-c", eat, resources={"memory_limit_in_bytes": 16 << 20}).status()
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_a_program_that_cannot_start_gives_start_error(client: Client) -> None:
    pod = client.pod()
    # An OCI runtime finds out when it creates the container: that is told by its start all the same.
    container = pod.create("/no/such/program", name="broken")
    assert container.status().state == cri.CONTAINER_CREATED
    with pytest.raises(grpc.RpcError, match="/no/such/program"):
        container.start()
    status = container.status()
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "/no/such/program" in status.message
    assert status.started_at == 0 or status.finished_at >= status.started_at


def test_stop_sends_the_signal_and_waits(client: Client) -> None:
    container = client.pod().shell("trap 'echo got term; exit 9' TERM; echo up; while :; do sleep 0.05; done")
    container.await_output("up")
    container.stop(20)
    status = container.status()
    assert (status.state, status.exit_code) == (cri.CONTAINER_EXITED, 9)
    assert "got term" in container.output()


def test_stop_kills_what_ignores_the_signal(client: Client) -> None:
    container = client.pod().shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
    container.await_output("up")
    began = time.monotonic()
    container.stop(1)
    assert 0.9 < time.monotonic() - began < 8
    assert container.status().exit_code == 137


def test_stop_without_grace_kills_at_once(client: Client) -> None:
    container = client.pod().shell("trap 'echo got term' TERM; echo up; while :; do sleep 0.05; done")
    container.await_output("up")
    container.stop(0)
    assert container.status().exit_code == 137
    assert "got term" not in container.output()


def test_repeated_stops_send_the_signal_once(client: Client) -> None:
    script = (
        "trap 'echo term' TERM; echo up; i=0; while [ $i -lt 40 ]; do sleep 0.05; i=$((i+1)); done; exit 4"
    )
    container = client.pod().shell(script)
    container.await_output("up")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(container.stop, [20, 20, 20]))
    assert container.output().count("term") == 1
    assert container.status().exit_code == 4


def test_a_shorter_stop_overtakes_a_longer_one(client: Client) -> None:
    container = client.pod().shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
    container.await_output("up")
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(container.stop, 60)
        began = time.monotonic()
        container.stop(0)
        long.result(20)
    assert time.monotonic() - began < 10


def test_a_client_that_gives_up_on_stop_may_ask_again(client: Client) -> None:
    container = client.pod().shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
    container.await_output("up")
    request = cri.StopContainerRequest(container_id=container.id, timeout=60)
    with rejected(StatusCode.DEADLINE_EXCEEDED):
        client.runtime.StopContainer(request, timeout=0.3)
    assert container.status().state == cri.CONTAINER_RUNNING
    container.stop(0)
    assert container.status().exit_code == 137


def test_the_stop_signal_of_the_container_wins(client: Client) -> None:
    script = (
        "trap 'exit 10' USR1; trap 'exit 12' USR2; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done"
    )
    pod = client.pod()
    plain = pod.shell(script)
    of_image = pod.shell(script, image="stop-signal")
    own = pod.shell(script, image="stop-signal", stop_signal=cri.SIGUSR2)
    for container, code, effective in (
        (plain, 15, cri.SIGTERM),
        (of_image, 10, cri.SIGUSR1),
        (own, 12, cri.SIGUSR2),
    ):
        container.await_output("up")
        assert container.status().stop_signal == effective
        container.stop(20)
        assert container.status().exit_code == code


def test_verbose_container_status_tells_more(client: Client) -> None:
    container = client.pod().run()
    request = cri.ContainerStatusRequest(container_id=container.id, verbose=True)
    answer = client.runtime.ContainerStatus(request)
    info = json.loads(answer.info["info"])
    assert info["pid"] > 0
    assert info["sandboxID"] == container.pod.id
    assert answer.status == container.status()
    plain = client.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container.id))
    assert not plain.info


@pytest.mark.kernel
def test_verbose_container_status_has_pid_and_spec(client: Client) -> None:
    container = client.pod().run()
    request = cri.ContainerStatusRequest(container_id=container.id, verbose=True)
    info = json.loads(client.runtime.ContainerStatus(request).info["info"])
    assert info["pid"] == container.pid  # which has become the program by now
    assert Path(f"/proc/{info['pid']}/exe").readlink().name in ("busybox", "sleep")
    assert info["runtimeSpec"]["process"]["args"][0] == "/bin/sleep"


def test_an_exit_is_noticed_without_being_asked(client: Client) -> None:
    container = client.pod().shell("exit 5")
    listed = cri.ListContainersRequest(filter=cri.ContainerFilter(id=container.id))

    def state() -> int:
        return int(client.runtime.ListContainers(listed).containers[0].state)

    until(lambda: state() == cri.CONTAINER_EXITED, "the list to show the exit")


@pytest.mark.kernel
def test_a_frozen_container_reports_running(client: Client) -> None:
    container = client.pod().run()
    os.kill(container.pid, signal.SIGSTOP)
    assert container.status().state == cri.CONTAINER_RUNNING
    container.stop(0)


def test_many_containers_share_one_pod(client: Client) -> None:
    pod = client.pod()
    with ThreadPoolExecutor(4) as pool:
        containers = list(pool.map(lambda n: pod.run(name=f"many{n}"), range(6)))
    assert all(c.status().state == cri.CONTAINER_RUNNING for c in containers)
    pod.stop()
    assert {c.status().state for c in containers} == {cri.CONTAINER_EXITED}
