"""Starting, ending, stopping and removing."""

from __future__ import annotations

import asyncio
import signal

import pytest

from podwright.core.starting import LATE
from podwright.core.states import CONTAINER, SANDBOX, ContainerState, SandboxState
from podwright.engines.fake.scenario import parse
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node, until


async def test_life_of_a_container(node: Node) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox, start=False)
    created = await node.status(container)
    assert created.state == cri.CONTAINER_CREATED
    assert created.created_at > 0 and created.started_at == created.finished_at == 0
    assert created.log_path == "/logs/main/0.log"
    assert created.image.image == "docker.io/library/box:latest"
    await node.runtime.start_container(cri.StartContainerRequest(container_id=container))
    running = await node.status(container)
    assert running.state == cri.CONTAINER_RUNNING and running.started_at >= running.created_at
    node.exit(container, 3)
    exited = await node.runtime.wait(container)
    assert (exited.state, exited.exit_code, exited.reason) == (cri.CONTAINER_EXITED, 3, "Error")
    assert exited.finished_at >= exited.started_at


@pytest.mark.parametrize(
    ("code", "oom", "reason"), [(0, False, "Completed"), (1, False, "Error"), (137, True, "OOMKilled")]
)
async def test_reason_of_an_exit(node: Node, code: int, oom: bool, reason: str) -> None:
    container = await node.container(await node.sandbox())
    node.exit(container, code, oom)
    assert (await node.runtime.wait(container)).reason == reason


async def test_starting_twice_or_after_the_end_is_an_error(node: Node) -> None:
    container = await node.container(await node.sandbox())
    request = cri.StartContainerRequest(container_id=container)
    with pytest.raises(FailedPrecondition, match="running"):
        await node.runtime.start_container(request)
    node.exit(container, 0)
    await node.runtime.wait(container)
    with pytest.raises(FailedPrecondition, match="exited"):
        await node.runtime.start_container(request)


async def test_failed_start_leaves_an_exited_container_with_start_error(node: Node) -> None:
    container = await node.container(await node.sandbox(), start=False)
    node.points.failures["start_container.start"] = PodwrightError("no such program")
    with pytest.raises(PodwrightError):
        await node.runtime.start_container(cri.StartContainerRequest(container_id=container))
    status = await node.status(container)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "no such program" in status.message
    assert node.engine.signals == [(container, signal.SIGKILL)], "its process may still wait for the start"


async def test_stop_sends_its_signal_once_and_the_shortest_timeout_wins(node: Node) -> None:
    node.world.scenario = parse({"containers": [{"ignore": ["SIGTERM"]}]})
    container = await node.container(await node.sandbox())
    stops = [
        asyncio.create_task(
            node.runtime.stop_container(cri.StopContainerRequest(container_id=container, timeout=timeout))
        )
        for timeout in (3600, 1800, 1)
    ]
    await node.clock.advance(0.9)
    assert not any(stop.done() for stop in stops)
    await node.clock.advance(0.1)
    await asyncio.gather(*stops)
    assert node.engine.signals == [(container, signal.SIGTERM), (container, signal.SIGKILL)]
    assert (await node.status(container)).exit_code == 137


async def test_stop_with_no_grace_kills_at_once(node: Node) -> None:
    container = await node.container(await node.sandbox())
    await node.runtime.stop_container(cri.StopContainerRequest(container_id=container, timeout=0))
    assert node.engine.signals == [(container, signal.SIGKILL)]


async def test_stop_of_created_exited_and_unknown_containers_succeeds_at_once(node: Node) -> None:
    container = await node.container(await node.sandbox(), start=False)
    stop = cri.StopContainerRequest(container_id=container, timeout=5)
    await node.runtime.stop_container(stop)
    assert (await node.status(container)).state == cri.CONTAINER_CREATED
    await node.runtime.start_container(cri.StartContainerRequest(container_id=container))
    await node.runtime.stop_container(stop)
    await node.runtime.stop_container(stop)
    await node.runtime.stop_container(cri.StopContainerRequest(container_id="e" * 64))
    assert node.engine.signals == [(container, signal.SIGTERM)]


