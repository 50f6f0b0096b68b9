"""Asking one container one question, again and again, until there is nothing more to find out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from podwright.clock import Clock
from podwright.kube.life.events import Recorder
from podwright.kube.models import Probe
from podwright.kube.probes.answers import Answer, ProbeError
from podwright.kube.probes.results import Kind, Outcome, Results

PERIOD, FAILURES, SUCCESSES = 10, 3, 1
"""What the API fills in: seconds, and how often in a row it must be heard before it is believed."""
INITIAL = {
    Kind.STARTUP: Outcome.UNKNOWN,
    Kind.LIVENESS: Outcome.SUCCESS,
    Kind.READINESS: Outcome.FAILURE,
}


@dataclass(slots=True)
class Worker:
    """Of one attempt of a container; the next attempt has workers of its own."""

    kind: Kind
    probe: Probe
    container_id: str
    place: str
    """Where the container stands in the manifest, for events."""
    ask: Callable[[], Awaitable[Answer]]
    clock: Clock
    results: Results
    recorder: Recorder
    started: asyncio.Event
    """Set when the container's startup probe has succeeded, or it has none: before, only that one asks."""
    age: float
    """Seconds that the container has run already."""
    _last: bool | None = field(default=None, init=False)
    _same: int = field(default=0, init=False)

    def begin(self) -> None:
        """Note what holds until the first answer."""
        self.results.set(self.kind, self.container_id, INITIAL[self.kind])

    async def run(self) -> None:
        """Ask until it is settled: a startup probe once, a liveness probe until it fails."""
        begun = self.clock.monotonic()
        period = self.probe.periodSeconds or PERIOD
        due = begun + max(0.0, (self.probe.initialDelaySeconds or 0) - self.age)
        while True:
            await self.clock.sleep(due - self.clock.monotonic())
            if self.kind is not Kind.STARTUP and not self.started.is_set():
                await self.started.wait()
                if self.kind is Kind.LIVENESS:
                    # It keeps its beat; only readiness is wanted at once.
                    due = self._next(due, period)
                    continue
            if await self._ask_once():
                return
            due = self._next(due, period)

    def _next(self, due: float, period: float) -> float:
        """The next beat; those that were missed meanwhile are left out."""
        missed = max(0, int((self.clock.monotonic() - due + 1e-6) // period))
        return due + (missed + 1) * period

    async def _ask_once(self) -> bool:
        """Whether nothing more is to be found out."""
        word = self.kind.value
        try:
            answer = await self.ask()
        except ProbeError as error:
            self._complain("Unhealthy", f"{word} probe errored and resulted in unknown state: {error}")
            return False
        if not answer.healthy:
            self._complain("Unhealthy", f"{word} probe failed: {answer.output}")
        elif answer.warning:
            self._complain("ProbeWarning", f"{word} probe warning: {answer.output}")
        self._same = self._same + 1 if self._last is answer.healthy else 1
        self._last = answer.healthy
        enough = (
            self.probe.successThreshold or SUCCESSES
            if answer.healthy
            else self.probe.failureThreshold or FAILURES
        )
        if self._same < enough:
            return False
        outcome = Outcome.SUCCESS if answer.healthy else Outcome.FAILURE
        self.results.set(self.kind, self.container_id, outcome)
        if self.kind is Kind.STARTUP:
            if answer.healthy:
                self.started.set()
            return True
        # What failed is about to be stopped; asking on would only disturb that.
        return self.kind is Kind.LIVENESS and not answer.healthy

    def _complain(self, reason: str, message: str) -> None:
        self.recorder.warning(reason, self.place, message)
