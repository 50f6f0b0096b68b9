"""What is measured: one pod's life, many clients at once, and a crowd of pods.

Sides take turns within every round, so that whatever disturbs the machine disturbs all of them.
Times are medians in milliseconds.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from bench.daemons import Daemon, pss, rss
from bench.report import Rows
from podwright.wire import cri_pb2 as cri

SETTLE = 3.0
"""Seconds of rest after pods were started: what is measured then is a node that runs them."""

T = TypeVar("T")
MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    warm_up: int
    rounds: int
    """Pods a side in the measurement of one pod's life."""
    execs: int
    """ExecSync calls a pod."""
    clients: tuple[int, ...]
    client_rounds: int
    pods_a_client: int
    crowds: tuple[int, ...]
    calls: int
    """Calls a side of each list and status, at each size of the crowd."""


FULL = Plan(3, 30, 5, (1, 4, 16), 4, 4, (1, 50, 200), 300)
QUICK = Plan(1, 6, 3, (1, 4), 2, 3, (1, 50), 20)


class Side(Protocol):
    name: str

    def run_sandbox(self, name: str) -> str: ...
    def create(self, sandbox: str, name: str) -> str: ...
    def start(self, container: str) -> None: ...
    def exec(self, container: str) -> None: ...
    def stop(self, container: str) -> None: ...
    def stop_sandbox(self, sandbox: str) -> None: ...
    def remove(self, container: str) -> None: ...
    def remove_sandbox(self, sandbox: str) -> None: ...
    def close(self) -> None: ...


_numbers = itertools.count(1)


