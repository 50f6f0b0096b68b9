"""A crash at chosen steps: what the next start makes of it. Every step is in `test_every_step_crash`."""

from __future__ import annotations

import asyncio

import pytest

from podwright.core import recovery
from podwright.engines.base import Container, Exit, Observation, Presence
from podwright.errors import PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node, WatchedEngine, until


async def test_everything_is_known_again(node: Node) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox)
    before, sandbox_before = await node.status(container), await node.sandbox_status(sandbox)
    await node.after_crash()
    assert await node.status(container) == before
    assert await node.sandbox_status(sandbox) == sandbox_before
    await node.runtime.stop_container(cri.StopContainerRequest(container_id=container, timeout=1))


async def test_engine_is_told_which_sandboxes_are_left(node: Node) -> None:
    assert node.engine.kept == set()
    kept = await node.sandbox("kept")
    node.points.gates["create_sandbox.ready"] = asyncio.Event()
    half = asyncio.create_task(node.sandbox("half"))
    await until(lambda: node.points.passed.count("create_sandbox.ready") == 2)
    await node.after_crash()
    assert node.engine.kept == {kept}
    assert half.cancelled()


async def test_exit_meanwhile_is_collected(node: Node) -> None:
    container = await node.container(await node.sandbox())
    node.kill()
    node.exit(container, 9)
    made = node.world.containers[container]
    assert made.exit is not None
    await node.after_crash()
    status = await node.status(container)
    assert (status.state, status.exit_code) == (cri.CONTAINER_EXITED, 9)
    assert status.finished_at == made.exit.finished_at


async def test_vanished_container_is_255_unknown(node: Node) -> None:
    container = await node.container(await node.sandbox())
    node.kill()
    del node.world.containers[container]
    await node.after_crash()
    status = await node.status(container)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")


