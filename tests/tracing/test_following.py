"""Following the steps of one trace: in this process and at a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from podwright import traceparent
from podwright.api import Node
from podwright.client import connect
from podwright.core import following
from podwright.core.following import Following
from podwright.errors import InvalidArgument, NotFound, ResourceExhausted
from podwright.steps import Operations, step
from podwright.testing import FakeNode
from podwright.traceparent import Parent
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own
from tests.tracing.test_spans import pod

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "a" * 32
SPAN = "00f067aa0ba902b7"
PATIENCE = 30.0


def caller(trace_id: str = TRACE) -> str:
    return str(Parent(trace_id, SPAN))


def watched() -> tuple[Operations, Following]:
    operations, made = Operations(), Following()
    operations.watchers = (made,)
    return operations, made


async def follow(made: Following, trace_id: str = TRACE) -> AsyncGenerator[own.StepEvent, None]:
    """Events of `trace_id`, from now on."""
    events = cast(
        "AsyncGenerator[own.StepEvent, None]", made.follow(own.WatchStepsRequest(trace_id=trace_id))
    )
    assert await anext(events) == own.StepEvent()
    return events


async def test_begin_and_end_of_each_step_are_told() -> None:
    operations, made = watched()
    events = await follow(made)
    with operations.open("RunPodSandbox", "web", caller()) as call, step("cni add", "eth0", port=80):
        pass
    told = [await anext(events) for _ in range(4)]
    await events.aclose()
    assert [(one.name, bool(one.ended)) for one in told] == [
        ("RunPodSandbox", False),
        ("cni add", False),
        ("cni add", True),
        ("RunPodSandbox", True),
    ]
    outer, inner = told[3], told[2]
    assert (outer.parent_id, inner.parent_id) == (SPAN, outer.id)
    assert (outer.is_call, inner.is_call) == (True, False)
    assert (inner.subject, dict(inner.attributes)) == ("eth0", {"port": "80"})
    assert (outer.started, outer.ended) == (call.started, call.ended)
    assert outer.error == inner.error == ""


async def test_what_others_do_is_not_told() -> None:
    operations, made = watched()
    events = await follow(made)
    for header in ("", caller(OTHER), "nonsense"):
        with operations.open("Version", caller=header), step("inner"):
            pass
    with operations.open("Status", caller=caller()):
        pass
    assert (await anext(events)).name == "Status"
    await events.aclose()


async def test_errors_are_told_as_the_client_hears_them() -> None:
    operations, made = watched()
    events = await follow(made)
    with pytest.raises(NotFound), operations.open("StartContainer", caller=caller()):
        raise NotFound("container 'x' is not there")
    with pytest.raises(asyncio.CancelledError), operations.open("StopContainer", caller=caller()):
        raise asyncio.CancelledError
    told = [await anext(events) for _ in range(4)]
    assert [one.error for one in told] == ["", "container 'x' is not there", "", "cancelled"]
    await events.aclose()


async def test_steps_of_threads_are_told() -> None:
    operations, made = watched()
    events = await follow(made)

    def work() -> None:
        with step("files"):
            pass

    with operations.open("RunPodSandbox", caller=caller()):
        await asyncio.to_thread(work)
    async with asyncio.timeout(PATIENCE):
        assert [(await anext(events)).name for _ in range(4)] == [
            "RunPodSandbox", "files", "files", "RunPodSandbox",
        ]  # fmt: skip
    await events.aclose()


async def test_several_follow_and_leave() -> None:
    operations, made = watched()
    first, second = await follow(made), await follow(made)
    await first.aclose()
    with operations.open("Version", caller=caller()):
        pass
    assert (await anext(second)).name == "Version"
    await second.aclose()
    assert made._followers == {}


async def test_who_is_too_slow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "BACKLOG", 3)
    operations, made = watched()
    events = await follow(made)
    for _ in range(2):
        with operations.open("Version", caller=caller()):
            pass
    assert [(await anext(events)).name for _ in range(3)] == ["Version"] * 3
    with pytest.raises(ResourceExhausted, match="too slowly"):
        await anext(events)
    assert made._followers == {}


@pytest.mark.parametrize("trace_id", ["", "x" * 32, "0" * 32, TRACE.upper(), TRACE[1:]])
async def test_what_is_no_trace_id_is_refused(trace_id: str) -> None:
    with pytest.raises(InvalidArgument, match="trace_id"):
        await anext(aiter(Following().follow(own.WatchStepsRequest(trace_id=trace_id))))


async def _run(events: AsyncIterator[own.StepEvent], ended: str) -> list[own.StepEvent]:
    told = []
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            told.append(event)
            if event.name == ended and event.ended:
                break
    return told


@pytest.mark.parametrize("remote", [False, True])
async def test_the_same_is_told_in_process_and_at_a_server(tmp_path: Path, remote: bool) -> None:
    async with FakeNode() as node, node.serve(tmp_path / "s") as path, connect(str(path)) as client:
        runtime = client if remote else node.cri
        events = cast(Node, runtime).watch_steps(own.WatchStepsRequest(trace_id=TRACE))
        assert (await anext(aiter(events))).id == ""
        with traceparent.using(caller()):
            await runtime.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod()))
        told = await _run(events, "RunPodSandbox")
    first = told[0]
    assert (first.name, first.parent_id, first.is_call) == ("RunPodSandbox", SPAN, True)
    inside = [one.name for one in told if one.parent_id == first.id and one.ended]
    assert "namespaces" in inside and "cni add" in inside


async def test_a_client_without_a_trace_sends_none(tmp_path: Path) -> None:
    async with FakeNode() as node, node.serve(tmp_path / "s") as path, connect(str(path)) as client:
        events = cast(Node, client).watch_steps(own.WatchStepsRequest(trace_id=TRACE))
        await anext(aiter(events))
        await client.version(cri.VersionRequest())
        with traceparent.using(caller()):
            await client.status(cri.StatusRequest())
        assert [one.name for one in await _run(events, "Status")] == ["Status", "Status"]
