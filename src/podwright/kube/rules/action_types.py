"""The kinds of things that can be done for a pod, as data. Nothing here does or decides them.

`actions.compute` decides; the round of a pod's worker does what it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from podwright.kube.state.pod_state import SeenContainer

KillReason = Literal["", "StartupProbe", "LivenessProbe", "FailedPostStartHook", "Unknown"]


@dataclass(frozen=True, slots=True)
class Kill:
    """A container that is to be stopped, with its pre-stop hook and its grace period (`grace.period`)."""

    name: str
    container_id: str
    message: str
    """Of the event Killing."""
    reason: KillReason = ""
    """StartupProbe and LivenessProbe: the probe's own grace period is taken. Unknown: the runtime lost sight
    of the container."""
    restart: bool = True
    """It is started again in the same round; otherwise only stopped."""


@dataclass(frozen=True, slots=True)
class Resize:
    """A running container whose resources are to be changed in place."""

    name: str
    container_id: str
    resources: tuple[str, ...]
    """What differs: "memory", "cpu"; they are changed in this order."""


@dataclass(frozen=True, slots=True)
class Reset:
    """A container that is removed because the whole pod is started again in place."""

    name: str
    container_id: str
    running: bool
    """It is stopped first, as any other."""


@dataclass(slots=True)
class Actions:
    kill_pod: bool = False
    """Stop all containers (`stop_order`) and all sandboxes; then, with `create_sandbox`, remove the init
    containers and begin again in the same round."""
    create_sandbox: bool = False
    sandbox_attempt: int = 0
    """Of the sandbox to create; without `create_sandbox` that of the one there is."""
    sandbox_id: str = ""
    """The newest sandbox there is. With `create_sandbox`: the one that is replaced (event SandboxChanged)."""
    reset: list[Reset] = field(default_factory=list)
    """In this order. Whoever caused it is last: as long as it is there, the rest is found to be done."""
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
    """Nothing runs, and nothing will: the pod has come to its end."""

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        lists = (self.reset, self.init, self.start, self.ephemeral, self.kill, self.update, self.remove_init)
        return self.kill_pod or self.create_sandbox or any(lists)


def lost(container: SeenContainer, kind: str = "Container") -> Kill:
    """Of a container in a state that the runtime does not know: it may run, and two must not."""
    message = f'{kind} is in "unknown" state, try killing it before restart'
    return Kill(container.name, container.id, message, "Unknown")
