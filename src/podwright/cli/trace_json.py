"""A start for programs: as it was recorded, and as OTLP in JSON, which trace viewers read."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from podwright import __version__
from podwright.cli.trace_path import Node, account, medians, tree
from podwright.cli.trace_record import Kind, Recording, Span

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""SpanKind of opentelemetry-proto, trace.proto."""


def plain(recordings: Sequence[Recording], init_containers: Sequence[str]) -> dict[str, Any]:
    """Nanoseconds everywhere. Of several starts the rows are medians; each start's total is told besides."""
    trees = [tree(one.spans, init_containers) for one in recordings]
    root = trees[0] if len(trees) == 1 else medians(trees)
    sums = account(root)
    return {
        "traces": [
            {"traceId": one.trace_id, "total": root.took} for one, root in zip(recordings, trees, strict=True)
        ],
        "steps": not any(one.calls_only for one in recordings),
        "total": sums.total,
        "inNoStep": sums.in_no_step,
        "betweenCalls": sums.between,
        "root": _row(root),
    }


def _row(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": node.name,
        "subject": node.subject,
        "begins": node.start,
        "took": node.took,
    }
    row |= {"onCriticalPath": sum(end - begin for begin, end in node.path), "ownShareOfPath": node.share}
    if node.runs > 1:
        row |= {"p50": node.p50, "longest": node.longest, "runs": node.runs}
    if not node.ended:
        row["ended"] = False
    if node.error:
        row["error"] = node.error
    return row | {"children": [_row(child) for child in node.children]}


def otlp(recordings: Sequence[Recording]) -> dict[str, Any]:
    """ExportTraceServiceRequest in OTLP's JSON: every span that was recorded, also those that a row hides."""
    resource = {
        "service.name": "podwright",
        "service.version": __version__,
        "host.name": socket.gethostname(),
    }
    spans = [_span(one, span) for one in recordings for span in one.spans.values()]
    scope = {"name": "podwright", "version": __version__}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": spans}],
            }
        ]
    }


def _span(recording: Recording, span: Span) -> dict[str, Any]:
    whole = next(iter(recording.spans.values()))
    end = span.end if span.end is not None else whole.end or span.start
    kind = {Kind.SERVED: SERVER, Kind.CALL: CLIENT, Kind.STEP: INTERNAL}[span.kind]
    # One clock for all: the server's of the day may differ from this host's.
    start = whole.began_at + span.start - whole.start
    attributes = {f"podwright.{key}": value for key, value in span.attributes.items()}
    if span.subject:
        attributes["podwright.subject"] = span.subject
    made: dict[str, Any] = {
        "traceId": recording.trace_id,
        "spanId": span.id,
        "parentSpanId": span.parent_id,
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + end - span.start),
        "attributes": _attributes(attributes),
    }
    if span.error:
        made["status"] = {"code": 2, "message": span.error}
    return made


def _attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]
