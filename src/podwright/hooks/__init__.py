"""Hooks: functions of the site that look at requests, adjust specs, or watch what happens.

    from podwright import hooks

    @hooks.validate("CreateContainer")
    def tagged(request):
        if ":" not in request.config.image.image:
            raise hooks.Rejected("config.image.image", "images need a tag here")

    @hooks.adjust(order=20)
    def less_oom(spec, target):
        spec["process"]["oomScoreAdj"] = 900

    @hooks.watch("CONTAINER_STOPPED_EVENT")
    async def tell(event):
        ...

They are found as entry points of the group `podwright.hooks` (a decorated function, or a module with some),
and in the files that the configuration names. They run in the order of `order`, then of their names. A plain
function runs in a thread, an asynchronous one in the event loop; both must end in `timeout` seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from podwright.errors import FailedPrecondition
from podwright.wire import cri_pb2 as cri

__all__ = ["Hook", "Rejected", "Target", "adjust", "validate", "watch"]

TIMEOUT = 2.0
"""Seconds that a hook may take unless it says otherwise."""
ATTRIBUTE = "__podwright_hooks__"

VALIDATED = ("RunPodSandbox", "CreateContainer", "UpdateContainerResources")

F = TypeVar("F", bound=Callable[..., Any])


class Rejected(FailedPrecondition):
    """A hook refuses the request. `field` is the request's path to what it dislikes, or empty."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Target:
    """What a spec is for."""

    kind: Literal["container", "sandbox"]
    id: str
    sandbox: cri.PodSandboxConfig
    container: cri.ContainerConfig | None
    """None for the pause process of a sandbox."""
    handler: str
    """The runtime handler's name, never empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Hook:
    kind: Literal["validate", "adjust", "watch"]
    function: Callable[..., Any]
    names: frozenset[str]
    """Rpcs, or names of events; empty: all."""
    order: int
    timeout: float
    """Seconds."""
    name: str = ""
    """As people see it: "site.tagged"."""


def validate(*rpcs: str, order: int = 0, timeout: float = TIMEOUT) -> Callable[[F], F]:
    """The function gets a copy of each request of `rpcs` (RunPodSandbox, CreateContainer,
    UpdateContainerResources; none named: all of these) before anything is made for it. What it raises rejects
    the call."""
    unknown = set(rpcs) - set(VALIDATED)
    if unknown:
        raise ValueError(f"no request of {sorted(unknown)} is validated, only of {', '.join(VALIDATED)}")
    return _marked("validate", rpcs, order, timeout)


def adjust(*, order: int = 0, timeout: float = TIMEOUT) -> Callable[[F], F]:
    """The function gets the spec, a dict of JSON values that it may change in place, and a `Target`, after
    all rules. What it raises rejects the creation, which is rolled back."""
    return _marked("adjust", (), order, timeout)


def watch(*kinds: str, order: int = 0, timeout: float = TIMEOUT) -> Callable[[F], F]:
    """The function gets each ContainerEventResponse of `kinds` (CONTAINER_CREATED_EVENT, …; none named: all),
    one after the other. What it raises is logged and changes nothing."""
    unknown = set(kinds) - set(cri.ContainerEventType.keys())
    if unknown:
        raise ValueError(f"{sorted(unknown)} are no events: {', '.join(cri.ContainerEventType.keys())}")
    return _marked("watch", kinds, order, timeout)


def _marked(
    kind: Literal["validate", "adjust", "watch"], names: tuple[str, ...], order: int, timeout: float
) -> Callable[[F], F]:
    if timeout <= 0:
        raise ValueError(f"a hook needs time: {timeout} s")

    def mark(function: F) -> F:
        hook = Hook(kind, function, frozenset(names), order, timeout)
        setattr(function, ATTRIBUTE, (*getattr(function, ATTRIBUTE, ()), hook))
        return function

    return mark
