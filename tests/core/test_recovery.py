"""A crash at any step: what the next start makes of it."""

from __future__ import annotations

import asyncio

import pytest

from podwright.core import recovery
from podwright.engines.base import Container, Exit, Observation, Presence
from podwright.errors import PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core.memory import MemoryEngine
from tests.core.node import Node, until


async def test_everything_is_known_again(node: Node) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox)
    before, sandbox_before = await node.status(container), await node.sandbox_status(sandbox)
    after = await node.after_crash()
    assert await after.status(container) == before
    assert await after.sandbox_status(sandbox) == sandbox_before
    await after.runtime.stop_container(cri.StopContainerRequest(container_id=container, timeout=1))


async def test_engine_is_told_which_sandboxes_are_left(node: Node) -> None:
    assert node.engine.kept == set()
    kept = await node.sandbox("kept")
    node.engine.gates["create_sandbox"] = asyncio.Event()
    half = asyncio.create_task(node.sandbox("half"))
    await until(lambda: node.engine.calls.count("create_sandbox") == 2)
    assert (await node.after_crash()).engine.kept == {kept}
    half.cancel()


async def test_exit_meanwhile_is_collected(node: Node) -> None:
    container = await node.container(await node.sandbox())
    node.world.containers[container] = Presence.EXITED
    node.world.exits[container] = Exit(container, 9, 12345)
    status = await (await node.after_crash()).status(container)
    assert (status.state, status.exit_code, status.finished_at) == (cri.CONTAINER_EXITED, 9, 12345)


async def test_vanished_container_is_255_unknown(node: Node) -> None:
    container = await node.container(await node.sandbox())
    del node.world.containers[container]
    status = await (await node.after_crash()).status(container)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")


async def test_an_exit_reported_while_recovery_looks_is_the_truth(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await node.container(await node.sandbox())

    async def look(engine: MemoryEngine, container: Container) -> Observation:
        engine.exit(container.id, 9)
        for _ in range(10):
            await asyncio.sleep(0)
        return Observation(Presence.MISSING)

    monkeypatch.setattr(MemoryEngine, "observe_container", look)
    status = await (await node.after_crash()).status(container)
    assert (status.exit_code, status.reason) == (9, "Error")


async def test_sandbox_that_is_gone_is_not_ready(node: Node) -> None:
    sandbox = await node.sandbox()
    node.world.sandboxes.clear()
    after = await node.after_crash()
    assert (await after.sandbox_status(sandbox)).state == cri.SANDBOX_NOTREADY
    await after.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


@pytest.mark.parametrize("step", ["create_sandbox", "create_container"])
async def test_half_done_creation_is_undone(node: Node, step: str) -> None:
    node.engine.gates[step] = asyncio.Event()

    async def pod() -> None:
        await node.container(await node.sandbox())

    task = asyncio.create_task(pod())
    await until(lambda: step in node.engine.calls)
    after = await node.after_crash()
    assert not after.world.containers and await after.containers() == []
    if step == "create_sandbox":
        assert not after.world.sandboxes and await after.sandboxes() == []
    task.cancel()


async def test_announced_start_is_settled_by_what_is_there(node: Node) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox, start=False)
    node.engine.gates["start_container"] = asyncio.Event()
    start = asyncio.create_task(
        node.runtime.start_container(cri.StartContainerRequest(container_id=container))
    )
    await until(lambda: "start_container" in node.engine.calls)
    not_happened = await node.after_crash()
    assert (await not_happened.status(container)).state == cri.CONTAINER_CREATED
    await not_happened.runtime.start_container(cri.StartContainerRequest(container_id=container))
    node.world.containers[container] = Presence.RUNNING
    happened = await node.after_crash()
    assert (await happened.status(container)).state == cri.CONTAINER_RUNNING
    assert (await happened.status(container)).started_at > 0
    start.cancel()


@pytest.mark.parametrize("step", ["remove_container", "stop_sandbox", "remove_sandbox"])
async def test_half_done_removal_is_finished(node: Node, step: str) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox, start=False)
    node.engine.exit(container, 0)
    await node.runtime.wait(container)
    node.engine.gates[step] = asyncio.Event()
    removal = asyncio.create_task(
        node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    )
    await until(lambda: step in node.engine.calls)
    after = await node.after_crash()
    # A removal that had only come as far as stopping is a stop that is finished; the client asks again.
    await after.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    assert not after.world.sandboxes and not after.world.containers
    assert await after.sandboxes() == [] and await after.containers() == []
    removal.cancel()


async def test_undoing_that_fails_is_tried_again_at_the_next_start(node: Node) -> None:
    node.engine.gates["create_sandbox"] = asyncio.Event()
    task = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox" in node.engine.calls)
    node.engine.gates["remove_sandbox"] = asyncio.Event()
    after = await node.after_crash()
    assert not after.world.sandboxes
    task.cancel()


async def test_container_whose_roll_back_failed_goes_with_its_sandbox(node: Node) -> None:
    sandbox = await node.sandbox()
    node.engine.failures["create_container"] = PodwrightError("no luck")
    node.engine.failures["undo_container"] = OSError("busy")
    with pytest.raises(PodwrightError):
        await node.container(sandbox)
    assert node.world.containers
    after = await node.after_crash()
    assert not after.world.containers and await after.containers() == []


async def test_hanging_network_does_not_keep_the_others_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PATIENCE", 0.05)
    running = await node.container(await node.sandbox("good"))
    stuck = await node.sandbox("stuck")
    node.engine.gates["stop_sandbox"] = asyncio.Event()
    stop = asyncio.create_task(node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=stuck)))
    await until(lambda: "stop_sandbox" in node.engine.calls)
    gate = asyncio.Event()
    after = await node.after_crash(gates={"stop_sandbox": gate})
    assert (await after.status(running)).state == cri.CONTAINER_RUNNING
    assert (await after.sandbox_status(stuck)).state == cri.SANDBOX_NOTREADY
    again = asyncio.create_task(
        after.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=stuck))
    )
    gate.set()
    await again
    assert after.world.sandboxes[stuck] == "stopped" and after.engine.calls.count("stop_sandbox") == 1
    stop.cancel()
