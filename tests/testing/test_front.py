"""The front: every call is recorded as it was, faults strike by rpc, and who goes away is told to core."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from podwright import errors
from podwright.api import Cri, method_name
from podwright.client import connect
from podwright.core.events import Subscription
from podwright.core.runtime import Runtime
from podwright.engines.fake.values import Span, seconds
from podwright.server.calls import other_methods, served_methods
from podwright.testing import FakeNode, Fault, Match
from podwright.testing.calls import REQUESTS
from podwright.testing.face import Face
from podwright.testing.front import Front
from podwright.wire import cri_pb2 as cri
from tests.testing import requests


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as node:
        yield node


@pytest.fixture
async def remote(node: FakeNode, tmp_path: Path) -> AsyncIterator[Cri]:
    """The node at a socket."""
    async with node.serve(tmp_path / "s"), connect(str(tmp_path / "s"), timeout=30) as client:
        yield client


def test_the_face_has_every_call_of_the_cri_and_every_twin_that_core_has() -> None:
    for _, method in served_methods():
        name = method_name(method.name)
        assert hasattr(Face, name)
        assert hasattr(Face, f"{name}_wire") == hasattr(Runtime, f"{name}_wire"), name


async def test_a_call_is_recorded_with_whom_it_is_about(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, sandbox)
    await node.cri.stop_container(cri.StopContainerRequest(container_id=id[:10]))
    await node.cri.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    with pytest.raises(errors.NotFound):
        await requests.status(node.cri, id)
    assert [(call.rpc, call.title) for call in node.calls] == [
        ("RunPodSandbox", "web"),
        ("PullImage", "nginx"),
        ("CreateContainer", "web/main"),
        ("StartContainer", "web/main"),
        ("StopContainer", "web/main"),
        ("RemovePodSandbox", "web"),
        ("ContainerStatus", id[:12]),
    ]
    created = node.calls.last("CreateContainer", id=id, namespace="default", labels={})
    assert created.request.config.metadata.name == "main"
    assert created.response.container_id == id
    assert node.calls.last("RunPodSandbox", id=sandbox, labels={"app": "web"}).outcome == "ok"
    assert isinstance(node.calls.last("ContainerStatus").error, errors.NotFound)


OTHER = "CheckpointContainer"


@pytest.fixture
def without_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the CRI had just got this call: at present podwright has all."""
    for each in (Cri, Runtime):
        monkeypatch.delattr(each, method_name(OTHER))


def test_core_has_every_call() -> None:
    assert [method.name for _, method in other_methods()] == []


async def _refused(client: Any, rpc: str, request: Any = None) -> errors.PodwrightError:
    """What the client hears who makes a call that podwright does not have."""
    answer = getattr(client, method_name(rpc))(request or REQUESTS[rpc]())
    with pytest.raises(errors.PodwrightError) as caught:
        await (answer if isinstance(answer, Awaitable) else anext(answer))
    return caught.value


@pytest.mark.usefixtures("without_checkpoints")
async def test_a_call_that_podwright_does_not_have_is_recorded_and_struck(
    node: FakeNode, remote: Cri, rpc: str = OTHER
) -> None:
    for client in (node.cri, remote):
        heard = await _refused(client, rpc)
        assert (type(heard), str(heard)) == (errors.Unimplemented, f"podwright has no {rpc}")
        node.inject_error(rpc, errors.ResourceExhausted("no room"))
        assert isinstance(await _refused(client, rpc), errors.ResourceExhausted)
    await node.calls.wait(rpc, times=4)
    refused, struck = f"Unimplemented: podwright has no {rpc}", "ResourceExhausted: no room"
    assert [(call.outcome, call.remote) for call in node.calls] == [
        (refused, False),
        (struck, False),
        (refused, True),
        (struck, True),
    ]


