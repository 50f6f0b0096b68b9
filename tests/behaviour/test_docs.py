"""docs/behaviour.md and the suite say the same."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_rule_has_its_test_and_every_test_its_rule() -> None:
    text = (HERE.parents[1] / "docs/behaviour.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    written: set[str] = set()
    for file in HERE.glob("test_*_behaviour.py"):
        written |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
    assert named - written == set(), "named in docs/behaviour.md, but not written"
    assert written - named == set(), "written, but not named in docs/behaviour.md"
