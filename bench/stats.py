"""Statistics of a node full of pods, polled as a kubelet polls: the rows `list_container_stats_N`,
`list_pod_sandbox_stats_N`, what both together cost the daemon in CPU time, and by how much it grows.

Each pod has a cgroup parent of its own, as a kubelet gives it. Between two calls there is a pause: daemons
that answer from figures taken in the background are asked when those are old, too.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.daemons import Daemon, cpu_seconds, rss
from bench.report import Rows
from podwright.wire import cri_pb2 as cri

FULL, QUICK = (200, 40), (20, 8)
"""Pods, and timed calls of each list."""
PAUSE = 0.25
SETTLE = 3.0
MIB = 1 << 20


def polls(daemons: Sequence[Daemon], plan: tuple[int, int], rows: Rows) -> None:
    """Bring `plan`'s pods up at each daemon, poll them in turns, take them down."""
    size, calls = plan
    for daemon in daemons:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number, daemon=daemon: _up(daemon, f"stats-{number}"), range(size)))
    time.sleep(SETTLE)
    before = {daemon.name: _memory(daemon) for daemon in daemons}
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    spent: dict[str, float] = defaultdict(float)
    for number in range(calls + 2):
        for daemon in daemons:
            began = _cpu(daemon)
            took = {f"list_container_stats_{size}": _containers(daemon, size)}
            time.sleep(PAUSE)
            took[f"list_pod_sandbox_stats_{size}"] = _pods(daemon, size)
            time.sleep(PAUSE)
            used = _cpu(daemon) - began
            if daemon.name == "podwright":
                # Debian's containerd has no metrics.
                took[f"list_pod_sandbox_metrics_{size}"] = _metrics(daemon, size)
            if number >= 2:
                spent[daemon.name] += used
                for row, seconds in took.items():
                    times[row, daemon.name].append(seconds)
    for (row, name), values in times.items():
        rows.add(row, "ms", name, statistics.median(values) * 1000)
    for daemon in daemons:
        rows.add(f"stats_cpu_per_poll_{size}", "ms", daemon.name, spent[daemon.name] / calls * 1000)
        grown = _memory(daemon) - before[daemon.name]
        rows.add(f"stats_memory_growth_{size}", "MiB", daemon.name, grown / MIB)


def _up(daemon: Daemon, name: str) -> None:
    sandbox = daemon.run_sandbox(name, parent=f"/{daemon.stage.bridge}/{daemon.name}-{name}")
    daemon.start(daemon.create(sandbox, name))


def _cpu(daemon: Daemon) -> float:
    return sum(map(cpu_seconds, daemon.servers()))


def _memory(daemon: Daemon) -> int:
    return sum(map(rss, daemon.servers()))


def _containers(daemon: Daemon, size: int) -> float:
    began = time.perf_counter()
    stats = daemon.runtime.ListContainerStats(cri.ListContainerStatsRequest()).stats
    took = time.perf_counter() - began
    whole = [
        each for each in stats if each.cpu.usage_core_nano_seconds.value and each.memory.usage_bytes.value
    ]
    if len(whole) < size:
        raise RuntimeError(f"{daemon.name} has figures of {len(whole)} of {size} containers")
    return took


def _pods(daemon: Daemon, size: int) -> float:
    began = time.perf_counter()
    stats = daemon.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest()).stats
    took = time.perf_counter() - began
    whole = [each for each in stats if each.linux.network.default_interface.name and each.linux.containers]
    if len(whole) < size:
        raise RuntimeError(f"{daemon.name} has figures of {len(whole)} of {size} pods")
    return took


def _metrics(daemon: Daemon, size: int) -> float:
    began = time.perf_counter()
    pods = daemon.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics
    took = time.perf_counter() - began
    whole = [each for each in pods if len(each.metrics) == 8 and each.container_metrics]
    if len(whole) < size:
        raise RuntimeError(f"{daemon.name} has metrics of {len(whole)} of {size} pods")
    return took
