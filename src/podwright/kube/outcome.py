"""How a pod went: what is left to say when all of its containers have ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContainerOutcome:
    name: str
    init: bool
    id: str
    """Of the last attempt; "" when it was never made."""
    exit_code: int | None
    """Of the last attempt; None while it runs, or when it never ran."""
    reason: str
    message: str
    """Its termination message, or the runtime's words about why it did not start."""
    restarts: int
    seconds: float
    """How long the last attempt ran."""


@dataclass(frozen=True, slots=True)
class PodOutcome:
    name: str
    namespace: str
    uid: str
    sandbox_id: str
    """ "" when there was none."""
    ips: tuple[str, ...]
    containers: tuple[ContainerOutcome, ...]
    error: str = ""
    """Why the pod could not run, or was ended before its time; empty otherwise."""

    @property
    def exit_code(self) -> int:
        """The first exit code that is not 0, in the manifest's order; 1 when there is only an error."""
        codes = [one.exit_code for one in self.containers if one.exit_code]
        return codes[0] if codes else int(bool(self.error))
