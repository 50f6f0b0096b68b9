"""Containers whose program cannot be executed. Runtimes look for it when they create a container; who asked
is told at the start, as other engines do: what failed to start has ended, and a pod's restart policy counts,
while a container that cannot be created is tried again for ever.

Until then there is no process, only a file in the bundle with the runtime's words.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from podwright.engines.base import Observation, Presence
from podwright.engines.node import exits
from podwright.engines.node.places import Places
from podwright.errors import CommandFailed

FILE = "unstartable"
_WORDS = re.compile(
    r"executable file .* not found in \$PATH|^open executable: "  # crun
    r'|(^|unable to start container process: |error during container init: )exec: ".*": '  # runc
)


def note(bundle: Path, words: str) -> bool:
    """Whether a creation failed, with these words of the runtime, for the program alone; then a start will
    say so."""
    if not _WORDS.search(words):
        return False
    (bundle / FILE).write_text(words)
    return True


def check(bundle: Path, runtime: str) -> None:
    """CommandFailed with the words of the creation, for a container that cannot be started; `runtime` is the
    program's name."""
    try:
        words = (bundle / FILE).read_text()
    except FileNotFoundError:
        return
    raise CommandFailed(runtime, 1, words)


def end(places: Places, id: str, number: int) -> bool:
    """Whether the signal `number` is for such a container: SIGKILL ends it although there is no process."""
    if not (places.container_run(id) / FILE).exists():
        return False
    if number == signal.SIGKILL and not places.exit_file(id).exists():
        exits.write(places.exits, id, 128 + number)
    return True


def observe(places: Places, id: str) -> Observation | None:
    """Such a container waits for its start until it has ended; None for others."""
    if (places.container_run(id) / FILE).exists() and not places.exit_file(id).exists():
        return Observation(Presence.CREATED)
    return None
