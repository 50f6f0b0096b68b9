"""The status of a pod, from its manifest and what its runtime has of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightkube.models.core_v1 import PodStatus

from podwright.kube.pod_state import Seen
from podwright.kube.probes.results import Results

if TYPE_CHECKING:
    from podwright.kube.manifest import Manifest
    from podwright.kube.node import Node, PodFacts


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run: the reason and message of its state "waiting"."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the pod as a whole has failed (DeadlineExceeded, SysctlForbidden, …)."""

    reason: str
    message: str


def pod_status(
    manifest: Manifest,
    seen: Seen,
    *,
    previous: PodStatus | None,
    waiting: Mapping[str, Waiting],
    probes: Results,
    node: Node,
    facts: PodFacts,
    now: int,
    deleting: bool,
    failed: Failed | None = None,
    messages: Mapping[str, str] | None = None,
) -> PodStatus:
    """What a kubelet reports of the pod.

    `previous`: the last status, for what the runtime does not remember (removed containers, transition times,
    the start time). `waiting`: why containers do not start, by name. `now`: nanoseconds since the epoch.
    `failed`: the pod was given up. `messages`: termination messages, by container id.
    """
    raise NotImplementedError
