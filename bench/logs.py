"""How fast a container can write its log: the row `log_mb_s`, megabytes of output a second from its start to
its end, every line in the log. `..._limited` is podwright with a limit that is never reached, so that its own
writer writes; `log_writer_memory` is what that process has.

The program writes lines of 100 bytes, far faster alone than any log is written.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.daemons import Daemon, pss
from bench.report import Rows
from podwright.engines.log_limits import ANNOTATION
from podwright.wire import cri_pb2 as cri

LINE = 100
MB, MIB = 1_000_000, 1 << 20
FULL, QUICK = (200 * MIB, 5), (50 * MIB, 2)
"""Bytes of output, and containers of each kind; one more comes first that does not count."""
PATIENCE = 300.0


def logs(
    daemons: Sequence[Daemon],
    plan: tuple[int, int],
    rows: Rows,
    *,
    limited: bool = True,
    floor: Callable[[Sequence[str]], float] | None = None,
) -> None:
    """One container after the other, in turns. `floor` runs a command in a container without a CRI server;
    its seconds."""
    size, rounds = plan
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    memory: list[float] = []
    sandboxes = {daemon: daemon.run_sandbox("logs") for daemon in daemons}
    for number in range(rounds + 1):
        for daemon in daemons:
            for row, limits in (("log_mb_s", ""), ("log_mb_s_limited", "max_size=1Ti")):
                if limits and (daemon.name != "podwright" or not limited):
                    continue
                took = _write(daemon, sandboxes[daemon], size // LINE, limits, memory)
                if number:
                    rates[row, daemon.name].append(size / MB / took)
        if floor is not None:
            took = floor(_program(size // LINE))
            if number:
                rates["log_mb_s", "floor"].append(size / MB / took)
    for (row, name), values in rates.items():
        rows.add(row, "MB/s", name, statistics.median(values))
        print(row, name, [round(each) for each in sorted(values)], flush=True)
    if memory:
        rows.add("log_writer_memory", "MiB", "podwright", statistics.median(memory) / MIB)


def _write(daemon: Daemon, sandbox: str, lines: int, limits: str, memory: list[float]) -> float:
    """Seconds that a container takes to write so many lines. RuntimeError when one is missing."""
    annotations = {ANNOTATION: limits} if limits else {}
    container = daemon.create(sandbox, "logs", _program(lines), annotations)
    request = cri.ContainerStatusRequest(container_id=container)
    log = Path(daemon.runtime.ContainerStatus(request).status.log_path)
    began = time.perf_counter()
    daemon.start(container)
    while daemon.runtime.ContainerStatus(request).status.state != cri.CONTAINER_EXITED:
        if time.perf_counter() - began > PATIENCE:
            raise RuntimeError(f"{daemon.name}: {lines} lines were not written within {PATIENCE:g} s")
        time.sleep(0.005)
    took = time.perf_counter() - began
    if limits:
        memory += [pss(pid) for pid in _writers(daemon)]
    with log.open("rb") as file:
        # conmon ends a record with what it has read at once: some lines have two.
        found = sum(b" F " in record[:64] for record in file)
    if found != lines:
        raise RuntimeError(f"{daemon.name}: of {lines} lines {found} are in the log")
    daemon.remove(container)
    log.unlink()
    return took


def _program(lines: int) -> list[str]:
    return ["sh", "-c", f"yes {'x' * (LINE - 1)} | head -n {lines}"]


def _writers(daemon: Daemon) -> list[int]:
    """podwright's log writer: it lingers for some seconds after its last log."""
    return [
        pid
        for pid in daemon.helpers()
        if b"podwright.logs.writer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
