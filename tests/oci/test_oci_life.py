"""The whole life of pods on the oci engine, against the real kernel and the real programs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.oci.bench import POD, Bench

pytestmark = pytest.mark.root


async def test_a_pod_runs_prints_and_ends(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    container = await bench.container(sandbox, "sh", "-c", "echo out; echo err >&2; exit 3")
    end = await bench.exit_of(container)
    assert (end.code, end.oom_killed, end.sandbox) == (3, False, False)
    log = Path(container.log_path).read_text()
    assert " stdout F out\n" in log and " stderr F err\n" in log
    assert Path(container.log_path).stat().st_mode & 0o777 == 0o640
    assert len(sandbox.facts.ips) == 1
    await bench.remove(container)
    await bench.remove_sandbox(sandbox)


async def test_sigterm_then_sigkill(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sleep", "1000")
    await bench.engine.signal_container(container, signal.SIGTERM)
    await bench.engine.signal_container(container, signal.SIGKILL)
    assert (await bench.exit_of(container)).code == 137
