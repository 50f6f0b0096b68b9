"""Starts that hang, processes that do not die, ends that nobody tells: every call ends within bounds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from podwright.core.runtime import FOLLOW_AGAIN, FOLLOW_AT_MOST
from podwright.core.starting import LATE
from podwright.core.stopping import GIVE_UP, KILL_AGAIN
from podwright.engines.base import Exit, Presence
from podwright.errors import DeadlineExceeded, FailedPrecondition, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.core import invariants
from tests.core.client import Client
from tests.core.driving import drive
from tests.core.node import CONFIG, Node, WatchedEngine
from tests.core.points import idle


async def hanging_start(node: Node, step: str) -> tuple[str, str, asyncio.Task[None]]:
    pod = await node.sandbox()
    container = await node.container(pod, start=False)
    node.points.gates[step] = asyncio.Event()
    start = asyncio.ensure_future(Client(node).start(container))
    await idle()
    assert not start.done() and (await node.status(container)).state == cri.CONTAINER_CREATED
    return pod, container, start


STEPS = ["start_container.start", "start_container.started"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("grace", [0, 5])
async def test_container_whose_start_hangs_is_killed_by_a_stop(node: Node, step: str, grace: int) -> None:
    _, container, start = await hanging_start(node, step)
    await node.shortly(Client(node).stop(container, grace), grace + LATE)
    assert node.engine.signals == [(container, signal.SIGKILL)], "it could hear no other"
    status = await node.status(container)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 137, "Error")
    with pytest.raises(FailedPrecondition, match="before its start returned"):
        await start
    await invariants.check(node, Client(node).account)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["remove", "stop pod", "remove pod"])
async def test_container_whose_start_hangs_goes_with_a_removal(node: Node, step: str, how: str) -> None:
    pod, container, start = await hanging_start(node, step)
    client = Client(node)
    call = {"remove": client.remove, "stop pod": client.stop_pod, "remove pod": client.remove_pod}[how]
    await node.shortly(call(container if how == "remove" else pod), LATE)
    assert (container in node.world.containers) == (how == "stop pod")
    with pytest.raises(FailedPrecondition):
        await start
    await invariants.check(node, client.account)


async def test_start_that_hangs_for_ever_fails_in_the_end(node: Node) -> None:
    _, container, start = await hanging_start(node, "start_container.start")
    await node.clock.advance(CONFIG.create_timeout)
    with pytest.raises(DeadlineExceeded, match="not started after"):
        await start
    status = await node.status(container)
    assert (status.state, status.reason) == (cri.CONTAINER_EXITED, "StartError")
    assert node.world.containers[container].presence is Presence.EXITED
    await invariants.check(node, Client(node).account)


@pytest.mark.parametrize("grace", [0, 10])
@pytest.mark.parametrize("call", ["stop", "remove"])
async def test_process_that_does_not_die_is_reported(
    node: Node, monkeypatch: pytest.MonkeyPatch, grace: int, call: str
) -> None:
    container = await node.container(await node.sandbox())

    async def unheard(engine: WatchedEngine, container: object, number: int) -> None:
        engine.signals.append(("", number))

    client = Client(node)
    with monkeypatch.context() as patched:
        patched.setattr(WatchedEngine, "signal_container", unheard)
        made = client.stop(container, grace) if call == "stop" else client.remove(container)
        raised = await drive(node, made)
    assert isinstance(raised, DeadlineExceeded) and "SIGKILL" in str(raised)
    assert node.clock.monotonic() >= GIVE_UP
    assert node.engine.signals.count(("", signal.SIGKILL)) >= GIVE_UP / KILL_AGAIN
    assert (await node.status(container)).state == cri.CONTAINER_RUNNING
    await node.shortly(client.remove(container))


async def test_end_that_was_not_told_is_seen_by_who_kills(node: Node) -> None:
    container = await node.container(await node.sandbox())
    node.world.listen(None)
    node.exit(container, 3)
    assert (await node.status(container)).state == cri.CONTAINER_RUNNING
    await node.shortly(Client(node).stop(container), KILL_AGAIN)
    assert (await node.status(container)).exit_code == 3


async def test_exits_are_followed_again_and_missed_ones_found(node: Node) -> None:
    pod = await node.sandbox()
    container, other = await node.container(pod), await node.container(pod, "other")

    async def broken(exit: Exit) -> None:
        node.engine.hold_exit = None
        raise ConnectionError("the engine's daemon was restarted")

    node.engine.hold_exit = broken
    node.exit(container, 3)
    node.sandbox_ends(pod)
    await idle()
    assert (await node.status(container)).state == cri.CONTAINER_RUNNING
    await node.clock.advance(FOLLOW_AGAIN)
    assert (await node.status(container)).exit_code == 3
    assert (await node.sandbox_status(pod)).state == cri.SANDBOX_NOTREADY
    node.exit(other, 4)
    await idle()
    assert (await node.status(other)).exit_code == 4


async def test_an_engine_that_stays_away_is_asked_ever_less_often(node: Node) -> None:
    container = await node.container(await node.sandbox())
    asked: list[float] = []
    follow = node.engine.exits

    async def away() -> AsyncIterator[Exit]:
        asked.append(node.clock.monotonic())
        raise ConnectionError("the engine's daemon is away")
        yield

    async def broken(exit: Exit) -> None:
        node.engine.hold_exit, node.engine.exits = None, away  # type: ignore[method-assign]
        raise ConnectionError("the engine's daemon has gone away")

    node.engine.hold_exit = broken
    node.exit(container, 3)
    await idle()
    begun = node.clock.monotonic()
    for _ in range(20):
        await node.clock.advance(1.0)
    pauses = [after - before for before, after in pairwise([begun, *asked])]
    assert pauses[:4] == [FOLLOW_AGAIN, 2 * FOLLOW_AGAIN, FOLLOW_AT_MOST, FOLLOW_AT_MOST]
    assert set(pauses[4:]) == {FOLLOW_AT_MOST}
    assert (await node.status(container)).exit_code == 3
    node.engine.exits = follow  # type: ignore[method-assign]
    await node.clock.advance(FOLLOW_AT_MOST)
    other = await node.container(await node.sandbox(name="other"))
    node.exit(other, 4)
    await idle()
    assert (await node.status(other)).exit_code == 4


@pytest.mark.parametrize("step", [*STEPS, ""])
@pytest.mark.parametrize("call", ["stop", "remove", "stop pod"])
async def test_container_that_recovery_could_not_look_at_can_be_stopped_and_removed(
    node: Node, step: str, call: str
) -> None:
    if step:
        pod, container, _ = await hanging_start(node, step)
    else:
        pod = await node.sandbox()
        container = await node.container(pod)
    await node.crash()
    node.points.failures["observe_container.look"] = PodwrightError("busy")
    await node.start()
    client = Client(node)
    made = {"stop": client.stop, "remove": client.remove, "stop pod": client.stop_pod}[call]
    await node.shortly(made(pod if call == "stop pod" else container))
    # One that had not been started needed no stop.
    runs_on = call == "stop" and step == STEPS[0]
    left = node.world.containers.get(container)
    assert (
        (left is not None and left.presence is Presence.CREATED)
        if runs_on
        else (left is None or left.presence is Presence.EXITED)
    )
    await invariants.check(node, client.account)


async def test_container_does_not_start_when_the_one_it_joins_is_gone(node: Node) -> None:
    client = Client(node)
    pod = await client.pod()
    main = await client.create(pod)
    await client.start(main)
    debugger = await client.create(pod, "debugger", target=main)
    await client.remove(main)
    for crashed in (False, True):
        with pytest.raises(FailedPrecondition, match=main):
            await client.start(debugger)
        assert (await node.status(debugger)).state == cri.CONTAINER_CREATED
        if not crashed:
            await node.after_crash()


async def test_soft_signal_that_could_not_be_sent_is_sent_by_the_next_call(node: Node) -> None:
    container = await node.container(await node.sandbox())
    node.points.failures["signal_container.signal"] = PodwrightError("busy")
    with pytest.raises(PodwrightError, match="busy"):
        await Client(node).stop(container, 30)
    await node.shortly(Client(node).stop(container, 30), 1)
    assert [number for _, number in node.engine.signals] == [signal.SIGTERM, signal.SIGTERM]
    assert (await node.status(container)).exit_code == 128 + signal.SIGTERM
