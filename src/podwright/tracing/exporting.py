"""Sending spans while a house is open: whether, where to, and how it ends.

Spans wait in a bounded queue for a thread of their own; a collector that is dead or slow costs the newest
places in that queue and nothing else. At the end what is left gets FLUSH seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.config import TracingConfig
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.steps import Operations

if TYPE_CHECKING:
    from podwright.tracing.batches import Batches

ENDPOINT = "127.0.0.1:4317"
"""OTLP's own port for gRPC; not "localhost", which may be an address where no collector listens."""
FLUSH = 2.0
"""Seconds that the last spans may take when the house closes."""
EXTRA = "podwright[tracing]"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = logging.getLogger(__name__)


@asynccontextmanager
async def exported(operations: Operations, config: TracingConfig) -> AsyncIterator[None]:
    """While the block runs spans of `operations` are sent, where `config` or the environment asks for it.

    Raises FailedPrecondition when `config` does and `podwright[tracing]` is not installed, InvalidArgument
    for values and files that cannot be used. What only the environment asks for fails nothing: it may be
    meant for other programs.
    """
    if not wanted(config, os.environ):
        yield
        return
    try:
        # Loading the packages takes a few tenths of a second, in which calls can be answered.
        batches = await asyncio.to_thread(_start, config)
    except FailedPrecondition as error:
        if config.enabled:
            raise
        log.warning("no spans are sent, although OTEL_* variables ask for it: %s", error)
        yield
        return
    operations.watchers += (batches,)
    try:
        yield
    finally:
        operations.watchers = tuple(one for one in operations.watchers if one is not batches)
        await asyncio.to_thread(batches.close, FLUSH)


def wanted(config: TracingConfig, environment: Mapping[str, str]) -> bool:
    """Whether spans are to be sent. The environment can ask for it, and forbid it, as the OpenTelemetry
    specification has it (OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER)."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if config.enabled:
        return exporter != "none"
    if exporter not in ("", "otlp") or not any(environment.get(name) for name in _ENDPOINTS):
        return False
    protocol = next((value for name in _PROTOCOLS if (value := environment.get(name))), "grpc")
    if protocol != "grpc":
        log.warning(
            "no spans are sent: podwright speaks OTLP over gRPC, the environment asks for %s", protocol
        )
        return False
    return True


def target(config: TracingConfig, environment: Mapping[str, str]) -> str | None:
    """The collector's URL; None where the environment says it."""
    if not config.endpoint:
        return None if any(environment.get(name) for name in _ENDPOINTS) else f"http://{ENDPOINT}"
    scheme, separator, _ = config.endpoint.partition("://")
    if not separator:
        return f"http://{config.endpoint}"
    if scheme not in ("http", "https"):
        raise InvalidArgument(
            "tracing.endpoint", f"{config.endpoint!r} is neither host:port nor a URL with http or https"
        )
    return config.endpoint


def _start(config: TracingConfig) -> Batches:
    url = target(config, os.environ)
    certificates = _certificates(config, url)
    rate = config.sampling_rate_per_million
    if rate is not None and not 0 <= rate <= 1_000_000:
        raise InvalidArgument("tracing.sampling_rate_per_million", f"{rate} is not between 0 and 1000000")
    try:
        from podwright.tracing.batches import Batches
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("opentelemetry"):
            raise
        raise FailedPrecondition(
            f"tracing needs packages that are not installed ({error.name}): pip install '{EXTRA}',"
            f" or set tracing.enabled to false"
        ) from error
    return Batches(url, certificates, rate)


def _certificates(config: TracingConfig, url: str | None) -> tuple[bytes | None, ...] | None:
    """Authorities, key and certificate, as gRPC takes them; None when none are configured."""
    files = {"tls_ca": config.tls_ca, "tls_key": config.tls_key, "tls_cert": config.tls_cert}
    if not any(files.values()):
        return None
    if url is None or not url.startswith("https://"):
        raise InvalidArgument(
            "tracing.endpoint", f"is {config.endpoint!r}, without TLS: tls_* settings want https://host:port"
        )
    if bool(config.tls_key) != bool(config.tls_cert):
        raise InvalidArgument("tracing", "tls_cert and tls_key go together")
    contents: list[bytes | None] = []
    for name, file in files.items():
        try:
            contents.append(Path(file).read_bytes() if file else None)
        except OSError as error:
            raise InvalidArgument(f"tracing.{name}", f"{file} cannot be read: {error.strerror}") from error
    return tuple(contents)
