"""Names, retries and roll-back of creations."""

from __future__ import annotations

import asyncio

import pytest

from podwright.core.creations import PARKED_FOR
from podwright.core.states import SandboxState
from podwright.engines.base import Presence
from podwright.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node, until
from tests.core.points import idle


async def test_second_sandbox_of_the_same_name_is_refused_while_the_first_exists(node: Node) -> None:
    first = await node.sandbox()
    with pytest.raises(AlreadyExists, match=first):
        await node.sandbox()
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=first))
    assert await node.sandbox() != first


async def test_same_request_while_the_first_runs_waits_and_gets_its_id(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    first, second = asyncio.create_task(node.sandbox()), asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    await idle()
    gate.set()
    assert await first == await second
    assert node.points.passed.count("create_sandbox.namespaces") == 1 and len(node.world.sandboxes) == 1


async def test_other_request_of_the_same_name_is_refused_while_the_first_runs(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    first = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    other = node.sandbox_request()
    other.config.hostname = "elsewhere"
    with pytest.raises(AlreadyExists, match="different request"):
        await node.runtime.run_pod_sandbox(other)
    gate.set()
    await first


async def test_retry_after_the_client_gave_up_gets_the_finished_sandbox(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    first = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    await until(lambda: any(each.ready for each in node.world.sandboxes.values()))
    assert await node.sandboxes() == []  # nobody was given it yet
    assert [await node.sandbox()] == await node.sandboxes() == list(node.world.sandboxes)


@pytest.mark.parametrize("kind", ["sandbox", "container"])
async def test_parked_object_gives_way_to_a_different_request(node: Node, kind: str) -> None:
    pod = await node.sandbox()
    step = "create_sandbox.ready" if kind == "sandbox" else "create_container.task"
    gate = node.points.gates[step] = asyncio.Event()
    passed = node.points.passed.count(step)
    call = node.sandbox("other") if kind == "sandbox" else node.container(pod)
    first = asyncio.create_task(call)
    await until(lambda: node.points.passed.count(step) > passed)
    first.cancel()
    gate.set()
    await idle()
    [parked] = node.ground.creations._under_way.values()
    if kind == "sandbox":
        pod_request = node.sandbox_request("other")
        pod_request.config.hostname = "elsewhere"
        id = (await node.runtime.run_pod_sandbox(pod_request)).pod_sandbox_id
        assert await node.sandboxes() == list(node.world.sandboxes) == [pod, id]
    else:
        request = node.container_request(pod)
        request.config.working_dir = "/elsewhere"
        id = (await node.runtime.create_container(request)).container_id
        assert await node.containers() == list(node.world.containers) == [id]
    assert id != parked.making.record.id


async def test_unclaimed_sandbox_is_removed_after_a_while(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    first = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    first.cancel()
    gate.set()
    await node.clock.advance(PARKED_FOR - 0.1)
    assert node.world.sandboxes
    await node.clock.advance(0.2)
    assert not node.world.sandboxes
    del node.points.gates["create_sandbox.ready"]
    assert await node.sandbox() in node.world.sandboxes


@pytest.mark.parametrize("step", ["create_sandbox.ready", "create_container.task"])
async def test_failed_creation_is_rolled_back_and_frees_its_name(node: Node, step: str) -> None:
    node.points.failures[step] = PodwrightError("no luck")
    with pytest.raises(PodwrightError, match="no luck"):
        await node.container(await node.sandbox())
    assert not node.world.containers
    if step == "create_sandbox.ready":
        assert not node.world.sandboxes
        await node.container(await node.sandbox())
    else:
        await node.container((await node.sandboxes())[0])


async def test_sandbox_whose_roll_back_fails_stays_not_ready_for_stop_and_remove(node: Node) -> None:
    node.points.failures["create_sandbox.ready"] = PodwrightError("no luck")
    node.points.failures["undo_sandbox.namespaces"] = OSError("busy")
    with pytest.raises(PodwrightError, match="no luck"):
        await node.sandbox()
    (left,) = await node.sandboxes()
    assert (await node.sandbox_status(left)).state == cri.SANDBOX_NOTREADY
    with pytest.raises(AlreadyExists):
        await node.sandbox()
    await node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=left))
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=left))
    assert not node.world.sandboxes
    await node.sandbox()


async def test_stopping_a_sandbox_ends_creations_in_it(node: Node) -> None:
    sandbox = await node.sandbox()
    node.points.gates["create_container.task"] = asyncio.Event()
    creating = asyncio.create_task(node.container(sandbox))
    await until(lambda: "create_container.task" in node.points.passed)
    await node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    with pytest.raises(FailedPrecondition, match="being stopped"):
        await creating
    assert not node.world.containers


async def test_parked_container_goes_with_its_sandbox(node: Node) -> None:
    sandbox = await node.sandbox()
    gate = node.points.gates["create_container.task"] = asyncio.Event()
    creating = asyncio.create_task(node.container(sandbox))
    await until(lambda: "create_container.task" in node.points.passed)
    creating.cancel()
    gate.set()
    await until(lambda: [each.presence for each in node.world.containers.values()] == [Presence.CREATED])
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    assert not node.world.containers and not node.world.sandboxes


async def test_stopping_a_sandbox_waits_for_a_creation_that_is_being_rolled_back(node: Node) -> None:
    sandbox = await node.sandbox()
    node.points.failures["create_container.task"] = PodwrightError("no such program")
    gate = node.points.gates["undo_container.rootfs"] = asyncio.Event()
    call = asyncio.create_task(node.container(sandbox, start=False))
    await until(lambda: "undo_container.rootfs" in node.points.passed)
    stop = asyncio.create_task(
        node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    )
    for _ in range(20):
        await asyncio.sleep(0)
    gate.set()
    with pytest.raises(PodwrightError, match="no such program"):
        await call
    await stop
    assert node.points.passed.count("undo_container.rootfs") == 1
    assert "remove_container.task" not in node.points.passed
    assert not node.ground.records.containers


