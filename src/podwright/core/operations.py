"""What is in flight: every call that has not ended, and what goes on of one whose client has left.

The steps (`podwright.steps`) tell most of it. Two things wait without any: a creation that is parked, and the
grace period of a stop whose clients have gone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from podwright.core.ground import Ground
from podwright.steps import Operations, Step
from podwright.wire import podwright_pb2 as own

GRACE = "grace period"
"""The step in which a stop waits for a container that has had its signal."""
PARKED = "parked"
"""What is told as a stage although nothing runs: a creation that waits for its client to come again."""

RECOVERY = "Recovery"
"""What happens at a start, for no client."""

SESSIONS = ("ExecSession", "AttachSession", "PortForwardSession")
"""What the URLs that Exec, Attach and PortForward answer with are for, and the same without a URL."""

CHANGING: list[str] = []
"""The calls that are declared to be an `operation`: those that change something."""

_READING = re.compile(
    r"Version|\w*Status|\w*Stats|RuntimeConfig|ImageFsInfo|(List|Stream|Get|Watch|Explain)\w*"
)
"""Calls that only look. What is not known to is taken to change something."""

_SUBJECTS = (
    ("container_id",),
    ("pod_sandbox_id",),
    ("image_ref",),
    ("image",),
    ("image", "image"),
    ("config", "metadata", "name"),
)


class _Owner(Protocol):
    @property
    def operations(self) -> Operations: ...


_Asked = TypeVar("_Asked", bound=Message)
_Answer = TypeVar("_Answer")
_Self = TypeVar("_Self", bound=_Owner)


def operation(
    method: Callable[[_Self, _Asked], Awaitable[_Answer]],
) -> Callable[[_Self, _Asked], Coroutine[Any, Any, _Answer]]:
    """The method is an operation of whoever calls it, unless a server has opened that already."""
    rpc = method.__name__.title().replace("_", "")
    CHANGING.append(rpc)

    @functools.wraps(method)
    async def called(self: _Self, request: _Asked, /) -> _Answer:
        with self.operations.join(rpc, subject(request)):
            return await method(self, request)

    return called


def subject(request: Message, response: Message | bytes | None = None) -> str:
    """Which object a call is about; "" when it is about none. Only ids, names and references: a request may
    carry credentials (AuthConfig) and environments."""
    for message in (request,) if response is None else (response, request):
        if isinstance(message, bytes):
            continue
        for path in _paths(message.DESCRIPTOR):
            value: Any = message
            for field in path:
                value = getattr(value, field)
            if value:
                return cast(str, value)
    return ""


@functools.cache
def _paths(kind: Descriptor) -> Sequence[tuple[str, ...]]:
    """Where messages of a kind may have it. Looking for fields that are not there would cost every call as
    much as all the rest of its operation."""
    return [path for path in _SUBJECTS if _has(kind, path)]


def _has(descriptor: Descriptor, path: tuple[str, ...]) -> bool:
    field = descriptor.fields_by_name.get(path[0])
    if field is None or field.is_repeated:
        return False
    if path[1:]:
        return field.message_type is not None and _has(field.message_type, path[1:])
    return field.message_type is None


class InFlight:
    """The watcher that knows what goes on. A step more or less costs it the change of a dictionary."""

    def __init__(self) -> None:
        self._open: dict[Step, None] = {}

    def began(self, step: Step) -> None:
        self._open[step] = None

    def ended(self, step: Step) -> None:
        self._open.pop(step, None)

    def calls(self) -> dict[Step, list[Step]]:
        """Every call that goes on, itself or a step of it, with its innermost steps; the oldest first."""
        # Other threads open steps meanwhile; a list is made of a dictionary's keys in one go.
        still = list(self._open)
        around = {step.parent for step in still}
        calls: dict[Step, list[Step]] = {}
        for step in still:
            stages = calls.setdefault(step.call, [])
            if not step.is_call and step not in around:
                stages.append(step)
        # Of a call in a call the inner one tells what goes on.
        outer = {call.parent.call for call in calls if call.parent is not None}
        kept = {call: stages for call, stages in calls.items() if stages or call not in outer}
        return dict(sorted(kept.items(), key=lambda each: each[0].started))


def listed(in_flight: InFlight, ground: Ground, *, reading: bool = False) -> list[own.Operation]:
    """What goes on, the oldest first; with `reading` also what only looks."""
    clock, containers = ground.clock, ground.records.containers
    graces: dict[str, float] = {}
    for id in ground.stops:
        timer = containers.get(id).kill_timer if id in containers else None
        if timer is not None and not timer.cancelled():
            graces[id] = max(0.0, timer.when() - clock.monotonic())
    found: list[own.Operation] = []
    seen: set[str] = set()
    for call, stages in in_flight.calls().items():
        if not reading and _READING.fullmatch(call.name):
            continue
        operation = _described(call, ground)
        operation.stages.extend(_stages(stages))
        for stage in stages:
            if stage.name == GRACE and stage.subject in graces:
                seen.add(stage.subject)
                operation.seconds_left = graces[stage.subject]
        found.append(operation)
    for id, left in graces.items():
        if id not in seen:
            found.append(_unattended(ground.stops[id], ground, GRACE, left))
    for creation in ground.creations.parked():
        if creation.call is not None and creation.expiry is not None:
            left = max(0.0, creation.expiry.when() - clock.monotonic())
            found.append(_unattended(creation.call, ground, PARKED, left))
    return sorted(found, key=lambda each: each.started_at)


def _stages(steps: Sequence[Step]) -> list[own.OperationStage]:
    return [
        own.OperationStage(name=each.name, subject=each.subject, started_at=each.began_at) for each in steps
    ]


def _unattended(call: Step, ground: Ground, stage: str, left: float) -> own.Operation:
    """What waits for a timer, not in a step."""
    operation = _described(call, ground)
    operation.stages.add(name=stage)
    operation.client_gone, operation.seconds_left = True, left
    return operation


def _described(call: Step, ground: Ground) -> own.Operation:
    operation = own.Operation(
        rpc=call.name,
        subject=call.subject,
        started_at=call.began_at,
        client_gone=call.ended is not None and call.name != RECOVERY,
    )
    if call.name in ("PullImage", "RemoveImage", "ImportImage", "ExportImage"):
        operation.image = call.subject
    records = ground.records
    known = {call.subject, *(str(each) for each in call.attributes.values())}
    container = next((records.containers.get(id) for id in known if id in records.containers), None)
    sandbox = next((records.sandboxes.get(id) for id in known if id in records.sandboxes), None)
    if container is not None:
        operation.container_id = container.id
        operation.container_name = container.config.metadata.name
        sandbox = container.sandbox
    if sandbox is not None:
        operation.pod_sandbox_id = sandbox.id
        metadata = sandbox.config.metadata
        operation.pod_namespace, operation.pod_name = metadata.namespace, metadata.name
    return operation