async def test_calls_that_kill_at_once_share_one_signal(node: Node) -> None:
    container = await node.container(await node.sandbox())
    gate = node.points.gates["signal_container.signal"] = asyncio.Event()
    request = cri.StopContainerRequest(container_id=container)
    stops = [asyncio.ensure_future(node.runtime.stop_container(request)) for _ in range(3)]
    await until(lambda: node.engine.signals)
    stops.pop(0).cancel()  # the others need not know who began
    gate.set()
    await node.shortly(asyncio.gather(*stops))
    assert node.engine.signals == [(container, signal.SIGKILL)]


async def test_stop_of_a_client_that_goes_away_still_sends_its_signal(node: Node) -> None:
    container = await node.container(await node.sandbox())
    gate = node.points.gates["signal_container.signal"] = asyncio.Event()
    request = cri.StopContainerRequest(container_id=container, timeout=10)
    stop = asyncio.ensure_future(node.runtime.stop_container(request))
    await until(lambda: node.engine.signals)
    stop.cancel()
    gate.set()
    status = await node.shortly(node.runtime.wait(container), 1)
    assert status.exit_code == 128 + signal.SIGTERM


async def test_stop_of_a_client_that_goes_away_still_kills_in_time(node: Node) -> None:
    node.world.scenario = parse({"containers": [{"ignore": ["SIGTERM"]}]})
    container = await node.container(await node.sandbox())
    stop = asyncio.create_task(
        node.runtime.stop_container(cri.StopContainerRequest(container_id=container, timeout=1))
    )
    await until(lambda: node.engine.signals)
    stop.cancel()
    status = await node.shortly(node.runtime.wait(container), 1)
    assert status.exit_code == 137


async def test_exit_before_the_start_returns_is_kept(node: Node) -> None:
    container = await node.container(await node.sandbox(), start=False)
    gate = node.points.gates["start_container.started"] = asyncio.Event()
    start = asyncio.create_task(
        node.runtime.start_container(cri.StartContainerRequest(container_id=container))
    )
    await until(lambda: "start_container.started" in node.points.passed)
    node.exit(container, 5)
    await node.shortly(node.runtime.wait(container), LATE)
    gate.set()
    await start
    assert (await node.status(container)).exit_code == 5


async def test_remove_of_running_and_unknown_objects(node: Node) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox)
    remove = cri.RemoveContainerRequest(container_id=container)
    await asyncio.gather(node.runtime.remove_container(remove), node.runtime.remove_container(remove))
    await node.runtime.remove_container(remove)
    assert not node.world.containers and await node.containers() == []
    await node.container(sandbox)
    remove_sandbox = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
    await node.runtime.remove_pod_sandbox(remove_sandbox)
    await node.runtime.remove_pod_sandbox(remove_sandbox)
    assert not node.world.containers and not node.world.sandboxes


async def test_stopped_sandbox_stays_listed_and_can_be_stopped_again(node: Node) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox)
    assert (await node.sandbox_status(sandbox)).network.ip == node.world.sandboxes[sandbox].ip != ""
    stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
    node.points.failures["stop_sandbox.network"] = PodwrightError("the plugin is away")
    with pytest.raises(PodwrightError):
        await node.runtime.stop_pod_sandbox(stop)
    await node.runtime.stop_pod_sandbox(stop)
    await node.runtime.stop_pod_sandbox(stop)
    status = await node.sandbox_status(sandbox)
    assert status.state == cri.SANDBOX_NOTREADY and status.network.ip == ""
    assert (await node.status(container)).state == cri.CONTAINER_EXITED
    assert node.points.passed.count("stop_sandbox.network") == 2