@pytest.mark.usefixtures("without_checkpoints")
async def test_a_call_that_podwright_does_not_have_is_recorded_with_its_arguments(
    node: FakeNode, remote: Cri
) -> None:
    id = await requests.run_container(node.cri, await requests.run_pod(node.cri))
    request = cri.CheckpointContainerRequest(container_id=id, location="/checkpoint")
    await _refused(remote, "CheckpointContainer", request)
    call = node.calls.last("CheckpointContainer", container="main", failed=True)
    assert (call.title, call.request) == ("web/main", request)


@pytest.mark.usefixtures("without_checkpoints")
async def test_a_crash_after_a_call_that_podwright_does_not_have(node: FakeNode) -> None:
    node.faults.add(Fault(on="CheckpointContainer", crash="after", count=1))
    assert isinstance(await _refused(node.cri, "CheckpointContainer"), errors.Unavailable)
    await node.started()
    assert node.crashes == 1
    assert isinstance(await _refused(node.cri, "CheckpointContainer"), errors.Unimplemented)


async def test_calls_over_a_socket_pass_encoded_and_are_recorded_all_the_same(
    node: FakeNode, remote: Cri
) -> None:
    sandbox = await requests.run_pod(remote)
    id = await requests.run_container(remote, sandbox)
    assert (await requests.status(remote, id)).state == cri.CONTAINER_RUNNING
    await remote.list_containers(cri.ListContainersRequest())
    for rpc in ("ContainerStatus", "ListContainers"):
        call = node.calls.last(rpc)
        assert call.remote
    assert node.calls.last("ContainerStatus").response.status.id == id
    assert node.calls.last("ListContainers").response.containers[0].id == id


