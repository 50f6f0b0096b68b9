"""What holds for all tests: the environment they begin with, which process runs them, and what is told of
those that fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

# A fork of a process with gRPC's threads runs gRPC's handlers, which may crash the child before it executes.
# Tests start programs through vfork, which calls none; this is for a fork that one of their libraries makes.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# How long an example takes is up to what else the machine does.
hypothesis.settings.register_profile("podwright", deadline=None)
hypothesis.settings.load_profile("podwright")

WORDS = 12
"""Lines told again of each failure."""
WIDTH = 400
"""Characters of each of them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Files go to processes that have what they need."""
    if config.option.dist != "loadfile":
        return None
    from tests.scheduling import StageScheduling

    return StageScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Tell at the very end why tests failed: where only the end is kept, that is all there is."""
    yield
    failures: dict[tuple[str, ...], list[str]] = {}
    for kind in ("error", "failed"):
        for report in terminalreporter.getreports(kind):
            failures.setdefault(tuple(_reason(report.longreprtext)), []).append(report.nodeid)
    if failures:
        terminalreporter.section("reasons")
    for reason, tests in failures.items():
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        terminalreporter.write_line(f"{tests[0]}{more}")
        for line in reason:
            terminalreporter.write_line(f"    {line[:WIDTH]}")


def _reason(text: str) -> Iterator[str]:
    """The lines that name the error, the last of them being where it was raised."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("[gw")]
    named = [line for line in lines if line.startswith("E ")] or lines[:-1]
    yield from named[:WORDS]
    yield from lines[-1:]
