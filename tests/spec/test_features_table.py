"""docs/features.md says what works; each test that it names exists, and each row has a test or a reason."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
TABLE = TESTS.parent / "docs" / "features.md"

_TEST = re.compile(r"`(?P<file>[\w/]+\.py)::(?P<name>\w+)`")
_WORKS = re.compile(r"works: `[\w/]+\.py::\w+`")


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "feature" and not set(row[0]) <= set("-:")]


ROWS = rows()


def test_there_is_a_table() -> None:
    assert len(ROWS) > 20
    names = [row[0] for row in ROWS]
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row_names_tests_that_exist_or_a_reason(row: list[str]) -> None:
    assert len(row) == 3, "a row has three cells: feature, how, state"
    state = row[2]
    if state.startswith("no: "):
        assert len(state) > len("no: because"), "say why"
        return
    assert _WORKS.match(state), "the state is `works: ` and tests, or `no: ` and the reason"
    missing = [
        found.group() for found in _TEST.finditer(state) if found["name"] not in defined(found["file"])
    ]
    assert missing == []


@functools.cache
def defined(file: str) -> frozenset[str]:
    """Names of the tests in a file below tests/."""
    path = TESTS / file
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))
