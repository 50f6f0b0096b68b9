"""podwright's other engines, each beside what its daemon does without podwright: the parts
`containerd-engine` and `docker-engine`, whose rows are named PART/ROW.

| part | podwright | containerd | floor |
|---|---|---|---|
| containerd-engine | podwright on a containerd | another one of its version, with its CRI plugin | `life`'s |
| docker-engine | podwright on a Docker Engine | - | the same containers by another Docker Engine's API |

The daemons of a part run the same runtime, runc; the floor of the first is crun without a shim. The rows are
those of `life` (a pod's calls one by one), `logs`, `crowd` (idle pods), `stats` and `pull`; fewer rounds.
Memory and CPU time are those of podwright together with its daemon; `own_memory_N` is podwright alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench import logs, measure, pull, stats
from bench.behind import OnContainerd, OnDocker
from bench.daemons import Containerd, Daemon
from bench.docker_floor import DockerFloor
from bench.floor import Floor
from bench.report import Rows
from bench.stage import Stage, open_stage

MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    pods: measure.Plan
    """Its clients are not used."""
    polled: int
    """Pods whose statistics are asked for on containerd, and how often."""
    polled_docker: int
    polls: int
    log: tuple[int, int]
    pulls: int


FULL = Plan(measure.Plan(3, 20, 5, (), 0, 0, (50,), 50), 200, 50, 10, (100 * MIB, 3), 3)
QUICK = Plan(measure.Plan(1, 5, 3, (), 0, 0, (10,), 10), 20, 10, 5, (20 * MIB, 1), 1)

_KINDS = {
    "containerd-engine": (
        (OnContainerd, Containerd, Floor),
        "podwright on a containerd, beside containerd's own CRI plugin and the bare floor",
    ),
    "docker-engine": (
        (OnDocker, DockerFloor),
        "podwright on a Docker Engine; the floor is the same containers by Docker's API",
    ),
}
PARTS = tuple(_KINDS)


def measure_part(part: str, names: Sequence[str], plan: Plan, rows: Rows) -> None:
    """All rows of `part` for the sides that are named."""
    kinds, title = _KINDS[part]
    wanted = [kind for kind in kinds if kind.name in names]
    with rows.under(part, title):
        with ExitStack() as stack:
            stage = stack.enter_context(open_stage())
            _pods(part, _start(wanted, stage, stack), stage, plan, rows)
        with ExitStack() as stack:
            stage = stack.enter_context(open_stage(own_disk=True))
            sides = _start([kind for kind in wanted if kind is not Floor], stage, stack)
            floors: list[pull.Side] = [side for side in sides if isinstance(side, DockerFloor)]
            if Floor in wanted:
                floors.append(pull.Floor(stage))
            daemons = [side for side in sides if isinstance(side, Daemon)]
            floor = floors[0] if floors else None
            pull.pulls(daemons, floor, stage, plan.pulls, rows, small_files=False)


def _pods(part: str, sides: Sequence[measure.Side], stage: Stage, plan: Plan, rows: Rows) -> None:
    daemons = [side for side in sides if isinstance(side, Daemon)]
    floor = next((side for side in sides if isinstance(side, DockerFloor)), None)
    measure.life(sides, plan.pods, rows)
    logs.logs(daemons, plan.log, rows, limited=False, floor=floor.write_log if floor else None)
    # Hundreds of masquerade rules would slow every start down threefold, for all sides.
    stage.write_network(masquerade=False)
    measure.crowd(daemons, plan.pods, rows)
    size = plan.polled_docker if part == "docker-engine" else plan.polled
    stats.polls(daemons, (size, plan.polls), rows)


def _start(
    kinds: Sequence[type[Daemon] | type[Floor] | type[DockerFloor]], stage: Stage, stack: ExitStack
) -> list[measure.Side]:
    sides: list[measure.Side] = []
    for kind in kinds:
        side = kind(stage)
        stack.callback(side.close)
        sides.append(side)
    return sides
