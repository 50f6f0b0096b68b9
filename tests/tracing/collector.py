"""A collector for tests: OTLP over gRPC, made of opentelemetry-proto's own service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

PATIENCE = 30.0


@dataclass
class Span:
    """A span as it came over the wire."""

    name: str
    trace_id: str
    id: str
    parent_id: str
    kind: int
    status: int
    message: str
    start: int
    end: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]


@dataclass
class Collector(TraceServiceServicer):
    port: int = 0
    spans: list[Span] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Exports hang while it is not set."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """An export has come."""

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        self.asked.set()
        await self.answering.wait()
        for of_resource in request.resource_spans:
            resource = _plain(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    self.spans.append(
                        Span(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.kind,
                            span.status.code,
                            span.status.message,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            _plain(span.attributes),
                            resource,
                            [(event.name, _plain(event.attributes)) for event in span.events],
                        )
                    )
        return ExportTraceServiceResponse()

    def one(self, name: str) -> Span:
        """The only span of that name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def call(self, rpc: str) -> Span:
        return self.one(f"runtime.v1.RuntimeService/{rpc}")

    def below(self, parent: Span) -> list[str]:
        """Names of what hangs below, in the order of begin."""
        children = [span for span in self.spans if span.parent_id == parent.id]
        return [span.name for span in sorted(children, key=lambda span: span.start)]


@asynccontextmanager
async def collecting(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Collector]:
    """A collector on loopback, with TLS when there are `credentials`."""
    collector = Collector()
    collector.answering.set()
    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    if credentials is None:
        collector.port = server.add_insecure_port("127.0.0.1:0")
    else:
        collector.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield collector
    finally:
        collector.answering.set()
        await server.stop(None)


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
