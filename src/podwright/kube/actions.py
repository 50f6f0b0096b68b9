"""What is to be done next for a pod, from its manifest and what its runtime has of it. Pure.

`compute` is asked again after everything that happened; it remembers nothing. What it answers is done in this
order: `kill_pod` or `kill`, `remove_init`, `create_sandbox`, `ephemeral`, `init`, `update`, `start`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from podwright.kube.pod_state import Seen
from podwright.kube.probes.results import Results
from podwright.kube.status import Waiting

if TYPE_CHECKING:
    from podwright.kube.manifest import Manifest

KillReason = Literal["", "StartupProbe", "LivenessProbe", "FailedPostStartHook", "Unknown"]


@dataclass(frozen=True, slots=True)
class Kill:
    """A container that is to be stopped, with its pre-stop hook and its grace period (`grace.period`)."""

    name: str
    container_id: str
    message: str
    """Of the event Killing."""
    reason: KillReason = ""
    """StartupProbe and LivenessProbe: the probe's own grace period is taken. Unknown: the runtime lost sight of
    the container."""
    restart: bool = True
    """It is started again in the same round; otherwise only stopped."""


@dataclass(frozen=True, slots=True)
class Resize:
    """A running container whose resources are to be changed in place."""

    name: str
    container_id: str
    resources: tuple[str, ...]
    """What differs: "cpu", "memory"."""


@dataclass(slots=True)
class Actions:
    kill_pod: bool = False
    """Stop all containers and sandboxes; then, with `create_sandbox`, begin again in the same round."""
    create_sandbox: bool = False
    sandbox_attempt: int = 0
    """Of the sandbox to create; without `create_sandbox` that of the one there is."""
    sandbox_id: str = ""
    """The sandbox that is used; "" when it is to be created."""
    init: list[str] = field(default_factory=list)
    """Init containers to start now, sidecars among them, in this order."""
    start: list[str] = field(default_factory=list)
    """Ordinary containers to start now, in this order; each start is subject to its back-off."""
    ephemeral: list[str] = field(default_factory=list)
    kill: list[Kill] = field(default_factory=list)
    """At once, side by side."""
    update: list[Resize] = field(default_factory=list)
    remove_init: list[str] = field(default_factory=list)
    """Ids of ended init containers that a newer attempt replaces."""
    done: bool = False
    """Nothing is to be done any more, whatever happens to the containers: the pod has ended."""


def compute(
    manifest: Manifest,
    seen: Seen,
    *,
    probes: Results,
    reasons: Mapping[str, Waiting],
    deleting: bool,
    now: int,
    ended: bool = False,
) -> Actions:
    """What a kubelet does next. `reasons`: why starts of containers failed, by name; `now`: nanoseconds since
    the epoch; `ended`: the pod's phase is final (DeadlineExceeded, all containers ended), nothing starts again.
    """
    raise NotImplementedError
