"""W3C Trace Context: which trace a call belongs to, and the ids that operations and steps have in it.

Who calls a CRI server while a trace is active sends it as the metadata `traceparent`; the kubelet does. The
ids of steps are derived and not stored, so whoever watches the same step finds the same ids, before and after
its end.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwright.steps import Step

HEADER = "traceparent"
VARIABLE = "TRACEPARENT"

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SALT = os.urandom(16)

_active: ContextVar[str] = ContextVar("podwright_traceparent", default="")


@dataclass(frozen=True, slots=True)
class Parent:
    """A place in a trace that work can hang below."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool = True
    """Who began the trace records it."""

    def __str__(self) -> str:
        """The header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"


@lru_cache(maxsize=256)
def parse(header: str) -> Parent | None:
    """What a header says; None when it is none, or not a valid one (https://www.w3.org/TR/trace-context/,
    section 3.2): such a caller counts as one without a trace."""
    match = _FORM.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1))


def active() -> str:
    """The header to send with calls of this task, "" without a trace: what `using` gave, else the current
    span of the OpenTelemetry API where the program around us has one."""
    if header := _active.get():
        return header
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ""
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return str(Parent(f"{span.trace_id:032x}", f"{span.span_id:016x}", bool(span.trace_flags & 1)))


@contextmanager
def using(header: str) -> Iterator[None]:
    """Calls of the block belong to the trace of `header`."""
    before = _active.set(header)
    try:
        yield
    finally:
        _active.reset(before)


def adopt_environment() -> None:
    """This program's calls belong to the trace that TRACEPARENT names, where whoever started it says so."""
    header = os.environ.get(VARIABLE, "")
    if parse(header) is not None:
        _active.set(header)


def trace_id(step: Step) -> str:
    """The trace that a step belongs to: its caller's, else one of its operation alone."""
    operation = step.operation
    parent = parse(operation.caller) if operation.caller else None
    return parent.trace_id if parent is not None else _derived(operation, 16)


def span_id(step: Step) -> str:
    """The id of a step in its trace."""
    return _derived(step, 8)


def parent_id(step: Step) -> str:
    """The id of what a step hangs below: the step around it, or its caller's span; "" for neither."""
    if step.parent is not None:
        return span_id(step.parent)
    parent = parse(step.caller) if step.caller else None
    return parent.span_id if parent is not None else ""


def _derived(step: Step, size: int) -> str:
    from hashlib import blake2b  # most commands need none

    # No two steps of a process have been at one address at one nanosecond.
    identity = b"%d %d" % (id(step), step.started)
    return blake2b(identity, digest_size=size, key=_SALT).hexdigest()
