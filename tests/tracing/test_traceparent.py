"""W3C Trace Context: what headers say, which one calls carry, and the ids of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from podwright import traceparent
from podwright.steps import Operations, Step, step
from podwright.traceparent import Parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture(autouse=True)
def no_trace() -> Iterator[None]:
    with traceparent.using(""):
        yield


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (HEADER, Parent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", Parent(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", Parent(TRACE, SPAN, True)),
        # A later version may say more, which is left unread.
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", Parent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (HEADER.upper(), None),
        (HEADER[:-1], None),
        (f" {HEADER}", None),
        ("", None),
    ],
)
def test_headers(header: str, parent: Parent | None) -> None:
    assert traceparent.parse(header) == parent


def test_a_parent_is_written_as_its_header() -> None:
    assert str(Parent(TRACE, SPAN)) == HEADER
    assert str(Parent(TRACE, SPAN, False)) == f"00-{TRACE}-{SPAN}-00"


def test_the_active_trace_is_the_one_given_else_the_surrounding_programs() -> None:
    assert traceparent.active() == ""
    context = SpanContext(int(TRACE, 16), int(SPAN, 16), False, TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        assert traceparent.active() == HEADER
        with traceparent.using(f"00-{TRACE}-{'1' * 16}-01"):
            assert traceparent.active() == f"00-{TRACE}-{'1' * 16}-01"
    assert traceparent.active() == ""


def test_the_environment_names_the_trace_of_whoever_started_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    traceparent.adopt_environment()
    assert traceparent.active() == ""
    monkeypatch.setenv("TRACEPARENT", HEADER)
    traceparent.adopt_environment()
    assert traceparent.active() == HEADER


class Seen:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def began(self, step: Step) -> None:
        self.steps.append(step)

    def ended(self, step: Step) -> None:
        pass


def watched() -> tuple[Operations, Seen]:
    operations, seen = Operations(), Seen()
    operations.watchers = (seen,)
    return operations, seen


async def test_ids_stay_the_same_and_are_nobody_elses() -> None:
    operations, seen = watched()
    with operations.open("RunPodSandbox", caller=HEADER) as call:
        before = traceparent.span_id(call)
        with step("cni add") as inner:
            assert inner is not None
            assert traceparent.parent_id(inner) == before
            with step("cni plugin") as innermost:
                assert innermost is not None
                assert traceparent.parent_id(innermost) == traceparent.span_id(inner)
        await asyncio.to_thread(_files)
    assert traceparent.span_id(call) == before
    assert traceparent.parent_id(call) == SPAN
    assert {traceparent.trace_id(one) for one in seen.steps} == {TRACE}
    assert len({traceparent.span_id(one) for one in seen.steps}) == 4
    assert traceparent.parse(str(Parent(TRACE, before))) is not None


def _files() -> None:
    with step("files"):
        pass


def test_a_call_without_a_caller_has_a_trace_of_its_own() -> None:
    operations, seen = watched()
    for caller in ("", "nonsense"):
        with operations.open("Version", caller=caller) as call, step("inner") as inner:
            assert inner is not None and traceparent.trace_id(inner) == traceparent.trace_id(call)
            assert traceparent.parent_id(call) == ""
    assert len({traceparent.trace_id(one) for one in seen.steps}) == 2


def test_a_call_made_in_this_process_joins_the_active_trace() -> None:
    operations, _ = watched()
    with traceparent.using(HEADER), operations.join("RunPodSandbox") as call:
        assert call.caller == HEADER
        with operations.join("RunPodSandbox") as same:
            assert same is call
