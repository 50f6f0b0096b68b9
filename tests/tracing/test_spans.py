"""Spans of calls and steps as a collector gets them: their tree, whose trace they are in, what they say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from podwright import __version__, traceparent
from podwright.api import Cri
from podwright.client import connect
from podwright.config import TracingConfig
from podwright.core.runtime import Runtime
from podwright.errors import InvalidArgument, NotFound, PodwrightError
from podwright.steps import step
from podwright.testing import FakeNode
from podwright.tracing.exporting import exported
from podwright.wire import cri_pb2 as cri
from tests.tracing.collector import Collector

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
INTERNAL, SERVER = 1, 2
UNSET, ERROR = 0, 2


def pod(name: str = "web") -> cri.PodSandboxConfig:
    metadata = cri.PodSandboxMetadata(name=name, namespace="default", uid=f"uid-{name}")
    return cri.PodSandboxConfig(metadata=metadata)


def container(name: str = "main") -> cri.ContainerConfig:
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name),
        image=cri.ImageSpec(image="app:1"),
        command=["sleep", "inf"],
    )


async def start(runtime: Cri) -> str:
    """A pod with one container; the sandbox's id."""
    await runtime.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image="app:1")))
    sandbox = await runtime.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod()))
    request = cri.CreateContainerRequest(
        pod_sandbox_id=sandbox.pod_sandbox_id, config=container(), sandbox_config=pod()
    )
    made = await runtime.create_container(request)
    await runtime.start_container(cri.StartContainerRequest(container_id=made.container_id))
    return sandbox.pod_sandbox_id


@asynccontextmanager
async def node(collector: Collector, rate: int | None = None) -> AsyncIterator[FakeNode]:
    """A fake node whose spans have come when the block is left."""
    config = TracingConfig(enabled=True, endpoint=collector.endpoint, sampling_rate_per_million=rate)
    async with FakeNode() as made, exported(cast(Runtime, made.cri).operations, config):
        yield made


async def test_a_call_and_its_steps_are_a_tree(collector: Collector) -> None:
    async with node(collector) as made:
        await start(made.cri)
    run, create = collector.call("RunPodSandbox"), collector.call("CreateContainer")
    assert run.parent_id == create.parent_id == "" and run.trace_id != create.trace_id
    assert "namespaces" in collector.below(run) and "cni add" in collector.below(run)
    assert "rootfs" in collector.below(create)
    assert len({span.id for span in collector.spans}) == len(collector.spans)
    ids = {span.id: span for span in collector.spans}
    for span in collector.spans:
        if span.parent_id:
            above = ids[span.parent_id]
            assert above.trace_id == span.trace_id and above.start <= span.start <= span.end
    assert run.kind == SERVER and collector.one("cni add").kind == INTERNAL


async def test_what_spans_say(collector: Collector) -> None:
    async with node(collector) as made:
        await start(made.cri)
    run = collector.call("RunPodSandbox")
    assert run.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "runtime.v1.RuntimeService",
        "rpc.method": "RunPodSandbox",
        "rpc.grpc.status_code": 0,
        "podwright.subject": run.attributes["podwright.subject"],
    } | {key: value for key, value in run.attributes.items() if key.startswith("podwright.")}
    assert run.resource["service.name"] == "podwright"
    assert run.resource["service.version"] == __version__
    assert run.resource["host.name"] == socket.gethostname()
    pull = collector.one("runtime.v1.ImageService/PullImage")
    assert pull.attributes["podwright.subject"] == "app:1"


async def test_the_callers_trace_is_taken(collector: Collector, tmp_path: Path) -> None:
    async with node(collector) as made, made.serve(tmp_path / "s") as path, connect(str(path)) as client:
        with traceparent.using(SAMPLED):
            await start(client)
        await client.version(cri.VersionRequest())
    calls = [collector.call(rpc) for rpc in ("RunPodSandbox", "CreateContainer", "StartContainer")]
    assert {(call.trace_id, call.parent_id) for call in calls} == {(TRACE, SPAN)}
    assert collector.one("cni add").trace_id == TRACE
    assert collector.call("Version").trace_id != TRACE


@pytest.mark.parametrize(
    ("rate", "caller", "sent"),
    [
        (None, "", True),
        (None, SAMPLED, True),
        (None, UNSAMPLED, False),
        (1_000_000, UNSAMPLED, False),
        (0, "", False),
        (0, SAMPLED, True),
    ],
)
async def test_the_callers_decision_counts_more_than_the_rate(
    collector: Collector, rate: int | None, caller: str, sent: bool
) -> None:
    async with node(collector, rate) as made:
        with traceparent.using(caller):
            await start(made.cri)
    assert bool(collector.spans) is sent


