"""When a container is started again: restart policies and the delay that grows. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """The kubelet's: the first restart comes at once, the next after 10 s, doubling to 5 minutes; a container
    that ran for 10 minutes begins anew. All in seconds."""

    first: float = 10.0
    limit: float = 300.0
    reset: float = 600.0

    def delay(self, previous: float | None, ran: float) -> float:
        """Seconds to wait before a restart, after `previous` (None before the first) and a run of `ran`."""
        if previous is None or ran >= self.reset:
            return 0.0
        return min(self.limit, max(self.first, 2 * previous))


def restarts(policy: str, exit_code: int, *, init: bool = False) -> bool:
    """Whether a container that ended so is started again. An init container never is after success."""
    if policy == "Never":
        return False
    return exit_code != 0 or (policy == "Always" and not init)
