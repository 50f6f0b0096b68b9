"""docs/differences.md says what the table of differences says."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tools import spec_differences


def test_the_page_is_written_from_the_table() -> None:
    assert spec_differences.PAGE.read_text() == spec_differences.page(), "run tools/spec_differences.py"


def test_every_reason_and_every_case_is_on_the_page() -> None:
    table = tomllib.loads(spec_differences.TABLE.read_text())
    page = spec_differences.PAGE.read_text()
    for entry in (each for kind in table.values() for each in kind):
        assert entry["reason"] in page
        assert all(f"`{case}`" in page for case in entry.get("cases", ()) if case != "*")


def test_the_tests_that_are_named_exist() -> None:
    table = tomllib.loads(spec_differences.TABLE.read_text())
    for name in (name for entry in table["unseen"] for name in entry["tests"]):
        file, _, test = name.partition("::")
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(), name
