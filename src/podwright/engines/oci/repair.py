"""What is left of the oci engine and belongs to no record: supervisors with their processes, and what
runtimes keep of containers; then what every engine leaves on a host.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Orphan
from podwright.engines.node.leftovers import Leftovers, entries, id_in, supervised
from podwright.engines.node.places import ID, Places
from podwright.engines.oci import runtimes
from podwright.engines.oci.runtimes import Runtimes
from podwright.linux import spawn
from podwright.network.cni import Cni


class Repair:
    def __init__(self, config: Config, places: Places, handlers: Runtimes, network: Cni) -> None:
        self._places = places
        self._runtimes = handlers
        self._leftovers = Leftovers(config, places, network)

    def orphans(self, known: set[str]) -> list[Orphan]:
        """Everything that names an id which is not in `known`."""
        return [
            *self._processes(known),
            *self._runtime_states(known),
            *self._leftovers.orphans(known),
        ]

    async def remove(self, orphan: Orphan) -> None:
        """Fine when it is gone by now."""
        if orphan.kind == "process":
            await _kill(int(orphan.name))
        elif orphan.kind == "runtime":
            handler, _, id = orphan.name.partition("/")
            runtime = self._runtimes.get(handler)
            if runtime.knows(id):
                await runtimes.run_with_hooks(runtime, "delete", "--force", id)
        else:
            await self._leftovers.remove(orphan)

    def _processes(self, known: set[str]) -> Iterator[Orphan]:
        """Supervisors that work in our directories, and the processes that they supervise.

        All supervisors come first: one that is left would report the end of what is killed with another.
        """
        left: list[Orphan] = []
        ours = os.fsencode(self._places.run) + b"/"
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                bundle = supervised(entry)
                if not bundle:
                    continue
                children = (entry / f"task/{entry.name}/children").read_text().split()
            except OSError:
                continue  # it has just ended
            id = id_in(os.fsdecode(bundle))
            if bundle.startswith(ours) and id and id not in known:
                yield Orphan("process", entry.name, f"supervisor of {id}")
                left += [Orphan("process", child, f"process of {id}") for child in children]
        yield from left

    def _runtime_states(self, known: set[str]) -> Iterator[Orphan]:
        for runtime in self._runtimes.all():
            for entry in entries(runtime.root):
                id = entry.name[:64]
                if ID.fullmatch(id) and id not in known:
                    yield Orphan("runtime", f"{runtime.handler}/{id}", f"state of {runtime.kind}")


async def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await spawn.exited(pid)
