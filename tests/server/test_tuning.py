"""What tuning leaves to the garbage collector; in a process of its own, which it changes for good."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from podwright.server import tuning

class Node: pass

tuning.settle()
node = Node()
node.itself, seen = node, weakref.ref(node)
gc.collect()
frozen = gc.get_freeze_count()
del node
gc.collect()
print("kept" if seen() else "collected")
many = [[] for _ in range(tuning.RISE + frozen)]
gc.collect()
print(gc.get_freeze_count() > frozen + tuning.RISE)
gc.collect()
print("kept" if seen() else "collected")
"""


def test_what_lives_is_not_looked_at_again_before_there_is_much_more_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["kept", "True", "collected"]