async def test_a_container_about_to_be_claimed_is_not_given_out_while_a_stop_removes_it(node: Node) -> None:
    sandbox = await node.sandbox()
    created = node.points.gates["create_container.task"] = asyncio.Event()
    removed = node.points.gates["remove_container.task"] = asyncio.Event()
    call = asyncio.create_task(node.container(sandbox, start=False))
    await until(lambda: "create_container.task" in node.points.passed)
    [record] = node.ground.records.containers
    creation = node.ground.creations._under_way[record.name]
    created.set()
    await until(creation.task.done)  # and its client has not yet run
    stopped = asyncio.create_task(
        node.runtime._sandboxes.stop_locked(node.ground.records.sandboxes.get(sandbox))
    )
    with pytest.raises(FailedPrecondition, match="is being stopped"):
        await call
    removed.set()
    await stopped
    assert await node.containers() == []


async def test_nothing_is_done_for_what_was_parked_after_the_end(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    call = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    call.cancel()
    gate.set()
    await until(lambda: any(each.ready for each in node.world.sandboxes.values()))
    await node.runtime.close()
    before = list(node.points.passed)
    await node.clock.advance(2 * PARKED_FOR)
    assert node.points.passed == before
    await node.after_crash()
    assert node.world.sandboxes == {}


async def test_an_unclaimed_sandbox_that_cannot_be_removed_is_shown(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    node.points.failures["stop_sandbox.network"] = PodwrightError("the network does not answer")
    call = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    call.cancel()
    gate.set()
    [id] = node.world.sandboxes
    await node.clock.advance(PARKED_FOR)
    assert node.ground.records.sandboxes.get(id).state is SandboxState.LOST
    assert (await node.sandbox_status(id)).state == cri.SANDBOX_NOTREADY
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=id))
    assert node.world.sandboxes == {}


async def test_a_sandbox_that_ended_before_it_was_claimed_is_not_ready(node: Node) -> None:
    gate = node.points.gates["create_sandbox.ready"] = asyncio.Event()
    call = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    [id] = node.world.sandboxes
    node.sandbox_ends(id)
    await until(lambda: node.ground.records.sandboxes.get(id).lost)
    gate.set()
    assert (await node.sandbox_status(await call)).state == cri.SANDBOX_NOTREADY


async def test_container_needs_a_ready_sandbox_and_a_known_image(node: Node) -> None:
    sandbox = await node.sandbox()
    request = node.container_request(sandbox)
    request.config.image.image = "elsewhere"
    with pytest.raises(NotFound, match="elsewhere"):
        await node.runtime.create_container(request)
    await node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    with pytest.raises(FailedPrecondition, match="not ready"):
        await node.container(sandbox)
    with pytest.raises(NotFound):
        await node.container("f" * 64)


@pytest.mark.parametrize(
    ("path", "value"),
    [("metadata.name", ""), ("metadata.namespace", ""), ("metadata.uid", ""), ("log_directory", "relative")],
)
async def test_bad_sandbox_config_names_the_field_and_leaves_nothing(
    node: Node, path: str, value: str
) -> None:
    before = list(node.points.passed)
    request = node.sandbox_request()
    target = request.config
    *parents, last = path.split(".")
    setattr(target.metadata if parents else target, last, value)
    with pytest.raises(InvalidArgument) as caught:
        await node.runtime.run_pod_sandbox(request)
    assert caught.value.field == f"config.{path}"
    assert not node.points.passed[len(before) :]


async def test_a_host_name_and_addresses_of_ports_are_some(node: Node) -> None:
    request = node.sandbox_request()
    request.config.hostname = "h" * 65
    with pytest.raises(InvalidArgument, match=r"^config\.hostname: .*64 bytes"):
        await node.runtime.run_pod_sandbox(request)
    request.config.hostname = "h" * 64
    for address in ("::1", "127.0.0.1", ""):
        request.config.port_mappings.add(container_port=80, host_port=80, host_ip=address)
    request.config.port_mappings.add(container_port=80, host_port=80, host_ip="localhost")
    with pytest.raises(InvalidArgument, match=r"^config\.port_mappings\[3\]\.host_ip: 'localhost' is not"):
        await node.runtime.run_pod_sandbox(request)
    del request.config.port_mappings[3]
    await node.runtime.run_pod_sandbox(request)


async def test_unknown_handler_is_refused_before_anything_is_made(node: Node) -> None:
    before = list(node.points.passed)
    request = node.sandbox_request()
    request.runtime_handler = "nothing"
    with pytest.raises(InvalidArgument, match="nothing"):
        await node.runtime.run_pod_sandbox(request)
    assert not node.points.passed[len(before) :]


async def test_ids_are_found_by_unique_prefix_only(node: Node) -> None:
    ids = [await node.sandbox(f"pod{number}") for number in range(40)]
    assert (await node.sandbox_status(ids[0][:20])).id == ids[0]
    first_digits = [id[0] for id in ids]
    shared = next(digit for digit in first_digits if first_digits.count(digit) > 1)
    with pytest.raises(InvalidArgument, match="ambiguous"):
        await node.sandbox_status(shared)
    with pytest.raises(InvalidArgument, match="empty"):
        await node.sandbox_status("")
    with pytest.raises(NotFound):
        await node.sandbox_status("z")
