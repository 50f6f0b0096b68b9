"""Which process runs which tests, when several do (`--dist loadfile`): a unit of work is a file, in the
behaviour suite a file on one engine, and a process stays where its servers are as long as there is work.

A server with its registry, its network and its daemon takes seconds to come and to go; it lives in one
process, and there until a test asks for another engine's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

ENGINES = ("oci", "containerd", "docker", "fake")
SECONDS = {
    "behaviour/oci": 0.6,
    "behaviour/containerd": 0.8,
    "behaviour/docker": 1.2,
    "behaviour/fake": 0.1,
    "checkpoints": 3.0,
    "containerd": 0.6,
    "docker": 0.5,
    "matrix": 0.6,
    "oci": 0.6,
}
"""What a test takes, more or less, where it is not next to nothing."""
NEXT_TO_NOTHING = 0.1

_PARTS = re.compile(r"(?P<file>(?:.*/)?tests/(?P<room>[^/:]+).*?)::[^\[]*(?:\[(?P<case>.*)\])?$", re.DOTALL)


def unit(nodeid: str) -> str:
    """The name of the unit of work that a test belongs to: its stage, and its file."""
    found = _PARTS.match(nodeid)
    if found is None:
        return f" {nodeid.partition('::')[0]}"
    room = found["room"]
    engines = [part for part in (found["case"] or "").split("-") if part in ENGINES]
    stage = f"{room}/{engines[0]}" if room == "behaviour" and engines else room
    return f"{stage} {found['file']}"


def stage(name: str) -> str:
    """What the tests of a unit share: a room of tests, or an engine's server."""
    return name.partition(" ")[0]


def choose(units: dict[str, int], own: str | None, others: Iterable[str]) -> str:
    """The next of `units`, each with its number of tests, for a process whose servers are those of the stage
    `own`, while other processes have those of `others`: one of its own stage, else of one that nobody has,
    and what takes longest first, so that all end together."""
    work = {name: count * SECONDS.get(stage(name), NEXT_TO_NOTHING) for name, count in units.items()}
    stages: dict[str, float] = {}
    for name, seconds in work.items():
        stages[stage(name)] = stages.get(stage(name), 0) + seconds
    taken = set(others)
    choice = (
        [name for name in units if stage(name) == own]
        or [name for name in units if stage(name) not in taken]
        or list(units)
    )
    return max(choice, key=lambda name: (stages[stage(name)], work[name]))


class StageScheduling(LoadFileScheduling):  # type: ignore[misc]
    """xdist's way to hand out files, with `unit` and `choose`."""

    def __init__(self, config: Any, log: Any) -> None:
        super().__init__(config, log)
        self._stages: dict[Any, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        others = [each for other, each in self._stages.items() if other is not node]
        units = {name: len(tests) for name, tests in self.workqueue.items()}
        chosen = choose(units, self._stages.get(node), others)
        self._stages[node] = stage(chosen)
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)
