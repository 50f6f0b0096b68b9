"""What podwright is doing at this moment: operations, one a call, and the steps inside them.

An operation is opened where a call comes in (`Operations.open`), a step by whoever does a piece of it
(`step`). Which one is current is a context variable: tasks and threads started meanwhile belong to it, so a
creation that goes on without its client is still told under the call that began it. Watchers make spans,
histograms and the list of what is in flight out of it. Without a current operation `step` does nothing.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from podwright.traceparent import active


class Watcher(Protocol):
    """Told of every operation and step of one `Operations`, on whatever thread it happens; must be quick and
    may not raise."""

    def began(self, step: Step) -> None: ...

    def ended(self, step: Step) -> None: ...


@dataclass(slots=True, eq=False)
class Step:
    """One operation (`parent` is None) or a step inside one."""

    name: str
    """An rpc's name for an operation ("RunPodSandbox"), a few lower-case words for a step ("cni add")."""
    subject: str = ""
    """What it is about: an id, a name, an image reference. Never a credential."""
    parent: Step | None = None
    caller: str = ""
    """Of an operation: the traceparent header that the client sent (W3C Trace Context), "" without one."""
    began_at: int = field(default_factory=time.time_ns)
    """Nanoseconds since the epoch, for people; durations come from `started`."""
    started: int = field(default_factory=time.monotonic_ns)
    ended: int | None = None
    """Monotonic nanoseconds; None while it goes on."""
    error: BaseException | None = None
    attributes: dict[str, str | int] = field(default_factory=dict)
    watchers: tuple[Watcher, ...] = ()
    is_call: bool = False
    """It came from `Operations.open`: an operation, or one inside another one."""

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return ((self.ended or time.monotonic_ns()) - self.started) / 1e9

    @property
    def operation(self) -> Step:
        """The call that it belongs to."""
        step = self
        while step.parent is not None:
            step = step.parent
        return step

    @property
    def call(self) -> Step:
        """The innermost call that it is, or is a step of."""
        step = self
        while not step.is_call and step.parent is not None:
            step = step.parent
        return step


_current: ContextVar[Step | None] = ContextVar("podwright_step", default=None)


def current() -> Step | None:
    """The innermost step of this task or thread."""
    return _current.get()


def step(name: str, subject: str = "", **attributes: str | int) -> AbstractContextManager[Step | None]:
    """The block is a step of the current operation; without one nothing is told."""
    parent = _current.get()
    if parent is None:
        return _NOTHING
    return _Told(Step(name, subject, parent, attributes=attributes, watchers=parent.watchers))


def note(**attributes: str | int) -> None:
    """Say more of the current step, now that it is known: ids, names and references."""
    here = _current.get()
    if here is not None:
        here.attributes.update(attributes)


class Operations:
    """The operations of one house."""

    def __init__(self) -> None:
        self.watchers: tuple[Watcher, ...] = ()

    def open(self, name: str, subject: str = "", caller: str = "") -> AbstractContextManager[Step]:
        """The block is an operation. Inside another one of the same house, if that goes on still, it is a
        step of that."""
        parent = _current.get()
        if parent is not None and (
            # A server that was started on behalf of one call serves others.
            parent.watchers is not self.watchers or parent.operation.ended is not None
        ):
            parent = None
        return _Told(Step(name, subject, parent, caller, watchers=self.watchers, is_call=True))

    def join(self, name: str, subject: str = "") -> AbstractContextManager[Step]:
        """`open`, unless whoever called has just opened it."""
        here = _current.get()
        if (
            here is not None
            and here.is_call
            and here.name == name
            and here.ended is None
            and here.watchers is self.watchers
        ):
            return nullcontext(here)
        # A server knows its caller's trace from the wire; who calls in this process may have one active.
        return self.open(name, subject, active())


class _Told:
    """A step from its first to its last instruction. (Not a generator: that takes twice the time.)"""

    __slots__ = ("_before", "_step")

    def __init__(self, step: Step) -> None:
        self._step = step
        self._before: Token[Step | None]

    def __enter__(self) -> Step:
        step = self._step
        self._before = _current.set(step)
        for watcher in step.watchers:
            watcher.began(step)
        return step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        step = self._step
        step.error = error
        step.ended = time.monotonic_ns()
        for watcher in step.watchers:
            watcher.ended(step)
        try:
            _current.reset(self._before)
        except ValueError:
            pass  # of a generator that its reader left half-way: it is closed in another context


_NOTHING: AbstractContextManager[None] = nullcontext()
