"""Calls that come over a socket: each is one operation, with its caller's trace, until it has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from podwright.api import Cri
from podwright.client import connect
from podwright.config import Config
from podwright.core.runtime import Runtime
from podwright.errors import NotFound
from podwright.house import open_house
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.steps import Step
from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as stubs

RUNTIME: Any = stubs.RuntimeServiceStub
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Served:
    runtime: Runtime
    client: Cri
    path: Path
    calls: list[Step] = field(default_factory=list)
    """That have ended."""

    def began(self, step: Step) -> None:
        pass

    def ended(self, step: Step) -> None:
        if step.is_call:
            self.calls.append(step)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    gate, path = Gate(), tmp_path / "cri.sock"
    config = Config(root=str(tmp_path / "root"), run=str(tmp_path / "run"), engine="fake")
    async with open_house(config) as runtime:
        gate.open(runtime)
        async with listening(str(path), gate), connect(str(path), timeout=60) as client:
            made = Served(runtime, client, path)
            runtime.operations.watchers += (made,)
            yield made


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def pod() -> cri.RunPodSandboxRequest:
    metadata = cri.PodSandboxMetadata(name="web", namespace="ns", uid="1")
    return cri.RunPodSandboxRequest(config=cri.PodSandboxConfig(metadata=metadata))


async def test_call_is_one_operation_through_whichever_door(served: Served) -> None:
    await served.client.run_pod_sandbox(pod())
    [call] = served.calls
    assert (call.name, call.subject, call.parent, call.caller) == ("RunPodSandbox", "web", None, "")
    served.calls.clear()
    id = str(call.attributes["pod_sandbox_id"])
    await served.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=id))
    [call] = served.calls
    assert (call.name, call.subject, call.parent) == ("StopPodSandbox", id, None)


async def test_callers_trace_is_the_operations(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"unix:{served.path}") as channel:
        metadata = (("x-other", "1"), ("traceparent", TRACEPARENT))
        await RUNTIME(channel).Version(cri.VersionRequest(), metadata=metadata)
        stream = RUNTIME(channel).StreamContainers(cri.StreamContainersRequest(), metadata=metadata)
        assert [part async for part in stream] == []
    await until(lambda: len(served.calls) == 2)
    assert [(call.name, call.caller) for call in served.calls] == [
        *(("Version", TRACEPARENT), ("StreamContainers", TRACEPARENT))
    ]


async def test_error_is_the_operations(served: Served) -> None:
    with pytest.raises(NotFound):
        await served.client.container_status(cri.ContainerStatusRequest(container_id="none"))
    [call] = served.calls
    assert (call.name, call.subject) == ("ContainerStatus", "none") and isinstance(call.error, NotFound)


async def test_stream_is_an_operation_until_its_client_leaves(served: Served) -> None:
    stream = served.client.get_container_events(cri.GetEventsRequest())
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: served.runtime.events.subscribers)
    assert [call.name for call in served.runtime.in_flight.calls()] == ["GetContainerEvents"]
    await served.runtime.run_pod_sandbox(pod())
    await waiting
    await stream.aclose()  # type: ignore[attr-defined]
    await until(lambda: not served.runtime.in_flight.calls())
    assert [call.name for call in served.calls] == ["RunPodSandbox", "GetContainerEvents"]


async def test_call_whose_client_leaves_has_ended(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"unix:{served.path}") as channel:
        image = cri.ImageSpec(image="busybox:1")
        await served.client.pull_image(cri.PullImageRequest(image=image))
        sandbox = (await served.client.run_pod_sandbox(pod())).pod_sandbox_id
        container = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="app"), image=image)
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=container)
        id = (await served.client.create_container(request)).container_id
        await served.client.start_container(cri.StartContainerRequest(container_id=id))
        call = RUNTIME(channel).ExecSync(cri.ExecSyncRequest(container_id=id, cmd=["sleep", "1000"]))
        await until(lambda: "ExecSync" in [one.name for one in served.runtime.in_flight.calls()])
        call.cancel()
        await until(lambda: not served.runtime.in_flight.calls())
    [ended] = [one for one in served.calls if one.name == "ExecSync"]
    assert isinstance(ended.error, asyncio.CancelledError)
