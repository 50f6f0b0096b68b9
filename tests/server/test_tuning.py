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
del node
gc.collect()
print("kept" if seen() else "collected")
for _ in range(tuning.THOROUGH):
    gc.collect()
print("kept" if seen() else "collected")
"""


def test_what_survives_a_collection_is_looked_at_again_but_seldom() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["kept", "collected"]
