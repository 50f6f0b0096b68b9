"""The spans of one real pod's start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from podwright import traceparent
from podwright.config import Config, TracingConfig
from podwright.house import open_house
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own
from tests.tracing.collector import collecting

pytestmark = pytest.mark.root

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_each_piece_of_a_real_start_has_its_span(place: Config, busybox: Path) -> None:
    metadata = cri.PodSandboxMetadata(name="traced", namespace="test", uid="traced")
    pod = cri.PodSandboxConfig(metadata=metadata)
    container = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"),
        image=cri.ImageSpec(image="localhost/busybox:1"),
        command=["sleep", "1000"],
    )
    async with collecting() as collector:
        tracing = TracingConfig(enabled=True, endpoint=collector.endpoint)
        async with open_house(msgspec.structs.replace(place, tracing=tracing)) as runtime:
            request = own.ImportImageRequest(source=str(busybox), reference="localhost/busybox:1")
            await runtime.import_image(request)
            with traceparent.using(f"00-{TRACE}-{SPAN}-01"):
                sandbox = await runtime.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod))
                try:
                    made = await runtime.create_container(
                        cri.CreateContainerRequest(
                            pod_sandbox_id=sandbox.pod_sandbox_id, config=container, sandbox_config=pod
                        )
                    )
                    started = cri.StartContainerRequest(container_id=made.container_id)
                    await runtime.start_container(started)
                finally:
                    await runtime.remove_pod_sandbox(
                        cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.pod_sandbox_id)
                    )
    run, create = collector.call("RunPodSandbox"), collector.call("CreateContainer")
    start = collector.call("StartContainer")
    assert {(call.trace_id, call.parent_id) for call in (run, create, start)} == {(TRACE, SPAN)}
    assert {"pod files", "namespaces", "cni add"} <= set(collector.below(run))
    (network,) = (span for span in collector.spans if span.name == "cni add")
    assert collector.below(network) == ["cni plugin"]
    assert {"rootfs", "spec", "runtime create"} <= set(collector.below(create))
    assert "runtime start" in collector.below(start)
    for call in (run, create, start):
        inside = [span for span in collector.spans if span.parent_id == call.id]
        assert all(call.start <= span.start <= span.end <= call.end for span in inside)
        # Steps tell where the time goes, not only that some goes; mostly it is nine tenths of it.
        assert sum(span.end - span.start for span in inside) > (call.end - call.start) / 4
    assert run.start < create.start < start.start
