"""Nothing of the environment's own tracing in these tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.tracing.collector import Collector, collecting


@pytest.fixture(autouse=True)
def no_tracing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("OTEL_") or name == "TRACEPARENT":
            monkeypatch.delenv(name)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as made:
        yield made
