"""Exec and port-forward through the URLs of a streaming server: the rows `exec_stdout`, `exec_stdin`,
`port_forward` (the pod sends), `port_forward_in` (it receives), each with `..._cpu` and `..._memory`,
`exec_url_latency` and `exec_sessions_100`.

Both daemons have the same client: podwright's own, over SPDY, which containerd speaks; rows that end in
`_websocket` are podwright over WebSocket. A session is timed whole, from the call for its URL to its end.
Clients and daemons share the machine, so that a slow client holds up both; what a daemon itself spends is
`..._cpu`, CPU time for a gigabyte. `..._memory` is what its process had at most above what it had after a
first short session, while twice as much is carried.

The floor has the same programs at the other end: of a bare pipe, of a connection within one network
namespace; for the latency it is `crun exec`.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import uvloop

from bench.carriers import Carrier, Remote, bare, remotes
from bench.daemons import Daemon, peak, reset_peak, rss
from bench.floor import Floor
from bench.measure import Side
from bench.report import Rows

MB = 1_000_000
MIB = 1 << 20
SESSIONS = 100
WAYS = ("exec_stdout", "exec_stdin", "port_forward", "port_forward_in")
"""Rows of throughput, and the methods of a carrier."""


@dataclass(frozen=True)
class Plan:
    size: int
    """Bytes of a timed session."""
    rounds: int
    warm_up: int
    execs: int
    crowds: int
    memory_size: int


FULL = Plan(1 << 30, 5, 1, 40, 5, 2 << 30)
QUICK = Plan(1 << 28, 3, 1, 10, 1, 1 << 29)


def streams(sides: Sequence[Side], plan: Plan, rows: Rows) -> None:
    """A pod at each side, in which all sessions are; they take turns."""
    uvloop.run(_measure(sides, plan, rows))


async def _measure(sides: Sequence[Side], plan: Plan, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        served: list[Remote] = []
        floors: list[Carrier] = []
        for side in sides:
            if isinstance(side, Daemon):
                served += await stack.enter_async_context(remotes(side))
            elif isinstance(side, Floor):
                floors.append(await stack.enter_async_context(bare(side)))
        carriers: list[Carrier] = [*served, *floors]
        await _memory(served, plan, rows)
        for way in WAYS:
            await _throughput(way, carriers, plan, rows)
        await _latency(carriers, plan, rows)
        await _sessions(served, plan, rows)


async def _memory(served: Sequence[Remote], plan: Plan, rows: Rows) -> None:
    for remote in served:
        await remote.exec_true()
    idle = {remote.pid: rss(remote.pid) for remote in served}
    for way in WAYS:
        for remote in served:
            reset_peak(remote.pid)
            await getattr(remote, way)(plan.memory_size)
            rows.add(
                f"{way}{remote.suffix}_memory",
                "MiB",
                remote.name,
                (peak(remote.pid) - idle[remote.pid]) / MIB,
            )


async def _throughput(way: str, carriers: Sequence[Carrier], plan: Plan, rows: Rows) -> None:
    rates: dict[Carrier, list[float]] = defaultdict(list)
    spent: dict[Remote, list[float]] = defaultdict(list)
    for number in range(plan.warm_up + plan.rounds):
        for carrier in carriers:
            used = carrier.cpu() if isinstance(carrier, Remote) else 0.0
            took = await _timed(partial(getattr(carrier, way), plan.size))
            if number >= plan.warm_up:
                rates[carrier].append(plan.size / MB / took)
                if isinstance(carrier, Remote):
                    spent[carrier].append((carrier.cpu() - used) / (plan.size / MB / 1000))
    for carrier, values in rates.items():
        rows.add(f"{way}{carrier.suffix}", "MB/s", carrier.name, statistics.median(values))
        print(f"{way}{carrier.suffix}", carrier.name, [round(value) for value in sorted(values)], flush=True)
    for remote, values in spent.items():
        rows.add(f"{way}{remote.suffix}_cpu", "s/GB", remote.name, statistics.median(values))


async def _latency(carriers: Sequence[Carrier], plan: Plan, rows: Rows) -> None:
    times: dict[Carrier, list[float]] = defaultdict(list)
    for number in range(3 + plan.execs):
        for carrier in carriers:
            took = await _timed(carrier.exec_true)
            if number >= 3:
                times[carrier].append(took * 1000)
    for carrier, values in times.items():
        rows.add(f"exec_url_latency{carrier.suffix}", "ms", carrier.name, statistics.median(values))


async def _sessions(served: Sequence[Remote], plan: Plan, rows: Rows) -> None:
    times: dict[Remote, list[float]] = defaultdict(list)
    for _ in range(plan.crowds):
        for remote in served:
            times[remote].append(await _timed(partial(remote.together, SESSIONS)))
    for remote, values in times.items():
        rows.add(f"exec_sessions_{SESSIONS}{remote.suffix}", "s", remote.name, statistics.median(values))


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began