def life(sides: Sequence[Side], plan: Plan, rows: Rows) -> None:
    """Every call of a pod's life, one client, one pod at a time."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for round in range(plan.warm_up + plan.rounds):
        for side in sides:
            lap = _one_life(side, plan.execs)
            if round >= plan.warm_up:
                for step, values in lap.items():
                    times[step, side.name] += values
    for (step, name), values in times.items():
        rows.add(step, "ms", name, statistics.median(values) * 1000)


def clients(sides: Sequence[Side], plan: Plan, rows: Rows) -> None:
    """Pods a second with several clients at once, up and down, and the times each client sees."""
    for count in plan.clients:
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        rates: dict[tuple[str, str], list[float]] = defaultdict(list)
        ending = f"{count}_client" + ("s" if count > 1 else "")
        for round in range(1 + plan.client_rounds):
            for side in sides:
                lap, rate = _together(side, count, plan)
                if round > 0:
                    for key, values in lap.items():
                        times[f"{key}_{ending}", side.name] += values
                    for key, value in rate.items():
                        rates[f"{key}_{ending}", side.name].append(value)
        for (key, name), values in rates.items():
            rows.add(key, "1/s", name, statistics.median(values))
        for (key, name), values in times.items():
            rows.add(key, "ms", name, statistics.median(values) * 1000)


def crowd(daemons: Sequence[Daemon], plan: Plan, rows: Rows) -> None:
    """Lists, statuses and memory while a growing number of pods runs."""
    pods: dict[str, list[tuple[str, str]]] = {daemon.name: [] for daemon in daemons}
    for daemon in daemons:
        rows.add("daemon_memory_0", "MiB", daemon.name, sum(map(rss, daemon.servers())) / MIB)
    for size in plan.crowds:
        for daemon in daemons:
            _grow(daemon, pods[daemon.name], size)
        time.sleep(SETTLE)
        _lists(daemons, pods, size, plan.calls, rows)
        for daemon in daemons:
            helpers = daemon.helpers()
            servers = daemon.servers()
            rows.add(f"daemon_memory_{size}", "MiB", daemon.name, sum(map(rss, servers)) / MIB)
            rows.add(f"daemon_pss_{size}", "MiB", daemon.name, sum(map(pss, servers)) / MIB)
            if len(servers) > 1:
                rows.add(f"own_memory_{size}", "MiB", daemon.name, rss(daemon.process.pid) / MIB)
            each = sum(pss(pid) for pid in helpers) / size
            rows.add(f"helper_memory_per_pod_{size}", "MiB", daemon.name, each / MIB)
            rows.add(f"helper_processes_per_pod_{size}", "", daemon.name, len(helpers) / size)
            if size == plan.crowds[-1]:
                rows.add("helper_memory_per_pod", "MiB", daemon.name, each / MIB)
    for daemon in daemons:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda pod, daemon=daemon: _end(daemon, pod), pods[daemon.name]))


def _one_life(side: Side, execs: int) -> dict[str, list[float]]:
    name = f"bench-{next(_numbers)}"
    clock = _Clock()
    sandbox = clock.time("run_pod_sandbox", lambda: side.run_sandbox(name))
    container = clock.time("create_container", lambda: side.create(sandbox, name))
    clock.time("start_container", lambda: side.start(container))
    clock.total("pod_to_running")
    for _ in range(execs):
        clock.time("exec_sync", lambda: side.exec(container))
    clock.total("")
    clock.time("stop_container", lambda: side.stop(container))
    clock.time("stop_pod_sandbox", lambda: side.stop_sandbox(sandbox))
    clock.time("remove_container", lambda: side.remove(container))
    clock.time("remove_pod_sandbox", lambda: side.remove_sandbox(sandbox))
    clock.total("teardown")
    return clock.laps


class _Clock:
    """Times steps, and their sum since the last total."""

    def __init__(self) -> None:
        self.laps: dict[str, list[float]] = defaultdict(list)
        self._sum = 0.0

    def time(self, step: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = call()
        took = time.perf_counter() - began
        self.laps[step].append(took)
        self._sum += took
        return result

    def total(self, name: str) -> None:
        if name:
            self.laps[name].append(self._sum)
        self._sum = 0.0


def _together(side: Side, count: int, plan: Plan) -> tuple[dict[str, list[float]], dict[str, float]]:
    """`count` clients bring up their pods, exec in them and take them down, phase by phase."""
    times: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, float] = {}
    pods: list[tuple[str, str]] = []
    guard = threading.Lock()

    def up() -> None:
        name = f"bench-{next(_numbers)}"
        began = time.perf_counter()
        sandbox = side.run_sandbox(name)
        container = side.create(sandbox, name)
        side.start(container)
        with guard:
            times["pod_to_running"].append(time.perf_counter() - began)
            pods.append((sandbox, container))

    def command(pod: tuple[str, str]) -> None:
        began = time.perf_counter()
        side.exec(pod[1])
        with guard:
            times["exec_sync"].append(time.perf_counter() - began)

    def down(pod: tuple[str, str]) -> None:
        began = time.perf_counter()
        _end(side, pod)
        with guard:
            times["teardown"].append(time.perf_counter() - began)

    total = count * max(2, plan.pods_a_client if count < 16 else plan.pods_a_client // 2)
    with ThreadPoolExecutor(count) as pool:
        rates["pods_per_second"] = _rate(total, lambda: list(pool.map(lambda _: up(), range(total))))
        rates["execs_per_second"] = _rate(total, lambda: list(pool.map(command, list(pods))))
        rates["teardowns_per_second"] = _rate(total, lambda: list(pool.map(down, list(pods))))
    return times, rates


def _rate(number: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return number / (time.perf_counter() - began)


def _grow(daemon: Daemon, pods: list[tuple[str, str]], size: int) -> None:
    def one(_: int) -> tuple[str, str]:
        name = f"crowd-{next(_numbers)}"
        sandbox = daemon.run_sandbox(name)
        container = daemon.create(sandbox, name)
        daemon.start(container)
        return sandbox, container

    with ThreadPoolExecutor(4) as pool:
        pods += pool.map(one, range(size - len(pods)))


def _lists(
    daemons: Sequence[Daemon], pods: dict[str, list[tuple[str, str]]], size: int, calls: int, rows: Rows
) -> None:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(calls + 5):
        for daemon in daemons:
            sandbox, container = pods[daemon.name][number % size]
            status = cri.ContainerStatusRequest(container_id=container)
            pod_status = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
            rpcs: tuple[tuple[str, Callable[..., Any], Any], ...] = (
                ("list_containers", daemon.runtime.ListContainers, cri.ListContainersRequest()),
                ("list_pod_sandbox", daemon.runtime.ListPodSandbox, cri.ListPodSandboxRequest()),
                ("container_status", daemon.runtime.ContainerStatus, status),
                ("pod_sandbox_status", daemon.runtime.PodSandboxStatus, pod_status),
            )
            clock = _Clock()
            for step, call, request in rpcs:
                answer = clock.time(step, partial(call, request))
                if step == "list_containers" and len(answer.containers) < size:
                    raise RuntimeError(f"{daemon.name} lists {len(answer.containers)} of {size} containers")
            if number >= 5:
                for step, values in clock.laps.items():
                    times[f"{step}_{size}", daemon.name] += values
    for (step, name), values in times.items():
        rows.add(step, "ms", name, statistics.median(values) * 1000)


def _end(side: Side, pod: tuple[str, str]) -> None:
    sandbox, container = pod
    side.stop(container)
    side.stop_sandbox(sandbox)
    side.remove(container)
    side.remove_sandbox(sandbox)
