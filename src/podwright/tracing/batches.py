"""The watcher that hands spans to OpenTelemetry's batches. Imports the optional packages."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from podwright import __version__
from podwright.steps import Step
from podwright.tracing.spans import Spans

AGAIN = 60.0
"""Seconds between two log lines about a collector that does not take spans."""

log = logging.getLogger(__name__)


class Batches:
    """A `steps.Watcher`. Nothing is kept of a step that goes on: its span is made when it has ended."""

    def __init__(
        self, url: str | None, certificates: tuple[bytes | None, ...] | None, rate: int | None
    ) -> None:
        """The collector is at `url`, None: where the environment says. Of a million traces that begin here
        `rate` are sent, None: as the environment says, or all."""
        for name in ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal"):
            _quieten(logging.getLogger(name))
        resource = Resource.create({**_ours(), **OTELResourceDetector().detect().attributes})
        sampler = None if rate is None else ParentBased(TraceIdRatioBased(rate / 1_000_000))
        credentials = grpc.ssl_channel_credentials(*certificates) if certificates is not None else None
        self._exporter = _Exporter(
            endpoint=url,
            insecure=None if url is None else not url.startswith("https://"),
            credentials=credentials,
        )
        self._processor = BatchSpanProcessor(self._exporter)
        self._spans = Spans(resource, sampler or _configured_sampler())
        self._closed = False

    def began(self, step: Step) -> None:
        pass

    def ended(self, step: Step) -> None:
        if self._closed:
            return
        try:
            if (span := self._spans.span(step)) is not None:
                self._processor.on_end(span)
        except Exception as error:
            log.error("the span of %s could not be made: %s", step.name, error, exc_info=error)

    def close(self, seconds: float) -> None:
        """Send what is left, and give it up after `seconds`. Blocks."""
        self._closed = True
        # An export that hangs, or waits to be tried again, ends when its channel is closed under it.
        giving_up = threading.Timer(seconds, self._exporter.give_up)
        giving_up.daemon = True
        giving_up.start()
        try:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
        finally:
            giving_up.cancel()


class _Exporter(OTLPSpanExporter):
    def __init__(self, *, endpoint: str | None, insecure: bool | None, credentials: Any) -> None:
        super().__init__(endpoint=endpoint, insecure=insecure, credentials=credentials)
        self._given_up = False

    def give_up(self) -> None:
        """End an export that goes on, of any thread."""
        self._given_up = True
        self.shutdown()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            return super().export(spans)
        except ValueError:
            if not self._given_up:
                raise
            # The channel was closed between two tries.
            log.warning("%d spans are lost: the collector did not take them before the end", len(spans))
            return SpanExportResult.FAILURE


def _ours() -> dict[str, str | int]:
    return {
        "service.name": "podwright",
        "service.version": __version__,
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }


def _configured_sampler() -> Sampler:
    # The provider reads OTEL_TRACES_SAMPLER and its argument; nothing else of it is used.
    return TracerProvider(shutdown_on_exit=False).sampler


class _Seldom(logging.Filter):
    """The exporter has a line for each try and each batch; a dead collector is worth one a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if record.levelno < logging.WARNING or now < self._next:
            return False
        self._next = now + AGAIN
        return True


def _quieten(logger: logging.Logger) -> None:
    if not any(isinstance(one, _Seldom) for one in logger.filters):
        logger.addFilter(_Seldom())
