"""What is in flight: every call while it goes on, at which stage, for whom; and nothing of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from podwright.core.creations import PARKED_FOR
from podwright.core.operations import subject
from podwright.errors import PodwrightError
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own
from tests.core.client import Client
from tests.core.node import IMAGE, Node, until
from tests.core.points import idle


@pytest.fixture
async def stubborn() -> AsyncIterator[Node]:
    """Its containers take no notice of SIGTERM."""
    node = Node({"containers": [{"ignore": ["SIGTERM"]}]})
    await node.start()
    yield node
    await node.stop()


async def listed(node: Node, *, reading: bool = False) -> list[own.Operation]:
    request = own.ListOperationsRequest(reading=reading)
    return list((await node.runtime.list_operations(request)).operations)


async def stages(node: Node) -> dict[str, list[str]]:
    return {each.rpc: [stage.name for stage in each.stages] for each in await listed(node)}


def held(node: Node, step: str) -> asyncio.Event:
    node.points.gates[step] = asyncio.Event()
    return node.points.gates[step]


async def test_nothing_goes_on_after_a_start(node: Node) -> None:
    assert await listed(node) == []


async def test_creation_tells_its_stage_and_its_pod(node: Node) -> None:
    gate = held(node, "create_sandbox.network")
    call = asyncio.create_task(node.sandbox("web"))
    await until(lambda: "create_sandbox.network" in node.points.passed)
    [operation] = await listed(node)
    assert (operation.rpc, operation.pod_namespace, operation.pod_name) == ("RunPodSandbox", "ns", "web")
    assert [each.name for each in operation.stages] == ["cni add"]
    assert 0 < operation.started_at <= operation.stages[0].started_at and not operation.client_gone
    gate.set()
    assert operation.pod_sandbox_id == await call
    assert await listed(node) == []


async def test_container_is_named_with_its_pod(node: Node) -> None:
    pod = await node.sandbox("web")
    gate = held(node, "create_container.task")
    call = asyncio.create_task(node.container(pod, "app"))
    await until(lambda: "create_container.task" in node.points.passed)
    [operation] = await listed(node)
    assert (operation.pod_name, operation.container_name) == ("web", "app")
    assert operation.pod_sandbox_id == pod and operation.container_id in node.ground.records.containers
    gate.set()
    await call


async def test_pull_tells_its_image(node: Node) -> None:
    held(node, "pull_image.resolve")
    call = asyncio.create_task(
        node.runtime.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image="registry/web:1")))
    )
    await until(lambda: "pull_image.resolve" in node.points.passed)
    await idle()
    [operation] = await listed(node)
    assert (operation.rpc, operation.image) == ("PullImage", "registry/web:1")
    assert [each.name for each in operation.stages] == ["resolve"]
    call.cancel()
    await asyncio.wait([call])
    await idle()
    assert await listed(node) == []


async def test_failed_call_vanishes(node: Node) -> None:
    node.points.failures["create_sandbox.network"] = PodwrightError("no network")
    with pytest.raises(PodwrightError, match="no network"):
        await node.sandbox()
    assert await listed(node) == []


async def test_roll_back_is_a_stage(node: Node) -> None:
    gate = held(node, "undo_sandbox.namespaces")
    node.points.failures["create_sandbox.network"] = PodwrightError("no network")
    call = asyncio.create_task(node.sandbox())
    await until(lambda: "undo_sandbox.namespaces" in node.points.passed)
    assert await stages(node) == {"RunPodSandbox": ["unmount"]}
    gate.set()
    with pytest.raises(PodwrightError, match="no network"):
        await call
    assert await listed(node) == []


async def test_creation_whose_client_has_gone_is_told_until_it_is_claimed(node: Node) -> None:
    gate = held(node, "create_sandbox.network")
    call = asyncio.create_task(node.sandbox("web"))
    await until(lambda: "create_sandbox.network" in node.points.passed)
    call.cancel()
    await asyncio.wait([call])
    [operation] = await listed(node)
    assert operation.client_gone and [each.name for each in operation.stages] == ["cni add"]
    gate.set()
    await until(lambda: node.ground.creations.parked())
    [parked] = await listed(node)
    assert parked.client_gone and [each.name for each in parked.stages] == ["parked"]
    assert (parked.pod_name, parked.started_at) == ("web", operation.started_at)
    assert parked.seconds_left == pytest.approx(PARKED_FOR)
    await node.sandbox("web")
    assert await listed(node) == []


async def test_second_client_of_a_creation_waits_for_the_first(node: Node) -> None:
    gate = held(node, "create_sandbox.network")
    calls = [asyncio.create_task(node.sandbox()) for _ in range(2)]
    await until(lambda: "create_sandbox.network" in node.points.passed)
    await idle()
    first, second = await listed(node)
    assert [each.name for each in first.stages] == ["cni add"]
    [waiting] = second.stages
    assert (waiting.name, waiting.subject) == ("wait for creation", first.pod_sandbox_id)
    gate.set()
    await asyncio.gather(*calls)
    assert await listed(node) == []


async def test_grace_period_tells_what_is_left_also_without_a_client(stubborn: Node) -> None:
    node = stubborn
    container = await node.container(await node.sandbox("web"), "app")
    call = asyncio.create_task(Client(node).stop(container, 30))
    await idle()
    await node.clock.advance(10)
    [operation] = await listed(node)
    assert [each.name for each in operation.stages] == ["grace period"]
    assert operation.seconds_left == pytest.approx(20) and not operation.client_gone
    call.cancel()
    await asyncio.wait([call])
    await node.clock.advance(5)
    [left] = await listed(node)
    assert (left.rpc, left.client_gone, left.container_name) == ("StopContainer", True, "app")
    assert left.seconds_left == pytest.approx(15) and left.started_at == operation.started_at
    await node.clock.advance(15)
    await idle()
    assert (await node.status(container)).state == cri.CONTAINER_EXITED
    assert await listed(node) == []


async def test_who_waits_for_its_turn_is_told_for_what(node: Node) -> None:
    pod = await node.sandbox()
    container = await node.container(pod)
    gate = held(node, "remove_container.task")
    removals = [asyncio.create_task(Client(node).remove(container)) for _ in range(2)]
    await until(lambda: "remove_container.task" in node.points.passed)
    await idle()
    first, second = await listed(node)
    assert [each.name for each in first.stages] == ["end task"]
    assert [(each.name, each.subject) for each in second.stages] == [("wait for turn", "RemoveContainer")]
    gate.set()
    await asyncio.gather(*removals)
    assert await listed(node) == []


async def test_kill_is_a_stage_of_the_stop_of_a_pod(node: Node) -> None:
    pod = await node.sandbox()
    await node.container(pod)
    gate = held(node, "signal_container.signal")
    call = asyncio.create_task(Client(node).stop_pod(pod))
    await until(lambda: "signal_container.signal" in node.points.passed)
    assert await stages(node) == {"StopPodSandbox": ["signal"]}
    gate.set()
    await call
    assert await listed(node) == []


async def test_call_that_is_made_twice_at_once_is_two_operations(stubborn: Node) -> None:
    node = stubborn
    container = await node.container(await node.sandbox())
    calls = [asyncio.create_task(Client(node).stop(container, 30)) for _ in range(2)]
    await idle()
    assert [each.rpc for each in await listed(node)] == ["StopContainer"] * 2
    node.exit(container, 0)
    await asyncio.gather(*calls)
    assert await listed(node) == []


async def test_what_only_looks_is_told_to_who_asks_for_it(node: Node) -> None:
    with node.runtime.operations.open("ContainerStatus", "some id"):
        assert await listed(node) == []
        assert [each.rpc for each in await listed(node, reading=True)] == ["ContainerStatus"]


async def test_recovery_is_an_operation(node: Node) -> None:
    await node.sandbox()
    await node.crash()
    node.boot()
    gate = held(node, "sandbox_alive.look")
    await node.engine.open()
    opening = asyncio.create_task(node.runtime.open())
    await until(lambda: "sandbox_alive.look" in node.points.passed)
    assert await stages(node) == {"Recovery": ["look"]}
    gate.set()
    await opening
    assert await listed(node) == []


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            cri.PullImageRequest(image=cri.ImageSpec(image=IMAGE), auth=cri.AuthConfig(password="secret")),
            IMAGE,
        ),
        (cri.ExecSyncRequest(container_id="id", cmd=["echo", "secret"]), "id"),
        (cri.CreateContainerRequest(pod_sandbox_id="pod"), "pod"),
        (
            cri.RunPodSandboxRequest(
                config=cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="web"))
            ),
            "web",
        ),
        (own.ExportImageRequest(image="box", target="oci:/somewhere"), "box"),
        (cri.ListContainersRequest(), ""),
    ],
)
def test_subject_is_an_id_a_name_or_a_reference(request_: cri.PullImageRequest, expected: str) -> None:
    assert subject(request_) == expected
