"""The limit of open files: up for a server, as before for its children."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, resource
from podwright.linux import limits, spawn

limits.raise_open_files()
limits.raise_open_files()
own = resource.getrlimit(resource.RLIMIT_NOFILE)
child = asyncio.run(spawn.check(["sh", "-c", "sleep 0.1; ulimit -Sn; ulimit -Hn"]))
print(*own, *child.decode().split())
"""


def test_children_get_the_limit_from_before() -> None:
    command = ["prlimit", "--nofile=256:4096", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4096", "4096", "256", "4096"]
