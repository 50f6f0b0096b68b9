"""What asking once came to. The words that follow are a kubelet's, as events show them."""

from __future__ import annotations

from dataclasses import dataclass

from podwright.errors import PodwrightError

KEPT = 10 << 10
"""Bytes of output or of a response's body that are kept."""


class ProbeError(PodwrightError):
    """It could not be found out: the target could not even be asked. The answer says nothing of the
    container."""


@dataclass(frozen=True, slots=True)
class Answer:
    healthy: bool
    output: str = ""
    """Of a failure: what the event says after "Liveness probe failed: "."""
    warning: bool = False
    """Healthy, but the output is worth an event."""


def text(data: bytes) -> str:
    """The beginning of an output."""
    return data[:KEPT].decode(errors="replace")
