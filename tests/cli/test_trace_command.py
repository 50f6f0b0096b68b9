"""`podwright trace`: in this process, at podwright's server and at another's, on a terminal and without."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from podwright.api import Cri
from podwright.cli.trace import _failed, _one_interrupt_at_a_time
from podwright.cli.trace_path import tree
from podwright.cli.trace_record import Recording, Span
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.steps import step
from podwright.testing import FakeNode, FakeServer
from podwright.wire import cri_pb2 as cri
from tests.cli.test_pull_command import PROGRAM, apply, command, short
from tests.cli.test_pull_command import fake_server as fake_server
from tests.tracing.collector import collecting

__all__ = ["fake_server", "short"]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: "app:1", command: [sleep, inf]}
  - {name: side, image: "app:1", command: [sleep, inf]}
"""
PATIENCE = 60.0


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    file = tmp_path / "pod.yaml"
    file.write_text(POD)
    return file


@pytest.fixture(scope="module")
def calm_server() -> Iterator[FakeServer]:
    """For tests that change nothing on it, and leave no pod."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, FakeServer(Path(directory)) as server:
        yield server


def trace(server: FakeServer, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    argv = command(server, "trace", *map(str, arguments))
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, **more)


def pods(server: FakeServer) -> list[Any]:
    done = subprocess.run(command(server, "pods", "-o", "json"), capture_output=True, text=True, check=True)
    return cast("list[Any]", json.loads(done.stdout)["items"])


def test_the_start_is_drawn_and_the_pod_removed(calm_server: FakeServer, pod: Path) -> None:
    done = trace(calm_server, pod)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["begins", "took", "path"] and lines[1].startswith("pod web ")
    assert re.search(r"^│ [├└] RunPodSandbox web ", done.stdout, re.M)
    assert re.search(r"^│   [├└] namespaces ", done.stdout, re.M), "steps inside are told, too"
    assert re.search(r"^[│ ] [├└] CreateContainer side ", done.stdout, re.M)
    assert "critical path" in done.stdout and "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 100
    assert pods(calm_server) == []


def test_keep_leaves_it_running(fake_server: FakeServer, pod: Path) -> None:
    assert trace(fake_server, "--keep", pod).returncode == 0
    assert len(pods(fake_server)) == 1


def test_the_same_in_this_process(tmp_path: Path, pod: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('engine = "fake"\n')
    places = ("--config", config, "--root", tmp_path / "root", "--run", tmp_path / "run")
    argv = [*PROGRAM, *map(str, places), "trace", str(pod)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^│ [├└] RunPodSandbox web ", done.stdout, re.M)
    assert re.search(r"^│   [├└] namespaces ", done.stdout, re.M)


async def test_where_tracing_is_configured_the_whole_start_is_one_trace(tmp_path: Path, pod: Path) -> None:
    async with collecting() as collector:
        config = tmp_path / "config.toml"
        config.write_text(f'engine = "fake"\n[tracing]\nenabled = true\nendpoint = "{collector.endpoint}"\n')
        places = ("--config", config, "--root", tmp_path / "root", "--run", tmp_path / "run")
        argv = [*PROGRAM, *map(str, places), "trace", str(pod)]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    whole, made, served = (
        collector.one(name)
        for name in ("pod web", "RunPodSandbox", "runtime.v1.RuntimeService/RunPodSandbox")
    )
    assert served.parent_id == made.id and whole.parent_id == ""
    assert whole.trace_id == made.trace_id == served.trace_id


def test_a_failure_stands_where_it_happened(fake_server: FakeServer, pod: Path) -> None:
    fault = {"on": "create_container.task", "error": {"code": "FailedPrecondition", "message": "no memory"}}
    apply(fake_server, faults=[fault])
    done = trace(fake_server, pod)
    assert done.returncode == 1
    assert re.search(
        r"✗ CreateContainer main .*\n([│ ] .*\n)*[│ ] +[├└] ✗ runtime create .*\n.*no memory", done.stdout
    )
    # What puts an end to the failed start is no part of it.
    assert "RemovePodSandbox" not in done.stdout and "StopPodSandbox" not in done.stdout
    assert pods(fake_server) == []


@pytest.mark.parametrize("error, failed", [("", False), ("cancelled", False), ("no room", True)])
def test_a_probe_that_the_end_cuts_off_is_no_failure(error: str, failed: bool) -> None:
    recording = Recording("pod web")
    recording.spans["1"] = Span("1", "", "ExecSync", 0, 1, error=error)
    assert _failed(recording) == failed


def test_several_starts_give_medians(calm_server: FakeServer, pod: Path) -> None:
    done = trace(calm_server, "--repeat", 3, pod)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 starts, medians\n\n")
    assert "p50" in done.stdout and "longest" in done.stdout
    # Only the first start pulls.
    assert "PullImage" not in done.stdout
    assert pods(calm_server) == []


def test_json_has_every_call(calm_server: FakeServer, pod: Path) -> None:
    report = json.loads(trace(calm_server, "-o", "json", pod).stdout)
    calls = {node["name"]: node for node in _below(report["root"])}
    assert {"RunPodSandbox", "ImageStatus", "CreateContainer", "StartContainer"} <= calls.keys()
    assert report["steps"] is True and report["total"] == report["root"]["took"] > 0
    assert "cni add" in [child["name"] for child in calls["RunPodSandbox"]["children"]]


def _below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _below(child)


async def test_a_start_ends_with_the_last_call_that_does_something() -> None:
    class House:
        async def run_pod_sandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
            with step("cni add"):
                return cri.RunPodSandboxResponse(pod_sandbox_id="p")

        async def list_containers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
            with step("look"):
                return cri.ListContainersResponse()

        async def start_container(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
            return cri.StartContainerResponse()

    async def work(runtime: Cri) -> None:
        await runtime.run_pod_sandbox(cri.RunPodSandboxRequest())
        await runtime.list_containers(cri.ListContainersRequest())
        with step("start"):
            await runtime.start_container(cri.StartContainerRequest(container_id="c"))
        beside = asyncio.ensure_future(runtime.list_containers(cri.ListContainersRequest()))
        await runtime.list_containers(cri.ListContainersRequest())
        await beside
        with step("status file"):
            pass

    recording = Recording("pod web")
    await recording.record(cast(Cri, House()), work)
    names = [span.name for span in recording.spans.values()]
    assert names == [
        "pod web", "RunPodSandbox", "cni add", "ListContainers", "look", "start", "StartContainer",
    ]  # fmt: skip
    whole, *_, last = recording.spans.values()
    assert whole.end == last.end
    root = tree(recording.spans)
    assert all(node.end <= root.end for node in root.below())
    assert sum(node.share for node in root.below()) == root.took


def test_otlp_json_is_what_collectors_take(calm_server: FakeServer, pod: Path) -> None:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    trace_id, above = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    environment = os.environ | {"TRACEPARENT": f"00-{trace_id}-{above}-01"}
    written = json.loads(trace(calm_server, "-o", "otlp-json", pod, env=environment).stdout)
    spans = written["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ids = {span["spanId"] for span in spans}
    assert {span["traceId"] for span in spans} == {trace_id}
    assert [span["name"] for span in spans if span["parentSpanId"] == above] == ["pod web"]
    assert {span["parentSpanId"] for span in spans} - ids == {above}
    assert all(int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) for span in spans)
    # OTLP's JSON is protobuf's, but for ids, which are hexadecimal.
    for span in spans:
        for key in ("traceId", "spanId", "parentSpanId"):
            span[key] = ""
    assert json_format.ParseDict(written, ExportTraceServiceRequest()).resource_spans


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "--repeat", "2"], "--keep"),
        (["--endpoint", "/nowhere/s"], "no server at /nowhere/s"),
    ],
)
def test_what_does_not_go_is_said(
    calm_server: FakeServer, pod: Path, arguments: list[str], words: str
) -> None:
    done = trace(calm_server, *arguments, pod)
    assert done.returncode == 1 and words in done.stderr and done.stdout == ""


def test_several_pods_are_refused(calm_server: FakeServer, pod: Path) -> None:
    pod.write_text(f"{POD}\n---\n{POD.replace('web', 'other')}")
    done = trace(calm_server, pod)
    assert done.returncode == 1 and "has 2 Pods" in done.stderr


def test_interrupted_it_shows_where_the_start_hangs(fake_server: FakeServer, pod: Path) -> None:
    apply(fake_server, faults=[{"on": "create_sandbox.network", "latency": "1h"}])
    process = subprocess.Popen(
        command(fake_server, "trace", str(pod)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + PATIENCE
        while "cni add" not in _in_flight(fake_server):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        # At once, although the pod cannot be removed before its creation has ended.
        output = ""
        while not re.search(r"cni add +[\d.]+ .s +> [\d.]+ ", output):
            line = process.stdout.readline()
            assert line, output
            output += line
        assert re.search(r"RunPodSandbox web +[\d.]+ .s +> ", output)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_an_interrupt_while_it_prints_comes_afterwards() -> None:
    printed = False
    with pytest.raises(KeyboardInterrupt), _one_interrupt_at_a_time():
        signal.raise_signal(signal.SIGINT)
        printed = True
    assert printed


def _in_flight(server: FakeServer) -> str:
    done = subprocess.run(command(server, "ps", "--operations"), capture_output=True, text=True)
    return done.stdout


class _Foreign:
    """Another CRI's server: it has no service of podwright's."""

    def __init__(self, runtime: Cri) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Cri, name):
            raise AttributeError(name)
        return getattr(self._runtime, name)


async def test_another_cris_server_has_calls_only(tmp_path: Path, pod: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        address = f"{directory}/s"
        async with FakeNode(clock="system") as node:
            gate = Gate()
            gate.open(cast(Cri, _Foreign(node.cri)))
            places = ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]
            argv = [*PROGRAM, *places, "trace", "--endpoint", address, str(pod)]
            async with listening(address, gate):
                done = await asyncio.to_thread(
                    subprocess.run, argv, capture_output=True, text=True, timeout=PATIENCE
                )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^│ [├└] RunPodSandbox web ", done.stdout, re.M) and "namespaces" not in done.stdout
    assert "this server tells no steps inside its calls" in done.stdout


# On a real terminal


@pytest.fixture
def screen() -> Iterator[Any]:
    if shutil.which("tmux") is None:
        pytest.skip("no tmux")
    name = f"podwright-{os.getpid()}-{time.monotonic_ns()}"
    tmux = ["tmux", "-L", name, "-f", "/dev/null"]

    def show(argv: list[str], width: int) -> str:
        shell = f"{shlex.join(argv)}; echo status=$?; sleep 1000"
        start = [*tmux, "new-session", "-d", "-x", str(width), "-y", "60", shell]
        # pytest loads readline, which tells children the size of another terminal behind Python's back.
        environment = {key: each for key, each in os.environ.items() if key not in ("COLUMNS", "LINES")}
        subprocess.run(start, check=True, timeout=PATIENCE, env=environment)
        deadline = time.monotonic() + PATIENCE
        while True:
            capture = [*tmux, "capture-pane", "-p", "-e"]
            text = subprocess.run(capture, capture_output=True, text=True, timeout=PATIENCE).stdout
            if re.search(r"^status=\d+$", text, re.M):
                return text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)

    yield show
    subprocess.run([*tmux, "kill-server"], capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize("width", [60, 100, 160])
def test_on_a_terminal_it_fits_and_has_colours(
    calm_server: FakeServer, screen: Any, pod: Path, width: int
) -> None:
    text = screen(command(calm_server, "trace", str(pod)), width)
    assert "status=0" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    rows = [line for line in plain.splitlines() if re.match(r"(pod web|[├└│])", line)]
    assert len(rows) > 8 and max(map(len, rows)) <= width
    # Nothing was folded: each row has the time it took.
    assert all(re.search(r"\d (µs|ms|s)\b", row) for row in rows)
    assert re.search(r"\x1b\[(\d+;)*33m[^\x1b]*[█━]", text), "the critical path has its colour"
    assert any("█" in row or "━" in row for row in rows)


def test_no_color_is_obeyed(calm_server: FakeServer, screen: Any, pod: Path) -> None:
    argv = ["env", "NO_COLOR=1", *command(calm_server, "trace", str(pod))]
    assert "\x1b[33m" not in screen(argv, 100)