async def test_injected_errors_strike_so_many_calls_of_those_they_are_for(node: FakeNode) -> None:
    node.inject_error("RunPodSandbox", errors.ResourceExhausted("no room"), count=2, pod="web")
    await requests.run_pod(node.cri, "db")
    for _ in range(2):
        with pytest.raises(errors.ResourceExhausted, match="no room"):
            await requests.run_pod(node.cri, "web")
    await requests.run_pod(node.cri, "web")
    assert await requests.pods(node.cri) == {"db": cri.SANDBOX_READY, "web": cri.SANDBOX_READY}
    assert len(node.calls.of("RunPodSandbox", failed=True)) == 2


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("gone"),
        errors.InvalidArgument("config.image", "is odd"),
        errors.RegistryUnavailable("503"),
        errors.SignatureValidationFailed("unsigned"),
        errors.PodwrightError("something inside"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_injected_error_is_the_same_to_the_caller(
    node: FakeNode, remote: Cri, error: errors.PodwrightError
) -> None:
    node.inject_error("PullImage", error, count=2)
    for client in (node.cri, remote):
        with pytest.raises(type(error)) as caught:
            await client.pull_image(requests.pull())
        assert str(caught.value) == str(error)
        assert type(caught.value) is type(error)
    await remote.pull_image(requests.pull())


async def test_an_error_that_no_scenario_can_say_is_refused(node: FakeNode) -> None:
    with pytest.raises(errors.InvalidArgument, match="CommandFailed"):
        node.inject_error("PullImage", errors.CommandFailed("crun", 1, "no"))


async def test_latency_is_of_the_nodes_clock(node: FakeNode) -> None:
    node.faults.add(_latency("Version", "90s"))
    asking = asyncio.create_task(node.cri.version(cri.VersionRequest()))
    await node.advance("89s")
    assert not asking.done()
    await node.advance("1s")
    assert (await asking).runtime_name == "podwright"
    assert node.calls.last("Version").seconds == pytest.approx(90)


async def test_an_event_is_lost_for_every_listener_and_only_once(node: FakeNode, remote: Cri) -> None:
    listeners: list[Any] = [
        each.get_container_events(cri.GetEventsRequest()) for each in (node.cri, node.cri, remote)
    ]
    heard: list[list[tuple[str, int]]] = [[] for _ in listeners]

    async def listen(stream: Any, into: list[tuple[str, int]]) -> None:
        async for event in stream:
            into.append((event.pod_sandbox_status.metadata.name, event.container_event_type))

    tasks = [asyncio.create_task(listen(stream, into)) for stream, into in zip(listeners, heard, strict=True)]
    await requests.until(lambda: len(node.calls.of("GetContainerEvents")) == 3)
    node.faults.add(Fault(on="event.CONTAINER_STARTED_EVENT", match=Match(pod="web"), lose=True, count=1))
    await requests.run_pod(node.cri, "db")
    await requests.run_pod(node.cri, "web")
    await requests.run_pod(node.cri, "api")
    wanted = [
        ("db", cri.CONTAINER_CREATED_EVENT),
        ("db", cri.CONTAINER_STARTED_EVENT),
        ("web", cri.CONTAINER_CREATED_EVENT),
        ("api", cri.CONTAINER_CREATED_EVENT),
        ("api", cri.CONTAINER_STARTED_EVENT),
    ]
    await requests.until(lambda: all(len(each) == len(wanted) for each in heard))
    assert heard == [wanted] * 3
    assert node.faults.active() == []
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_who_listens_hears_everything_from_the_call_on(node: FakeNode) -> None:
    stream = node.cri.get_container_events(cri.GetEventsRequest())
    await requests.run_pod(node.cri)
    first = await anext(stream)
    assert first.container_event_type == cri.CONTAINER_CREATED_EVENT
    assert node.calls.last("GetContainerEvents").ended == 0


async def test_nothing_is_collected_for_a_listener_who_has_left(node: FakeNode, remote: Cri) -> None:
    def subscriptions() -> int:
        return sum(isinstance(each, Subscription) for each in gc.get_objects())

    gc.collect()
    before = subscriptions()
    stream: Any = remote.get_container_events(cri.GetEventsRequest())
    listening = asyncio.create_task(anext(stream))
    await requests.until(lambda: subscriptions() == before + 1)
    gc.disable()  # its end must not wait for a collection
    try:
        listening.cancel()
        await asyncio.wait([listening])
        await node.calls.wait("GetContainerEvents")
        await requests.until(lambda: subscriptions() == before)
    finally:
        gc.enable()


async def test_a_caller_who_goes_away_cancels_its_call(node: FakeNode) -> None:
    steps: list[str] = []
    waiting = asyncio.Event()

    async def hold(step: str, _: object) -> None:
        steps.append(step)
        if step == "exec_sync.exec":
            waiting.set()
            await asyncio.Event().wait()

    sandbox = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, sandbox)
    node.world.on_step = hold
    call = asyncio.create_task(node.cri.exec_sync(cri.ExecSyncRequest(container_id=id, cmd=["true"])))
    await waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert node.calls.last("ExecSync").outcome == "the client left"


async def test_who_was_cancelled_is_even_when_its_call_ends_well(node: FakeNode) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done nevertheless"
        raise AssertionError

    front = Front(node.world, node.calls)
    call = asyncio.create_task(front.fly(stubborn(), remote=False))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_creation_whose_caller_went_away_is_there_for_its_next_try(node: FakeNode) -> None:
    node.faults.add(_latency("create_sandbox.network", "5s"))
    first = asyncio.create_task(requests.run_pod(node.cri))
    await node.advance("1s")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await node.advance("5s")
    id = await requests.run_pod(node.cri)
    assert list(node.world.sandboxes) == [id]
    assert [call.outcome for call in node.calls.of("RunPodSandbox")] == ["the client left", "ok"]


async def test_what_is_no_call_of_the_cri_is_core_s_own_and_not_recorded(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, sandbox)
    before = node.calls.total
    face: Any = node.cri
    waiting = asyncio.create_task(face.wait(id))
    await asyncio.sleep(0)
    node.exit(id, 7)
    assert (await waiting).exit_code == 7
    assert face.engine.name == "fake"
    assert node.calls.total == before
    assert not hasattr(face, "no_such_thing")


def _latency(on: str, time: str) -> Fault:
    return Fault(on=on, latency=Span(seconds(time)), count=1)