async def test_the_sampler_of_the_environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "node-7")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "rack=r1")
    async with node(collector) as made:
        await start(made.cri)
    assert collector.spans == []
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    async with node(collector) as made:
        await made.cri.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod()))
    resource = collector.call("RunPodSandbox").resource
    assert (resource["service.name"], resource["rack"]) == ("node-7", "r1")


async def test_half_of_all_traces_are_whole(collector: Collector) -> None:
    async with node(collector, 500_000) as made:
        operations = cast(Runtime, made.cri).operations
        for _ in range(200):
            with operations.open("Version"), step("inner"):
                pass
    calls = [span for span in collector.spans if span.name.endswith("Version")]
    inner = {span.parent_id for span in collector.spans if span.name == "inner"}
    # 200 tosses of a fair coin: outside of this range once in 10^12.
    assert 50 < len(calls) < 150
    assert inner == {call.id for call in calls}


async def test_an_error_is_told_where_it_happened(collector: Collector) -> None:
    async with node(collector) as made:
        made.inject_error("create_sandbox.network", PodwrightError("no address is free"))
        with pytest.raises(PodwrightError, match="no address is free"):
            await made.cri.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod()))
    failed, call = collector.one("cni add"), collector.call("RunPodSandbox")
    assert failed.status == call.status == ERROR
    assert "no address is free" in failed.message
    assert call.attributes["rpc.grpc.status_code"] == 2
    ((name, event),) = failed.events
    assert name == "exception" and event["exception.type"] == "podwright.errors.PodwrightError"
    assert event["exception.message"] == failed.message
    assert failed.attributes["error.type"] == "podwright.errors.PodwrightError"
    assert collector.one("namespaces").status == UNSET
    assert "roll back" in collector.below(call)


async def test_a_clients_mistake_is_no_servers_error(collector: Collector) -> None:
    """By the conventions: codes that blame the client leave the server's span without an error."""
    async with node(collector) as made:
        with pytest.raises(NotFound):
            await made.cri.start_container(cri.StartContainerRequest(container_id="gone"))
        with pytest.raises(InvalidArgument):
            await made.cri.run_pod_sandbox(cri.RunPodSandboxRequest())
    start, run = collector.call("StartContainer"), collector.call("RunPodSandbox")
    assert (start.status, start.attributes["rpc.grpc.status_code"]) == (UNSET, 5)
    assert (run.status, run.attributes["rpc.grpc.status_code"]) == (UNSET, 3)
    assert run.events[0][1]["exception.type"] == "podwright.errors.InvalidArgument"


async def test_a_defect_has_its_traceback(collector: Collector) -> None:
    async with node(collector) as made:
        operations = cast(Runtime, made.cri).operations
        with pytest.raises(ZeroDivisionError), operations.open("Version"):
            _ = 1 // 0
        with pytest.raises(NotFound), operations.open("Status"):
            raise NotFound("no such thing")
    defect = collector.call("Version")
    assert defect.attributes["rpc.grpc.status_code"] == 13 and defect.status == ERROR
    assert "_ = 1 // 0" in defect.events[0][1]["exception.stacktrace"]
    assert "exception.stacktrace" not in collector.call("Status").events[0][1]


async def test_a_creation_that_outlives_its_client_stays_in_the_clients_trace(collector: Collector) -> None:
    slow = {"faults": [{"on": "create_sandbox.network", "latency": "10s"}]}
    config = TracingConfig(enabled=True, endpoint=collector.endpoint)
    async with FakeNode(slow) as made:
        runtime = cast(Runtime, made.cri)
        async with exported(runtime.operations, config):
            request = cri.RunPodSandboxRequest(config=pod())
            with traceparent.using(SAMPLED):
                call = asyncio.ensure_future(made.cri.run_pod_sandbox(request))
            await made.advance("1s")
            stages = [stage.name for stages in runtime.in_flight.calls().values() for stage in stages]
            assert stages == ["cni add"]
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
            # The client comes again, without a trace, and is given what the first call began.
            again = asyncio.ensure_future(made.cri.run_pod_sandbox(request))
            await made.advance("10s")
            assert (await again).pod_sandbox_id
    first, second = sorted(
        (span for span in collector.spans if span.name.endswith("RunPodSandbox")), key=lambda each: each.start
    )
    assert first.attributes["rpc.grpc.status_code"] == 1 and first.status == UNSET
    assert (first.trace_id, first.parent_id) == (TRACE, SPAN)
    late = collector.one("cni add")
    assert late.parent_id == first.id and late.end > first.end
    assert late.start < second.start and second.trace_id != TRACE
    assert collector.below(second) == ["wait for creation"]
