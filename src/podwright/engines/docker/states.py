"""What Docker says of a container's state, in the engine seam's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from podwright.engines.base import Exit, Json, Observation, Presence
from podwright.engines.docker.objects import NEVER, nanoseconds
from podwright.engines.refusals import plain_words


def observation(id: str, inspected: Mapping[str, Json] | None) -> Observation:
    """Of the container `id`, from what `GET /containers/…/json` answered; None: Docker has none."""
    if inspected is None:
        return Observation(Presence.MISSING)
    state = inspected["State"]
    if state.get("Running") or state.get("Paused") or state.get("Restarting"):
        return Observation(Presence.RUNNING)
    if state.get("Dead") or state.get("Status") == "removing":
        return Observation(Presence.MISSING)
    finished = nanoseconds(state.get("FinishedAt", ""))
    code = int(state.get("ExitCode") or 0)
    if finished == NEVER and code == 0:
        return Observation(Presence.CREATED)
    refusal = ""
    if finished == NEVER:
        # A start that failed: Docker notes no time.
        finished = nanoseconds(inspected.get("Created", ""))
        refusal = f"Docker could not start it: {plain_words(state.get('Error') or f'exit code {code}')}"
    oom_killed = bool(state.get("OOMKilled"))
    return Observation(Presence.EXITED, Exit(id, code & 0xFF, finished, oom_killed, refusal=refusal))


def running_pid(inspected: Mapping[str, Json] | None) -> int:
    """The host's pid of its first process, 0 when it does not run: the number may be another's then."""
    if inspected is None or not inspected["State"].get("Running"):
        return 0
    return int(inspected["State"].get("Pid") or 0)