async def test_an_exit_reported_while_recovery_looks_is_the_truth(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await node.container(await node.sandbox())

    async def look(engine: WatchedEngine, container: Container) -> Observation:
        node.exit(container.id, 9)
        for _ in range(10):
            await asyncio.sleep(0)
        return Observation(Presence.MISSING)

    monkeypatch.setattr(WatchedEngine, "observe_container", look)
    await node.after_crash()
    status = await node.status(container)
    assert (status.exit_code, status.reason) == (9, "Error")


async def test_sandbox_that_is_gone_is_not_ready(node: Node) -> None:
    sandbox = await node.sandbox()
    node.kill()
    node.world.sandboxes.clear()
    await node.after_crash()
    assert (await node.sandbox_status(sandbox)).state == cri.SANDBOX_NOTREADY
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


@pytest.mark.parametrize("step", ["create_sandbox.ready", "create_container.task"])
async def test_half_done_creation_is_undone(node: Node, step: str) -> None:
    node.points.gates[step] = asyncio.Event()

    async def pod() -> None:
        await node.container(await node.sandbox())

    task = asyncio.create_task(pod())
    await until(lambda: step in node.points.passed)
    await node.after_crash()
    assert not node.world.containers and await node.containers() == []
    if step == "create_sandbox.ready":
        assert not node.world.sandboxes and await node.sandboxes() == []
    assert task.cancelled()


async def test_a_start_that_failed_meanwhile_is_told_as_one_that_was_heard_of(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await node.container(await node.sandbox(), start=False)
    node.points.gates["start_container.start"] = asyncio.Event()
    start = asyncio.create_task(
        node.runtime.start_container(cri.StartContainerRequest(container_id=container))
    )
    await until(lambda: "start_container.start" in node.points.passed)
    at = node.clock.now()

    async def observe(_: object, container: Container) -> Observation:
        return Observation(Presence.EXITED, Exit(container.id, 127, at, refusal="no such program"))

    monkeypatch.setattr(type(node.engine), "observe_container", observe)
    await node.after_crash()
    assert start.cancelled()
    status = await node.status(container)
    assert (status.exit_code, status.reason, status.message) == (128, "StartError", "no such program")
    assert (status.started_at, status.finished_at) == (0, at)


@pytest.mark.parametrize("step", ["start_container.start", "start_container.started"])
async def test_announced_start_is_settled_by_what_is_there(node: Node, step: str) -> None:
    container = await node.container(await node.sandbox(), start=False)
    node.points.gates[step] = asyncio.Event()
    request = cri.StartContainerRequest(container_id=container)
    start = asyncio.create_task(node.runtime.start_container(request))
    await until(lambda: step in node.points.passed)
    await node.after_crash()
    if step == "start_container.start":
        assert (await node.status(container)).state == cri.CONTAINER_CREATED
        await node.runtime.start_container(request)
    assert (await node.status(container)).state == cri.CONTAINER_RUNNING
    assert (await node.status(container)).started_at > 0
    assert start.cancelled()


@pytest.mark.parametrize("step", ["remove_container.task", "stop_sandbox.network", "remove_sandbox.files"])
async def test_half_done_removal_is_finished(node: Node, step: str) -> None:
    sandbox = await node.sandbox()
    container = await node.container(sandbox, start=False)
    node.exit(container, 0)
    await node.runtime.wait(container)
    node.points.gates[step] = asyncio.Event()
    request = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
    removal = asyncio.create_task(node.runtime.remove_pod_sandbox(request))
    await until(lambda: step in node.points.passed)
    await node.after_crash()
    # A removal that had only come as far as stopping is a stop that is finished; the client asks again.
    await node.runtime.remove_pod_sandbox(request)
    assert not node.world.sandboxes and not node.world.containers
    assert await node.sandboxes() == [] and await node.containers() == []
    assert removal.cancelled()


async def test_undoing_that_fails_is_tried_again_at_the_next_start(node: Node) -> None:
    node.points.gates["create_sandbox.ready"] = asyncio.Event()
    task = asyncio.create_task(node.sandbox())
    await until(lambda: "create_sandbox.ready" in node.points.passed)
    await node.crash()
    node.points.failures["remove_sandbox.files"] = PodwrightError("busy")
    await node.start()
    [left] = await node.sandboxes()
    assert (await node.sandbox_status(left)).state == cri.SANDBOX_NOTREADY
    await node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=left))
    assert not node.world.sandboxes
    assert task.cancelled()


async def test_container_whose_roll_back_failed_goes_with_its_sandbox(node: Node) -> None:
    sandbox = await node.sandbox()
    node.points.failures["create_container.task"] = PodwrightError("no luck")
    node.points.failures["undo_container.rootfs"] = OSError("busy")
    with pytest.raises(PodwrightError):
        await node.container(sandbox)
    assert node.world.containers
    await node.after_crash()
    assert not node.world.containers and await node.containers() == []


async def test_hanging_network_does_not_keep_the_others_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PATIENCE", 0.05)
    running = await node.container(await node.sandbox("good"))
    stuck = await node.sandbox("stuck")
    node.points.gates["stop_sandbox.network"] = asyncio.Event()
    request = cri.StopPodSandboxRequest(pod_sandbox_id=stuck)
    stop = asyncio.create_task(node.runtime.stop_pod_sandbox(request))
    await until(lambda: "stop_sandbox.network" in node.points.passed)
    await node.crash()
    gate = node.points.gates["stop_sandbox.network"] = asyncio.Event()
    node.points.passed.clear()
    await node.start()
    assert (await node.status(running)).state == cri.CONTAINER_RUNNING
    assert (await node.sandbox_status(stuck)).state == cri.SANDBOX_NOTREADY
    again = asyncio.create_task(node.runtime.stop_pod_sandbox(request))
    gate.set()
    await again
    left = node.world.sandboxes[stuck]
    assert not left.ready and not left.ips
    assert node.points.passed.count("stop_sandbox.network") == 1
    assert stop.cancelled()
