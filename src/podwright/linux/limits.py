"""How many files may be open: many for a server, and for the programs it starts what they had before.

A server holds a file for every supervisor, and the usual 1024 are used up before a thousand containers run.
The limit is inherited: containers must not get a higher one because their server needs it, for there are
programs that try to close every file they might have.
"""

from __future__ import annotations

import resource

ENOUGH = 1 << 20

_before: tuple[int, int] | None = None


def raise_open_files() -> None:
    """Raise this process's soft limit as far as it may go."""
    global _before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _before = soft, hard


def restore_open_files(pid: int) -> None:
    """Give the new child `pid` the limit from before; fine when it has ended."""
    if _before is not None:
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _before)
        except ProcessLookupError:
            pass