async def test_update_is_shown_and_taken_back_when_it_fails(node: Node) -> None:
    container = await node.container(await node.sandbox())
    update = cri.UpdateContainerResourcesRequest(container_id=container)
    update.linux.cpu_shares = 512
    await node.runtime.update_container_resources(update)
    assert (await node.status(container)).resources.linux.cpu_shares == 512
    update.linux.cpu_shares = 100
    node.points.failures["update_container.limits"] = PodwrightError("too little")
    with pytest.raises(PodwrightError):
        await node.runtime.update_container_resources(update)
    assert (await node.status(container)).resources.linux.cpu_shares == 512
    assert [written.cpu_shares for written in node.engine.updates] == [512, 100, 512]
    with pytest.raises(InvalidArgument, match="linux"):
        await node.runtime.update_container_resources(
            cri.UpdateContainerResourcesRequest(container_id=container)
        )


async def test_filters_are_anded(node: Node) -> None:
    one, two = await node.sandbox("one"), await node.sandbox("two")
    first, second = await node.container(one), await node.container(two, start=False)

    async def ids(**filter: object) -> list[str]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(**filter))  # type: ignore[arg-type]
        return [item.id for item in (await node.runtime.list_containers(request)).containers]

    running = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    assert sorted(await ids()) == sorted([first, second])
    assert await ids(pod_sandbox_id=two[:12]) == [second]
    assert await ids(state=running) == [first]
    assert await ids(state=running, pod_sandbox_id=two) == []
    assert await ids(id="0" * 64) == []
    assert await ids(label_selector={"no": "such"}) == []


async def test_encoded_answers_say_the_same_and_follow_every_change(node: Node) -> None:
    one, two = await node.sandbox("one"), await node.sandbox("two")
    first, second = await node.container(one), await node.container(two, start=False)
    for turn in range(2):
        for filter in (None, cri.ContainerFilter(id=first), cri.ContainerFilter(pod_sandbox_id=two)):
            listing = cri.ListContainersRequest(filter=filter)
            encoded = await node.runtime.list_containers_wire(listing)
            assert cri.ListContainersResponse.FromString(encoded) == await node.runtime.list_containers(
                listing
            )
        sandboxes = cri.ListPodSandboxRequest()
        encoded = await node.runtime.list_pod_sandbox_wire(sandboxes)
        assert cri.ListPodSandboxResponse.FromString(encoded) == await node.runtime.list_pod_sandbox(
            sandboxes
        )
        for verbose in (False, True):
            pod = cri.PodSandboxStatusRequest(pod_sandbox_id=one, verbose=verbose)
            pod_answer = cri.PodSandboxStatusResponse.FromString(
                await node.runtime.pod_sandbox_status_wire(pod)
            )
            assert pod_answer.timestamp > 0
            pod_answer.timestamp = 0
            expected = await node.runtime.pod_sandbox_status(pod)
            expected.timestamp = 0
            assert pod_answer == expected
            asked = cri.ContainerStatusRequest(container_id=first, verbose=verbose)
            encoded = await node.runtime.container_status_wire(asked)
            assert cri.ContainerStatusResponse.FromString(encoded) == await node.runtime.container_status(
                asked
            )
        node.exit(first, 4)
        await node.runtime.wait(first)
        await node.runtime.start_container(cri.StartContainerRequest(container_id=second))
        await node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=two))
        second = await node.container(one, "again", start=False) if turn == 0 else second


async def test_events_tell_the_life_in_order(node: Node) -> None:
    events = node.runtime.get_container_events(cri.GetEventsRequest())
    sandbox = await node.sandbox()
    container = await node.container(sandbox)
    node.exit(container, 0)
    await node.runtime.wait(container)
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    seen = []
    async for event in events:
        assert event.pod_sandbox_status.id == sandbox
        assert [each.id for each in event.containers_statuses] in ([], [container])
        seen.append((event.container_id == sandbox, event.container_event_type))
        if len(seen) == 8:
            break
    made, started, stopped, deleted = range(4)
    assert [kind for own, kind in seen if own] == [made, started, stopped, deleted]
    assert [kind for own, kind in seen if not own] == [made, started, stopped, deleted]


def test_every_state_is_reached_and_left() -> None:
    for table, states, first in (
        (CONTAINER, ContainerState, ContainerState.CREATING),
        (SANDBOX, SandboxState, SandboxState.CREATING),
    ):
        reached = {first} | set(table.values())
        assert reached == set(states)
        assert {state for state, _ in table} == set(states)
