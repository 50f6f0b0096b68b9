"""Whether spans are sent, where to, and that a collector which is dead or slow harms nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from podwright import tracing
from podwright.config import Config, TracingConfig, load
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.house import open_house
from podwright.steps import Operations, step
from podwright.testing import FakeNode
from podwright.tracing.exporting import FLUSH, exported, target, wanted
from podwright.wire import cri_pb2 as cri
from tests.images.scripted import Authority, make_authority
from tests.tracing.collector import PATIENCE, Collector, collecting

HERE = TracingConfig(enabled=True)


def call(operations: Operations, times: int = 1) -> None:
    for _ in range(times):
        with operations.open("Version"), step("inner"):
            pass


@pytest.fixture
def dead() -> Iterator[str]:
    """An endpoint where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


# Whether and where to

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}


@pytest.mark.parametrize(
    ("enabled", "environment", "answer"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, ENDPOINT, True),
        (False, TRACES, True),
        (False, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (True, {"OTEL_SDK_DISABLED": "true"}, False),
        (False, ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (False, ENDPOINT | {"OTEL_SDK_DISABLED": "0"}, True),
        (True, {"OTEL_TRACES_EXPORTER": "none"}, False),
        (False, ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (False, ENDPOINT | {"OTEL_TRACES_EXPORTER": "zipkin"}, False),
        (False, ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (False, ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
        (False, ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, False),
        (True, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_configuration_and_environment_ask_and_forbid(
    enabled: bool, environment: dict[str, str], answer: bool
) -> None:
    assert wanted(TracingConfig(enabled=enabled), environment) is answer


@pytest.mark.parametrize(
    ("endpoint", "environment", "url"),
    [
        ("", {}, "http://127.0.0.1:4317"),
        ("", ENDPOINT, None),
        ("collector:4317", ENDPOINT, "http://collector:4317"),
        ("http://collector:1", {}, "http://collector:1"),
        ("https://collector:1", {}, "https://collector:1"),
    ],
)
def test_the_collectors_url(endpoint: str, environment: dict[str, str], url: str | None) -> None:
    assert target(TracingConfig(endpoint=endpoint), environment) == url


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoint": "ftp://collector:1"}, "tracing.endpoint: 'ftp://collector:1'"),
        ({"endpoint": "c:1", "tls_ca": "/x"}, "tracing.endpoint"),
        ({"endpoint": "https://c:1", "tls_cert": "/x"}, "tls_cert and tls_key go together"),
        ({"endpoint": "https://c:1", "tls_ca": "/nowhere.pem"}, "tracing.tls_ca: /nowhere.pem"),
        ({"sampling_rate_per_million": 1_000_001}, "tracing.sampling_rate_per_million"),
        ({"sampling_rate_per_million": -1}, "tracing.sampling_rate_per_million"),
    ],
)
async def test_what_cannot_be_used_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        async with exported(Operations(), TracingConfig(enabled=True, **settings)):
            pass


def test_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[tracing]\nenabled = true\nendpoint = "c:1"\nsampling_rate_per_million = 1000\n')
    assert load(file).tracing == TracingConfig(enabled=True, endpoint="c:1", sampling_rate_per_million=1000)
    assert Config().tracing == TracingConfig()


# The optional packages


def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "podwright.tracing.batches", raising=False)
    monkeypatch.delattr(tracing, "batches", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)


async def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without_packages(monkeypatch)
    with pytest.raises(FailedPrecondition, match=r"pip install 'podwright\[tracing\]'"):
        async with exported(Operations(), HERE):
            pass


async def test_an_environment_meant_for_others_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_packages(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    operations = Operations()
    async with exported(operations, TracingConfig()):
        assert operations.watchers == ()
    assert "no spans are sent" in caplog.text and "podwright[tracing]" in caplog.text


def test_nothing_is_loaded_where_no_tracing_is_configured(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from podwright.config import Config
from podwright.house import open_house
async def main():
    async with open_house(Config(root=sys.argv[1], run=sys.argv[2], engine="fake")):
        print([name for name in sys.modules if name.startswith("opentelemetry")])
asyncio.run(main())
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "root"), str(tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


# A house


async def test_a_house_sends_spans_from_recovery_to_its_end(tmp_path: Path, collector: Collector) -> None:
    config = Config(
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        engine="fake",
        tracing=TracingConfig(enabled=True, endpoint=collector.endpoint),
    )
    async with open_house(config) as runtime:
        await runtime.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image="app:1")))
    assert collector.one("Recovery").kind == 1
    assert "rpc.system" not in collector.one("Recovery").attributes
    assert collector.one("runtime.v1.ImageService/PullImage").kind == 2


async def test_a_fake_node_sends_spans_of_each_of_its_lives(tmp_path: Path, collector: Collector) -> None:
    config = Config(
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        engine="fake",
        tracing=TracingConfig(enabled=True, endpoint=collector.endpoint),
    )
    async with FakeNode(config=config) as node:
        await node.cri.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image="app:1")))
        await node.crash()
    assert [span.name for span in collector.spans].count("Recovery") == 2
    assert collector.one("runtime.v1.ImageService/PullImage").kind == 2


async def test_the_environment_alone(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://{collector.endpoint}")
    operations = Operations()
    async with exported(operations, TracingConfig()):
        call(operations)
    assert collector.one("inner").parent_id == collector.call("Version").id


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "authority")


async def test_tls_with_certificates_of_both_ends(authority: Authority) -> None:
    pem = {name: path.read_bytes() for name, path in vars(authority).items()}
    credentials = grpc.ssl_server_credentials(
        [(pem["key"], pem["certificate"])], root_certificates=pem["ca"], require_client_auth=True
    )
    async with collecting(credentials) as collector:
        config = TracingConfig(
            enabled=True,
            endpoint=f"https://{collector.endpoint}",
            tls_ca=str(authority.ca),
            tls_cert=str(authority.certificate),
            tls_key=str(authority.key),
        )
        operations = Operations()
        async with exported(operations, config):
            call(operations)
        assert collector.call("Version").kind == 2


# A collector that is dead or slow


async def test_a_dead_collector_harms_nothing(
    dead: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    operations = Operations()
    with caplog.at_level(logging.DEBUG):
        async with exported(operations, TracingConfig(enabled=True, endpoint=dead)):
            began = time.monotonic()
            call(operations, 5000)
            took = time.monotonic() - began
            ending = time.monotonic()
        ended = time.monotonic() - ending
    # 10,000 spans for a queue of 100: had each waited for the collector, it would have been minutes.
    assert took < PATIENCE
    assert ended < FLUSH + PATIENCE / 3
    lines = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert 1 <= len(lines) <= 4, [record.getMessage() for record in lines]


async def test_a_slow_collector_holds_nobody_up(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    collector.answering.clear()
    operations = Operations()
    async with exported(operations, TracingConfig(enabled=True, endpoint=collector.endpoint)):
        call(operations)
        await asyncio.wait_for(collector.asked.wait(), PATIENCE)
        # An export hangs now.
        began = time.monotonic()
        call(operations, 1000)
        assert time.monotonic() - began < PATIENCE / 3
        ending = time.monotonic()
    assert FLUSH / 2 < time.monotonic() - ending < FLUSH + PATIENCE / 3
    assert collector.spans == []
    call(operations)  # what goes on after the end is told to nobody


async def test_spans_are_sent_before_the_end(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    operations = Operations()
    async with exported(operations, TracingConfig(enabled=True, endpoint=collector.endpoint)):
        call(operations)
        await asyncio.wait_for(collector.asked.wait(), PATIENCE)
