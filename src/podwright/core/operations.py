"""What is in flight: every call that has not ended, and what goes on of one whose client has left.

Nothing here changes anything; the steps (`podwright.steps`) tell it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from google.protobuf.message import Message

from podwright.steps import Operations, Step

if TYPE_CHECKING:
    pass

GRACE = "grace period"
"""The step in which a stop waits for a container that has had its signal."""
PARKED = "parked"
"""What is told as a stage although nothing runs: a creation that waits for its client to come again."""

_SUBJECTS = ("container_id", "pod_sandbox_id", "image_ref")


class _Owner(Protocol):
    @property
    def operations(self) -> Operations: ...


_Asked = TypeVar("_Asked", bound=Message)
_Answer = TypeVar("_Answer")
_Self = TypeVar("_Self", bound=_Owner)


def operation(
    rpc: str,
) -> Callable[
    [Callable[[_Self, _Asked], Awaitable[_Answer]]], Callable[[_Self, _Asked], Coroutine[Any, Any, _Answer]]
]:
    """The method is the call `rpc`: of whoever calls it, unless a server has opened that already."""

    def make(
        method: Callable[[_Self, _Asked], Awaitable[_Answer]],
    ) -> Callable[[_Self, _Asked], Coroutine[Any, Any, _Answer]]:
        @functools.wraps(method)
        async def called(self: _Self, request: _Asked, /) -> _Answer:
            with self.operations.join(rpc, subject(request)):
                return await method(self, request)

        return called

    return make


def subject(request: Message, response: Message | bytes | None = None) -> str:
    """Which object a call is about; "" when it is about none. Only ids, names and references: a request may
    carry credentials (AuthConfig) and environments."""
    for message in (request,) if response is None else (response, request):
        for field in _SUBJECTS:
            value = getattr(message, field, "")
            if value and isinstance(value, str):
                return value
    image = getattr(request, "image", "")
    if image and isinstance(image, str):
        return image
    image = getattr(image, "image", "")
    if image and isinstance(image, str):
        return image
    metadata = getattr(getattr(request, "config", None), "metadata", None)
    return metadata.name if metadata is not None else ""


class InFlight:
    """The watcher that knows what goes on. A step more or less costs it the change of a dictionary."""

    def __init__(self) -> None:
        self._open: dict[Step, None] = {}

    def began(self, step: Step) -> None:
        self._open[step] = None

    def ended(self, step: Step) -> None:
        self._open.pop(step, None)

    def __len__(self) -> int:
        """How many steps and calls are open."""
        return len(self._open)

    def calls(self) -> dict[Step, list[Step]]:
        """Every call that goes on, itself or a step of it, with its innermost steps; the oldest first."""
        # Other threads open steps meanwhile; a list is made of a dictionary's keys without a break.
        still = list(self._open)
        inner = {step.parent for step in still}
        calls: dict[Step, list[Step]] = {}
        for step in still:
            stages = calls.setdefault(step.call, [])
            if not step.is_call and step not in inner:
                stages.append(step)
        # A call inside a call is the one that tells what goes on.
        outer = {call.parent.call for call in calls if call.parent is not None}
        kept = {call: stages for call, stages in calls.items() if stages or call not in outer}
        return dict(sorted(kept.items(), key=lambda each: each[0].started))
