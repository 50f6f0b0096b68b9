"""What happened, in counters and histograms: a `steps.Watcher`.

Labels are bounded: names of calls and steps are a fixed set, errors are told by their gRPC code, failures of
pulls by their kind. Ids, names and references are in no label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from podwright import errors
from podwright.core.operations import SESSIONS
from podwright.errors import PodwrightError
from podwright.server.errors import status_of
from podwright.steps import Step

CALL_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 240),
)
"""Seconds: from a status that is answered from memory to the four minutes that a kubelet waits."""
STEP_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 240)
SESSION_BUCKETS = (1, 10, 60, 600, 3600, 4 * 3600)

CANCELLED = "CANCELLED"
"""The code of calls whose clients have left."""

_REASONS = {
    kind.__name__
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PodwrightError) and kind is not PodwrightError
}


class Meter:
    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(name, words, labels, namespace="podwright", registry=registry)

        def histogram(name: str, words: str, labels: tuple[str, str], buckets: Sequence[float]) -> Histogram:
            return Histogram(name, words, labels, namespace="podwright", buckets=buckets, registry=registry)

        self._calls = histogram("rpc_seconds", "How long calls took.", ("rpc", "code"), CALL_BUCKETS)
        self._steps = histogram("step_seconds", "How long steps took.", ("step", "rpc"), STEP_BUCKETS)
        self._sessions = histogram(
            "session_seconds", "How long sessions of streams took.", ("session", "code"), SESSION_BUCKETS
        )
        self._errors = counter("rpc_errors", "Calls that failed.", "code")
        self._pulls = counter("pulls", "Pulls that succeeded.")
        self._pull_failures = counter("pull_failures", "Pulls that failed.", "reason")
        self._pulled = counter("pulled_bytes", "Bytes of blobs that were fetched.")
        # `labels` takes as long as everything else together.
        self._known: dict[tuple[str, str], Histogram] = {}
        self._known_steps: dict[tuple[str, str], Histogram] = {}

    def began(self, step: Step) -> None:
        pass

    def ended(self, step: Step) -> None:
        if step.is_call:
            self._call(step)
        else:
            key = step.name, step.call.name
            known = self._known_steps.get(key)
            if known is None:
                known = self._known_steps[key] = self._steps.labels(*key)
            known.observe(step.seconds)
            if step.name == "fetch blob" and step.error is None:
                self._pulled.inc(int(step.attributes.get("bytes", 0)))

    def _call(self, call: Step) -> None:
        error = call.error
        key = call.name, "OK" if error is None else code(error)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (self._sessions if call.name in SESSIONS else self._calls).labels(*key)
        known.observe(call.seconds)
        # Who follows a stream leaves it at some time: that is no failure.
        if error is not None and key[1] != CANCELLED:
            self._errors.labels(key[1]).inc()
        if call.name == "PullImage":
            if error is None:
                self._pulls.inc()
            else:
                self._pull_failures.labels(reason(error)).inc()


def code(error: BaseException) -> str:
    """The status code that a client gets for `error`."""
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return CANCELLED
    return status_of(error)[0].name


def reason(error: BaseException) -> str:
    """Why a pull failed, in one of few words."""
    if isinstance(error, asyncio.CancelledError):
        return "Cancelled"
    name = type(error).__name__
    return name if name in _REASONS else "Other"
