"""Structs from any thread: a type that several of them meet first does not crash the interpreter."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from podwright import structs


class _Point(msgspec.Struct):
    x: int
    y: int = 2


def test_documents_and_trees_become_structs() -> None:
    assert structs.decode(b'{"x": 1}', _Point) == structs.convert({"x": 1}, _Point) == _Point(1, 2)
    with pytest.raises(msgspec.ValidationError):
        structs.decode(b'{"x": "1"}', _Point)
    with pytest.raises(msgspec.ValidationError):
        structs.convert({"y": 1}, _Point)


PROGRAM = """
import sys, threading, types, msgspec
from podwright import structs

sys.setswitchinterval(1e-6)
source = "from __future__ import annotations\\nimport msgspec\\n"
for place in range(8):
    source += f"class Inner{place}(msgspec.Struct):\\n"
    source += "    a: int | None = None\\n    b: list[str] | None = None\\n"
source += "class Kind(msgspec.Struct):\\n"
source += "".join(f"    field{place}: list[Inner{place % 8}] | None = None\\n" for place in range(30))
content = b'{"field0": [{"b": ["x"]}], "field29": [{"a": 1}]}'
code = compile(source, "kinds", "exec")
for number in range(100):
    module = sys.modules[f"kinds{number}"] = types.ModuleType(f"kinds{number}")
    exec(code, module.__dict__)
    kind, at_once = module.Kind, threading.Barrier(4)

    def meet():
        at_once.wait()
        assert DECODE(content, kind).field29[0].a == 1

    threads = [threading.Thread(target=meet) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
print("whole")
"""


def test_threads_may_meet_a_type_at_once() -> None:
    program = PROGRAM.replace("DECODE", "structs.decode")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
