"""What podwright is doing at this moment: operations, one a call, and the steps inside them.

An operation is opened where a call comes in (`Operations.open`), a step by whoever does a piece of it (`step`).
Which one is current is a context variable: tasks and threads started meanwhile belong to it, so a creation
that goes on without its client is still told under the call that began it. Watchers make spans, histograms
and the list of what is in flight out of it. Without a current operation `step` does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol


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


_current: ContextVar[Step | None] = ContextVar("podwright_step", default=None)


def current() -> Step | None:
    """The innermost step of this task or thread."""
    return _current.get()


@contextmanager
def step(name: str, subject: str = "", **attributes: str | int) -> Iterator[Step | None]:
    """The block is a step of the current operation; without one nothing is told."""
    parent = _current.get()
    if parent is None:
        yield None
        return
    with _told(Step(name, subject, parent, attributes=attributes, watchers=parent.watchers)) as told:
        yield told


class Operations:
    """The operations of one house."""

    def __init__(self) -> None:
        self.watchers: tuple[Watcher, ...] = ()

    @contextmanager
    def open(self, name: str, subject: str = "", caller: str = "") -> Iterator[Step]:
        """The block is an operation. Inside another one of the same house it is a step of that."""
        parent = _current.get()
        if parent is not None and parent.watchers is not self.watchers:
            parent = None
        with _told(Step(name, subject, parent, caller, watchers=self.watchers)) as told:
            yield told


@contextmanager
def _told(step: Step) -> Iterator[Step]:
    before = _current.set(step)
    for watcher in step.watchers:
        watcher.began(step)
    try:
        yield step
    except BaseException as error:
        step.error = error
        raise
    finally:
        step.ended = time.monotonic_ns()
        for watcher in step.watchers:
            watcher.ended(step)
        _current.reset(before)
