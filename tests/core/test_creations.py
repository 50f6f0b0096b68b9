"""Names, retries and roll-back of creations."""

from __future__ import annotations

import asyncio

import pytest

from podwright.core import creations
from podwright.core.states import SandboxState
from podwright.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node, until


async def test_second_sandbox_of_the_same_name_is_refused_while_the_first_exists(node: Node) -> None:
    first = await node.sandbox()
    with pytest.raises(AlreadyExists, match=first):
        await node.sandbox()
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=first))
    assert await node.sandbox() != first


async def test_same_request_while_the_first_runs_waits_and_gets_its_id(node: Node) -> None:
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    first, second = asyncio.create_task(node.sandbox()), asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls == ["create_sandbox"])
    gate.set()
    assert await first == await second
    assert node.engine.calls == ["create_sandbox"]


async def test_other_request_of_the_same_name_is_refused_while_the_first_runs(node: Node) -> None:
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    first = asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls)
    other = node.sandbox_request()
    other.config.hostname = "elsewhere"
    with pytest.raises(AlreadyExists, match="different request"):
        await node.runtime.run_pod_sandbox(other)
    gate.set()
    await first


async def test_retry_after_the_client_gave_up_gets_the_finished_sandbox(node: Node) -> None:
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    first = asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    await until(lambda: "ready" in node.world.sandboxes.values())
    assert await node.sandboxes() == []  # nobody was given it yet
    assert [await node.sandbox()] == await node.sandboxes() == list(node.world.sandboxes)


async def test_unclaimed_sandbox_is_removed_after_a_while(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creations, "PARKED_FOR", 0.01)
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    first = asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls)
    first.cancel()
    gate.set()
    await until(lambda: "remove_sandbox" in node.engine.calls and not node.world.sandboxes)
    del node.engine.gates["create_sandbox"]
    assert await node.sandbox() in node.world.sandboxes


@pytest.mark.parametrize("step", ["create_sandbox", "create_container"])
async def test_failed_creation_is_rolled_back_and_frees_its_name(node: Node, step: str) -> None:
    node.engine.failures[step] = PodwrightError("no luck")
    with pytest.raises(PodwrightError, match="no luck"):
        await node.container(await node.sandbox())
    assert not node.world.containers
    if step == "create_sandbox":
        assert not node.world.sandboxes
        await node.container(await node.sandbox())
    else:
        await node.container((await node.sandboxes())[0])


async def test_sandbox_whose_roll_back_fails_stays_not_ready_for_stop_and_remove(node: Node) -> None:
    node.engine.failures["create_sandbox"] = PodwrightError("no luck")
    node.engine.failures["undo_sandbox"] = OSError("busy")
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
    node.engine.gates["create_container"] = asyncio.Event()
    creating = asyncio.create_task(node.container(sandbox))
    await until(lambda: "create_container" in node.engine.calls)
    await node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    with pytest.raises(FailedPrecondition, match="being stopped"):
        await creating
    assert not node.world.containers


async def test_parked_container_goes_with_its_sandbox(node: Node) -> None:
    sandbox = await node.sandbox()
    gate = node.engine.gates["create_container"] = asyncio.Event()
    creating = asyncio.create_task(node.container(sandbox))
    await until(lambda: "create_container" in node.engine.calls)
    creating.cancel()
    gate.set()
    await until(lambda: [p.value for p in node.world.containers.values()] == ["created"])
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    assert not node.world.containers and not node.world.sandboxes


async def test_stopping_a_sandbox_waits_for_a_creation_that_is_being_rolled_back(node: Node) -> None:
    sandbox = await node.sandbox()
    node.engine.failures["create_container"] = PodwrightError("no such program")
    gate = node.engine.gates["undo_container"] = asyncio.Event()
    call = asyncio.create_task(node.container(sandbox, start=False))
    await until(lambda: "undo_container" in node.engine.calls)
    stop = asyncio.create_task(
        node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    )
    for _ in range(20):
        await asyncio.sleep(0)
    gate.set()
    with pytest.raises(PodwrightError, match="no such program"):
        await call
    await stop
    assert node.engine.calls.count("undo_container") == 1
    assert "remove_container" not in node.engine.calls
    assert not node.runtime._ground.records.containers


async def test_a_container_about_to_be_claimed_is_not_given_out_while_a_stop_removes_it(node: Node) -> None:
    sandbox = await node.sandbox()
    created = node.engine.gates["create_container"] = asyncio.Event()
    removed = node.engine.gates["remove_container"] = asyncio.Event()
    call = asyncio.create_task(node.container(sandbox, start=False))
    await until(lambda: "create_container" in node.engine.calls)
    [record] = node.runtime._ground.records.containers
    [task] = record.sandbox.creating
    created.set()
    await until(task.done)  # and its client has not yet run
    stopped = asyncio.create_task(
        node.runtime._sandboxes.stop_locked(node.runtime._ground.records.sandboxes.get(sandbox))
    )
    with pytest.raises(FailedPrecondition, match="is being stopped"):
        await call
    removed.set()
    await stopped
    assert await node.containers() == []


async def test_nothing_is_done_for_what_was_parked_after_the_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creations, "PARKED_FOR", 0.01)
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    call = asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls)
    call.cancel()
    gate.set()
    await until(lambda: "ready" in node.world.sandboxes.values())
    await node.runtime.close()
    await asyncio.sleep(0.05)
    assert node.engine.calls == ["create_sandbox"]
    assert (await node.after_crash()).world.sandboxes == {}


async def test_an_unclaimed_sandbox_that_cannot_be_removed_is_shown(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creations, "PARKED_FOR", 0.01)
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    node.engine.failures["stop_sandbox"] = PodwrightError("the network does not answer")
    call = asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls)
    call.cancel()
    gate.set()
    [id] = node.world.sandboxes
    await until(lambda: node.runtime._ground.records.sandboxes.get(id).state is SandboxState.LOST)
    assert (await node.sandbox_status(id)).state == cri.SANDBOX_NOTREADY
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=id))
    assert node.world.sandboxes == {}


async def test_a_sandbox_that_ended_before_it_was_claimed_is_not_ready(node: Node) -> None:
    gate = node.engine.gates["create_sandbox"] = asyncio.Event()
    call = asyncio.create_task(node.sandbox())
    await until(lambda: node.engine.calls)
    [id] = node.world.sandboxes
    node.engine.sandbox_ends(id)
    await until(lambda: node.runtime._ground.records.sandboxes.get(id).lost_early)
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
    request = node.sandbox_request()
    target = request.config
    *parents, last = path.split(".")
    setattr(target.metadata if parents else target, last, value)
    with pytest.raises(InvalidArgument) as caught:
        await node.runtime.run_pod_sandbox(request)
    assert caught.value.field == f"config.{path}"
    assert not node.engine.calls


async def test_unknown_handler_is_refused_before_anything_is_made(node: Node) -> None:
    request = node.sandbox_request()
    request.runtime_handler = "nothing"
    with pytest.raises(InvalidArgument, match="nothing"):
        await node.runtime.run_pod_sandbox(request)
    assert not node.engine.calls


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
