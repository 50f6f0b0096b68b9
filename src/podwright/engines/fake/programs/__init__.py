"""The built-in programs of fake containers, by name. As in a container of busybox, but small.

What a name stands for is looked up by its last part: "/bin/echo" and "echo" are the same.
"""

from __future__ import annotations

from podwright.engines.fake.programs.shell.main import sh
from podwright.engines.fake.programs.table import PROGRAMS, find, idle_seconds

PROGRAMS.update(dict.fromkeys(("ash", "bash", "dash", "sh"), sh))
NAMES = tuple(sorted(PROGRAMS))

__all__ = ["NAMES", "find", "idle_seconds"]
