"""What the span of a step has: its place in the trace; names, attributes and status by OpenTelemetry's
semantic conventions for RPC (opentelemetry.io/docs/specs/semconv/rpc); the exception that ended it.

Whether a trace is sent is the sampler's decision about its operation, and the same for all steps inside: the
standard samplers decide by trace id and caller alone.
"""

from __future__ import annotations

import asyncio
import traceback

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from podwright import __version__, traceparent
from podwright.server.errors import status_of
from podwright.steps import Step
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

SUBJECT = "podwright.subject"
SERVER_FAILURES = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that make a server's span one with an error; by the conventions others are the client's affair."""

_SCOPE = InstrumentationScope("podwright", __version__)
_SERVICES = {
    method.name: service.full_name
    for file in (cri.DESCRIPTOR, own.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}


class Spans:
    """Makes spans of steps that have ended."""

    def __init__(self, resource: Resource, sampler: Sampler) -> None:
        self._resource = resource
        self._sampler = sampler

    def span(self, step: Step) -> ReadableSpan | None:
        """The span of `step`; None when its trace is not sent."""
        assert step.ended is not None
        operation = step.operation
        caller = traceparent.parse(operation.caller) if operation.caller else None
        trace_id = int(traceparent.trace_id(operation), 16)
        if not self._sampled(operation, trace_id, caller):
            return None
        service = _SERVICES.get(step.name) if step.is_call else None
        end = step.began_at + step.ended - step.started
        attributes: dict[str, AttributeValue] = {
            f"podwright.{key}": value for key, value in step.attributes.items()
        }
        if step.subject:
            attributes[SUBJECT] = step.subject
        status = Status(StatusCode.UNSET)
        if step.error is not None:
            status = _failure(step.error, attributes)
        if service is not None:
            code = _code(step.error)
            attributes |= {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": step.name,
                "rpc.grpc.status_code": code.value[0],
            }
            if code not in SERVER_FAILURES:
                status = Status(StatusCode.UNSET)
        parent_id = traceparent.parent_id(step)
        return ReadableSpan(
            name=f"{service}/{step.name}" if service is not None else step.name,
            context=_context(trace_id, traceparent.span_id(step)),
            parent=_context(trace_id, parent_id, remote=step is operation) if parent_id else None,
            resource=self._resource,
            attributes=attributes,
            events=() if step.error is None else (_exception(step.error, end),),
            kind=SpanKind.SERVER if service is not None and step is operation else SpanKind.INTERNAL,
            status=status,
            start_time=step.began_at,
            end_time=end,
            instrumentation_scope=_SCOPE,
        )

    def _sampled(self, operation: Step, trace_id: int, caller: traceparent.Parent | None) -> bool:
        if caller is not None:
            above = _context(trace_id, caller.span_id, remote=True, sampled=caller.sampled)
            around = set_span_in_context(NonRecordingSpan(above))
        else:
            # Not whatever span is current in this task: the operation has no caller in any trace.
            around = set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False)))
        result = self._sampler.should_sample(around, trace_id, operation.name, SpanKind.SERVER, {}, ())
        return result.decision is Decision.RECORD_AND_SAMPLE


def _context(trace_id: int, span_id: str, *, remote: bool = False, sampled: bool = True) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, int(span_id, 16), is_remote=remote, trace_flags=flags)


def _code(error: BaseException | None) -> grpc.StatusCode:
    """What the caller was answered."""
    if error is None:
        return grpc.StatusCode.OK
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return grpc.StatusCode.CANCELLED
    return status_of(error)[0]


def _failure(error: BaseException, attributes: dict[str, AttributeValue]) -> Status:
    attributes["error.type"] = _type(error)
    if _code(error) is grpc.StatusCode.CANCELLED:
        return Status(StatusCode.UNSET)  # somebody did not want the rest: no fault
    return Status(StatusCode.ERROR, status_of(error)[1])


def _exception(error: BaseException, at: int) -> Event:
    attributes = {
        "exception.type": _type(error),
        "exception.message": status_of(error)[1],
    }
    if _code(error) is grpc.StatusCode.INTERNAL:
        # Of a defect. Where podwright's own errors come from their messages say, and clients that poll for
        # what has gone make many.
        attributes["exception.stacktrace"] = "".join(traceback.format_exception(error))
    return Event("exception", attributes, timestamp=at)


def _type(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
