"""What lists of pods tell beside the CRI's own words, from the status that podwright notes of its pods. It is
read as plain JSON: the models of Kubernetes take longer to load than a list to print.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

COLUMNS = ("PHASE", "READY", "RESTARTS")
ENDED = "ended"
"""Instead of a phase: what ran has ended, and nobody was there who could have said how."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One pod."""

    name: str
    namespace: str
    since: int
    """Its start, in nanoseconds since the epoch; 0 when that is not known."""
    status: Mapping[str, Any]


def read(root: Path) -> dict[str, Noted]:
    """By uid; what cannot be read is left out. Blocks."""
    found = {}
    for path in (root / "pods").glob("*/pod.json"):
        try:
            pod = json.loads(path.read_bytes())
            status = json.loads((path.parent / "status.json").read_bytes())
            metadata = pod["metadata"]
            begun = status.get("startTime")
            since = int(datetime.fromisoformat(begun).timestamp() * 1e9) if begun else 0
            found[path.parent.name] = Noted(metadata["name"], metadata["namespace"], since, status)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is being made or removed
    return found


def cells(noted: Noted | None, live: Collection[str]) -> list[str]:
    """For `COLUMNS`. `live`: the ids of the containers that run now."""
    if noted is None:
        return ["-"] * len(COLUMNS)
    containers = noted.status.get("containerStatuses") or []
    running = [one for one in containers if _runs(one) and _id(one) in live]
    told_to_run = [one for one in containers if _runs(one)]
    phase = str(noted.status.get("phase") or "Pending")
    if told_to_run and not running:
        phase = ENDED
    everyone = [*containers, *(noted.status.get("initContainerStatuses") or [])]
    ready = sum(bool(one.get("ready")) for one in running)
    return [
        phase,
        f"{ready}/{len(containers)}",
        str(sum(int(one.get("restartCount") or 0) for one in everyone)),
    ]


def _runs(status: Mapping[str, Any]) -> bool:
    return bool((status.get("state") or {}).get("running") is not None)


def _id(status: Mapping[str, Any]) -> str:
    return str(status.get("containerID") or "").rpartition("//")[2]
