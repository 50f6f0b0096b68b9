"""`python -m bench`: measure, print the table, write build/bench.json.

All sides run in one private mount namespace in which the empty cgroup2 of a hybrid host is out of sight,
so that crun works for each of them alike. The part "fake" has sides of its own and needs no root.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import engines, fake, logs, measure, pull, report, spec, stats, streams
from bench.daemons import Containerd, Daemon, Podwright
from bench.floor import Floor
from bench.stage import Stage, open_stage

PARTS = ("life", "clients", "crowd", "stats", "streams", "logs", "pull", "spec", "fake", *engines.PARTS)
ROOTLESS = ("spec", "fake")
SIDES = ("podwright", "containerd", "floor")
CLONE_NEWNS, MS_PRIVATE = 0x00020000, 1 << 18


def main() -> int:
    options = _options()
    real = [part for part in options.only if part not in ROOTLESS]
    if real and os.geteuid() != 0:
        print(
            "bench: needs root: it makes namespaces, mounts and bridges; `--only spec fake` does not",
            file=sys.stderr,
        )
        return 1
    # Being ended is like Ctrl-C: everything is taken down first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = report.Rows()
    if real:
        _hide_empty_cgroup2()
    if set(real) - {"pull", *engines.PARTS}:
        _measure_real_pods(options, rows)
    if "pull" in real:
        _measure_pulls(options, rows)
    if "spec" in options.only:
        spec.spec_build(rows)
    if "fake" in options.only:
        fake.measure(fake.QUICK if options.quick else fake.FULL, rows)
    for part in engines.PARTS:
        if part in real:
            engines.measure_part(part, options.sides, engines.QUICK if options.quick else engines.FULL, rows)
    print(rows.table())
    rows.write(options.output)
    return 0


def _measure_real_pods(options: argparse.Namespace, rows: report.Rows) -> None:
    with ExitStack() as stack:
        stage = stack.enter_context(open_stage())
        sides = _start(options.sides, stage, stack)
        plan = measure.QUICK if options.quick else measure.FULL
        daemons = [side for side in sides if isinstance(side, Daemon)]
        if "life" in options.only:
            measure.life(sides, plan, rows)
        if "clients" in options.only:
            measure.clients(sides, plan, rows)
        if "crowd" in options.only:
            # Hundreds of masquerade rules would slow every start down threefold, for all sides.
            stage.write_network(masquerade=False)
            measure.crowd(daemons, plan, rows)
        if "stats" in options.only:
            stage.write_network(masquerade=False)
            stats.polls(daemons, stats.QUICK if options.quick else stats.FULL, rows)
        if "streams" in options.only:
            streams.streams(sides, streams.QUICK if options.quick else streams.FULL, rows)
        if "logs" in options.only:
            logs.logs(daemons, logs.QUICK if options.quick else logs.FULL, rows)


def _measure_pulls(options: argparse.Namespace, rows: report.Rows) -> None:
    with ExitStack() as stack:
        stage = stack.enter_context(open_stage(own_disk=True))
        sides = _start([name for name in options.sides if name != Floor.name], stage, stack)
        daemons = [side for side in sides if isinstance(side, Daemon)]
        rounds = pull.QUICK if options.quick else pull.FULL
        floor = pull.Floor(stage) if Floor.name in options.sides else None
        pull.pulls(daemons, floor, stage, rounds, rows)


def _start(names: Sequence[str], stage: Stage, stack: ExitStack) -> list[measure.Side]:
    sides: list[measure.Side] = []
    for kind in (Podwright, Containerd, Floor):
        if kind.name in names:
            side = kind(stage)
            stack.callback(side.close)
            sides.append(side)
    return sides


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: figures to look at, not to quote")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    return parser.parse_args()


def _hide_empty_cgroup2() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare of the mount namespace failed")
    libc.mount(b"none", b"/", None, MS_PRIVATE | 1 << 14, None)
    if os.path.ismount("/sys/fs/cgroup/unified"):
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)


if __name__ == "__main__":
    sys.exit(main())
