"""The endpoint for Prometheus at a real server on the fake engine: what it tells, and who cannot harm it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.message_factory import GetMessageClass
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from podwright.api import Cri, method_name
from podwright.client import connect
from podwright.config import Config, MetricsConfig
from podwright.core import events
from podwright.core.runtime import Runtime
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.house import open_house
from podwright.metrics import endpoint
from podwright.metrics.endpoint import parse, serving
from podwright.server.calls import Gate, own_methods, served_methods
from podwright.server.errors import status_of
from podwright.server.serve import listening
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Served:
    runtime: Runtime
    client: Cri
    place: str

    async def samples(self) -> Samples:
        status, text = await fetch(self.place)
        assert status == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def value(self, name: str, **labels: str) -> float:
        return (await self.samples()).get((name, tuple(sorted(labels.items()))), 0)


async def connected(place: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if place.startswith("/"):
        return await asyncio.open_unix_connection(place)
    host, port = parse(place)
    return await asyncio.open_connection(host, port)


async def fetch(place: str, target: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    async with asyncio.timeout(30):
        reader, writer = await connected(place)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def config(tmp_path: Path, address: str) -> Config:
    root = tmp_path / "state"
    return Config(
        root=str(root), run=str(root / "run"), engine="fake", metrics=MetricsConfig(address=address)
    )


@asynccontextmanager
async def node(tmp_path: Path, address: str = "127.0.0.1:0") -> AsyncIterator[Served]:
    gate = Gate()
    socket = tmp_path / "cri.sock"
    async with open_house(config(tmp_path, address)) as runtime, serving(runtime) as place:
        gate.open(runtime)
        async with listening(str(socket), gate), connect(str(socket), timeout=60) as client:
            yield Served(runtime, client, place)


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(endpoint, "FRESH", 0.0)
    async with node(tmp_path) as served:
        yield served


def pod(name: str = "web") -> cri.RunPodSandboxRequest:
    metadata = cri.PodSandboxMetadata(name=name, namespace="ns", uid=name)
    return cri.RunPodSandboxRequest(config=cri.PodSandboxConfig(metadata=metadata))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def called(served: Served, rpc: str) -> bool:
    """Whether such a call goes on."""
    return any(call.name == rpc for call in served.runtime.in_flight.calls())


async def pulled(client: Cri, image: str = "busybox:1") -> None:
    await client.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image=image)))


async def container(client: Cri, sandbox: str) -> str:
    await pulled(client)
    request = cri.CreateContainerRequest(
        pod_sandbox_id=sandbox,
        config=cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="app"), image=cri.ImageSpec(image="busybox:1")
        ),
    )
    return (await client.create_container(request)).container_id


RPCS = [method for _, method in served_methods()]


@pytest.mark.parametrize("method", RPCS, ids=lambda method: method.name)
async def test_each_rpc_leaves_a_sample_with_its_code(served: Served, method: Any) -> None:
    """Asked with an empty message: what that becomes differs, and is told either way."""
    call = getattr(served.client, method_name(method.name))(GetMessageClass(method.input_type)())
    code = "OK"
    try:
        if method.name == "GetContainerEvents":
            stream, code = call, "CANCELLED"
            waiting = asyncio.ensure_future(anext(stream))
            await until(lambda: served.runtime.events.subscribers)
            waiting.cancel()
            await asyncio.wait([waiting])
            await stream.aclose()
            await until(lambda: not called(served, method.name))
        elif method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except PodwrightError as error:
        code = status_of(error)[0].name
    assert await served.value("podwright_rpc_seconds_count", rpc=method.name, code=code) == 1
    samples = await served.samples()
    calls = {dict(labels)["rpc"] for name, labels in samples if name == "podwright_rpc_seconds_count"}
    assert calls == {method.name}, "no call is told twice"


async def test_own_rpcs_are_told_too(served: Served) -> None:
    methods = [method for _, method in own_methods() if not method.server_streaming]
    for method in methods:
        try:
            await getattr(served.client, method_name(method.name))(GetMessageClass(method.input_type)())
        except PodwrightError:
            pass
    samples = await served.samples()
    told = {dict(labels).get("rpc") for name, labels in samples if name == "podwright_rpc_seconds_count"}
    assert {method.name for method in methods} == told


async def test_steps_pulls_errors_and_states(served: Served) -> None:
    client = served.client
    sandbox = (await client.run_pod_sandbox(pod())).pod_sandbox_id
    id = await container(client, sandbox)
    await client.start_container(cri.StartContainerRequest(container_id=id))
    with pytest.raises(PodwrightError):
        await pulled(client, "registry.invalid/a b")
    with pytest.raises(PodwrightError):
        await client.container_status(cri.ContainerStatusRequest(container_id="none"))
    samples = await served.samples()

    def value(name: str, **labels: str) -> float:
        return samples[name, tuple(sorted(labels.items()))]

    assert value("podwright_step_seconds_count", step="cni add", rpc="RunPodSandbox") == 1
    assert value("podwright_step_seconds_count", step="runtime create", rpc="CreateContainer") == 1
    assert value("podwright_pulls_total") == 1
    assert value("podwright_pull_failures_total", reason="InvalidArgument") == 1
    assert value("podwright_pulled_bytes_total") > 0
    assert value("podwright_rpc_errors_total", code="NOT_FOUND") == 1
    assert value("podwright_sandboxes", state="ready") == 1
    assert value("podwright_sandboxes", state="stopped") == 0
    assert value("podwright_containers", state="running") == 1
    assert value("podwright_images") == 1
    assert value("podwright_image_store_bytes") > 0
    assert value("podwright_database_bytes") > 0
    assert value("podwright_event_subscribers") == 0
    assert value("podwright_sessions", session="ExecSession") == 0
    assert value("process_resident_memory_bytes") > 1 << 20
    assert any(name == "podwright_build_info" and number == 1 for (name, _), number in samples.items())


async def test_call_under_way_is_an_operation(served: Served) -> None:
    with served.runtime.operations.open("RunPodSandbox", "web"):
        assert await served.value("podwright_operations", rpc="RunPodSandbox") == 1
    assert await served.value("podwright_operations", rpc="RunPodSandbox") == 0


async def test_there_are_no_series_of_births(served: Served) -> None:
    await pulled(served.client)
    names = {name for name, _ in await served.samples()}
    assert "podwright_pulls_total" in names and "podwright_rpc_seconds_bucket" in names
    assert not [name for name in names if name.endswith("_created")]


async def test_every_call_that_changes_something_has_a_series_before_it_comes(served: Served) -> None:
    idle = {
        dict(labels)["rpc"]: number
        for (name, labels), number in (await served.samples()).items()
        if name == "podwright_operations"
    }
    assert set(idle.values()) == {0}
    assert {"RunPodSandbox", "StopContainer", "PullImage", "ExecSync", "ImportImage"} <= idle.keys()
    assert "ListContainers" not in idle and "Version" not in idle
    own_ones = {method.name for method in own.DESCRIPTOR.services_by_name["Node"].methods}
    assert idle.keys() <= {method.name for method in RPCS} | own_ones


async def test_call_whose_client_leaves_is_cancelled_in_the_figures(served: Served) -> None:
    client = served.client
    id = await container(client, (await client.run_pod_sandbox(pod())).pod_sandbox_id)
    await client.start_container(cri.StartContainerRequest(container_id=id))
    request = cri.ExecSyncRequest(container_id=id, cmd=["sleep", "1000"])
    call = asyncio.ensure_future(client.exec_sync(request))
    await until(lambda: called(served, "ExecSync"))
    assert await served.value("podwright_operations", rpc="ExecSync") == 1
    call.cancel()
    await asyncio.wait([call])
    await until(lambda: not called(served, "ExecSync"))
    assert await served.value("podwright_rpc_seconds_count", rpc="ExecSync", code="CANCELLED") == 1
    assert await served.value("podwright_rpc_errors_total", code="CANCELLED") == 0
    assert await served.value("podwright_operations", rpc="ExecSync") == 0


async def test_events_that_nobody_took_are_counted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUE", 1)
    subscription = served.runtime.events.subscribe()
    await served.client.run_pod_sandbox(pod())
    assert await served.value("podwright_event_subscribers") == 1
    assert await served.value("podwright_events_lost_total") == subscription.lost == 2


async def test_no_label_has_an_id_or_a_name(served: Served) -> None:
    sandbox = (await served.client.run_pod_sandbox(pod("very-own-name"))).pod_sandbox_id
    await container(served.client, sandbox)
    _, text = await fetch(served.place)
    assert sandbox not in text and "very-own-name" not in text and "busybox" not in text
    values = set(re.findall(r'\w+="([^"]*)"', text))
    assert {"RunPodSandbox", "OK", "ready"} < values
    assert not [value for value in values if re.search(r"[0-9a-f]{12}|/", value)]


async def test_figures_end_with_the_endpoint(tmp_path: Path) -> None:
    async with open_house(config(tmp_path, "127.0.0.1:0")) as runtime:
        before = runtime.operations.watchers
        async with serving(runtime) as place:
            assert len(runtime.operations.watchers) == len(before) + 1
        assert runtime.operations.watchers == before
        with pytest.raises(OSError):
            await connected(place)


async def test_unix_socket_is_for_root_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    async with node(tmp_path, f"unix://{path}") as served:
        assert path.stat().st_mode & 0o777 == 0o660
        assert "podwright_sandboxes" in (await fetch(served.place))[1]
    assert not path.exists()


@pytest.mark.parametrize(
    ("target", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405), ("/metrics/x", "GET", 404)]
)
async def test_other_requests_are_refused(served: Served, target: str, method: str, status: int) -> None:
    assert (await fetch(served.place, target, method))[0] == status


async def test_head_is_answered_without_a_body(served: Served) -> None:
    assert await fetch(served.place, method="HEAD") == (200, "")


async def test_huge_request_is_refused(served: Served) -> None:
    reader, writer = await connected(served.place)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (1 << 20))
    async with asyncio.timeout(30):
        answer = await reader.read()
    assert b" 431 " in answer or b" 400 " in answer
    writer.close()
    assert (await fetch(served.place))[0] == 200


async def test_body_is_refused(served: Served) -> None:
    reader, writer = await connected(served.place)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
    async with asyncio.timeout(30):
        assert b" 413 " in await reader.readuntil(b"\r\n")
    writer.close()


async def test_client_that_says_nothing_is_let_go(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LASTS", 0.2)
    reader, writer = await connected(served.place)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_client_that_does_not_read_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LASTS", 0.5)
    reader, writer = await connected(served.place)
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(30):
            while True:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                await writer.drain()
    writer.close()
    assert (await fetch(served.place))[0] == 200
    del reader


async def test_crowd_of_connections_is_cut(served: Served) -> None:
    crowd = [await connected(served.place) for _ in range(endpoint.AT_ONCE + 5)]
    async with asyncio.timeout(30):
        for reader, _ in crowd[endpoint.AT_ONCE :]:
            assert await is_cut(reader)
        reader, writer = crowd[0]
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await reader.readline(), "those before are served"
    for _, writer in crowd:
        writer.close()

    async def answered() -> int:
        try:
            return (await fetch(served.place))[0]
        except (ConnectionError, IndexError):
            return 0  # the server has not seen yet that they have gone

    async with asyncio.timeout(30):
        while not (status := await answered()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert status == 200


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_answer_is_given_again_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    monkeypatch.setattr(endpoint, "FRESH", 3600.0)

    def make(registry: CollectorRegistry) -> bytes:
        made.append(generate_latest(registry))
        return made[-1]

    monkeypatch.setattr(endpoint, "generate_latest", make)
    async with node(tmp_path) as served:
        answers = await asyncio.gather(*(fetch(served.place) for _ in range(10)))
    assert {status for status, _ in answers} == {200} and len(made) == 1


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:", ":9477", "host:99999", "127.0.0.1:x", "tcp://a:1"]
)
async def test_bad_address_is_refused_by_name(tmp_path: Path, address: str) -> None:
    async with open_house(config(tmp_path, address)) as runtime:
        with pytest.raises(InvalidArgument, match=r"metrics\.address"):
            async with serving(runtime):
                raise AssertionError("it serves")


async def test_address_that_is_taken_is_refused_by_name(served: Served, tmp_path: Path) -> None:
    taken = msgspec.structs.replace(served.runtime.config, metrics=MetricsConfig(address=served.place))
    served.runtime.config = taken
    with pytest.raises(FailedPrecondition, match=r"metrics\.address"):
        async with serving(served.runtime):
            raise AssertionError("it serves")


async def test_address_beyond_loopback_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "podwright.metrics"):
        async with open_house(config(tmp_path, "0.0.0.0:0")) as runtime, serving(runtime):
            assert "whoever reaches it" in caplog.text
