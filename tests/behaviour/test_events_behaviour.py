"""GetContainerEvents: what is told, in which order, and what becomes of those who listen badly."""

from __future__ import annotations

import time

import pytest
from grpc import RpcError, StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, rejected
from tests.behaviour.server import Server
from tests.behaviour.stage import until


def test_events_tell_the_whole_life_of_a_pod(client: Client) -> None:
    client.image()
    with client.events() as events:
        pod = client.pod()
        container = pod.run()
        container.stop()
        container.remove()
        pod.stop()
        pod.remove()
        assert events.kinds(8) == [
            ("CREATED", pod.id),
            ("STARTED", pod.id),
            ("CREATED", container.id),
            ("STARTED", container.id),
            ("STOPPED", container.id),
            ("DELETED", container.id),
            ("STOPPED", pod.id),
            ("DELETED", pod.id),
        ]
        assert events.another() is None


def test_an_event_carries_the_statuses_of_its_moment(client: Client) -> None:
    client.image()
    with client.events() as events:
        before = time.time_ns()
        pod = client.pod(labels={"app": "told"}, annotations={"a": "b"})
        container = pod.run("/bin/sh", "-c", "exit 3", labels={"part": "one"}).ended()
        container.remove()
        told = [events.next() for _ in range(6)]
    assert all(event.pod_sandbox_status == pod.status() for event in told)
    times = [event.created_at for event in told]
    assert times == sorted(times) and before <= times[0] <= times[-1] <= time.time_ns()
    sandbox_created, sandbox_started, created, started, stopped, deleted = told
    assert not sandbox_created.containers_statuses and not sandbox_started.containers_statuses
    for event, state in (
        (created, cri.CONTAINER_CREATED),
        (started, cri.CONTAINER_RUNNING),
        (stopped, cri.CONTAINER_EXITED),
    ):
        [status] = event.containers_statuses
        assert (status.id, status.state) == (container.id, state)
        assert dict(status.labels) == {"part": "one"}
    [status] = stopped.containers_statuses
    assert (status.exit_code, status.reason) == (3, "Error")
    # What has been removed has no status any more.
    assert deleted.container_id == container.id and not deleted.containers_statuses


def test_events_of_one_container_show_the_others_of_its_pod(client: Client) -> None:
    pod = client.pod()
    first = pod.run()
    with client.events() as events:
        second = pod.create("/bin/true")
        event = events.next()
    states = {status.id: status.state for status in event.containers_statuses}
    assert states == {first.id: cri.CONTAINER_RUNNING, second.id: cri.CONTAINER_CREATED}


def test_statuses_of_a_pods_containers_have_the_newest_first(client: Client) -> None:
    pod = client.pod()
    attempts = [pod.create("/bin/true", name="main", attempt=attempt) for attempt in range(3)]
    with client.events() as events:
        attempts.append(pod.create("/bin/true", name="main", attempt=3))
        event = events.next()
    newest_first = [each.id for each in reversed(attempts)]
    assert [status.id for status in event.containers_statuses] == newest_first
    answer = client.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id))
    assert [status.id for status in answer.containers_statuses] == newest_first


def test_events_begin_when_somebody_listens(client: Client) -> None:
    pod = client.pod()
    pod.run("/bin/true").ended()
    with client.events() as events:
        assert events.another() is None
        container = pod.create("/bin/true")
        assert events.kinds(1) == [("CREATED", container.id)]


def test_repeated_stops_are_one_event(client: Client) -> None:
    pod = client.pod()
    container = pod.run()
    with client.events() as events:
        for _ in range(3):
            container.stop()
        for _ in range(3):
            pod.stop()
        assert events.kinds(2) == [("STOPPED", container.id), ("STOPPED", pod.id)]
        assert events.another() is None


def test_everybody_who_listens_hears_the_same(client: Client) -> None:
    client.image()
    with client.events() as one, client.events() as two, client.events() as three:
        client.pod().run("/bin/true").ended()
        heard = [[each.next() for _ in range(5)] for each in (one, two, three)]
    assert heard[0] == heard[1] == heard[2]


def test_a_listener_that_does_not_read_holds_nobody_up(client: Client) -> None:
    client.image()
    # More than the connection's buffers take, soon.
    pod = client.pod(annotations={"long": "x" * 100_000})
    deaf = client.runtime.GetContainerEvents(cri.GetEventsRequest())
    deaf.initial_metadata()
    try:
        with client.events() as events:
            containers = [pod.create("/bin/true") for _ in range(20)]
            began = time.monotonic()
            assert events.kinds(20) == [("CREATED", container.id) for container in containers]
            assert time.monotonic() - began < 5
        # It hears what it has missed as soon as it reads.
        assert [next(deaf).container_id for _ in range(20)] == [container.id for container in containers]
    finally:
        deaf.cancel()


def test_a_listener_that_has_lost_events_is_told(client: Client) -> None:
    client.image()
    pod = client.pod(annotations={"long": "x" * 3_000_000})
    deaf = client.runtime.GetContainerEvents(cri.GetEventsRequest())
    deaf.initial_metadata()
    for _ in range(20):
        pod.create("/bin/true").remove()
    with rejected(StatusCode.RESOURCE_EXHAUSTED, "events are lost"):
        for _ in deaf:
            pass
    with client.events() as events:
        container = pod.create("/bin/true")
        assert events.kinds(1) == [("CREATED", container.id)]


def test_a_listener_that_leaves_is_forgotten(client: Client, server: Server) -> None:
    left = "GetContainerEvents: the client left"
    before = server.words(1 << 30).count(left)
    for _ in range(3):
        with client.events():
            pass
    until(lambda: server.words(1 << 30).count(left) == before + 3, "the server to notice")
    client.pod().run("/bin/true").ended()


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_the_stream_ends_when_the_server_does(client: Client, server: Server, how: str) -> None:
    with client.events() as events:
        pod = client.pod()
        assert events.kinds(2) == [("CREATED", pod.id), ("STARTED", pod.id)]
        began = time.monotonic()
        getattr(server, how)()
        # Calls in flight get longer than that to end by themselves; a stream never would.
        assert time.monotonic() - began < 5
        with pytest.raises(RpcError) as caught:
            events.next()
        assert caught.value.code() == StatusCode.UNAVAILABLE
    server.start()
    with client.events() as events:
        other = client.pod()
        assert events.kinds(2) == [("CREATED", other.id), ("STARTED", other.id)]
