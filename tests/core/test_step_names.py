"""Steps have fixed names: docs/observability.md lists them all, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from podwright.core.operations import GRACE, PARKED
from podwright.engines.fake.faults import STEPS
from podwright.engines.fake.stages import STAGES

ROOT = Path(__file__).parents[2]


def names_in_code() -> set[str]:
    found = {*STAGES.values(), GRACE, PARKED}
    for file in sorted((ROOT / "src/podwright").rglob("*.py")):
        text = file.read_text()
        if "podwright.steps import" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "step":
                match node.args[0]:
                    case ast.Constant(value=str() as name):
                        found.add(name)
    return found


def names_in_docs() -> set[str]:
    text = (ROOT / "docs/observability.md").read_text()
    section = text.partition("\n## Steps\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def test_table_of_steps_is_that_of_the_code() -> None:
    code, docs = names_in_code(), names_in_docs()
    assert len(code) > 40
    assert code == docs, (
        f"docs/observability.md, Steps: a row is missing for {sorted(code - docs)}, none is wanted for"
        f" {sorted(docs - code)}"
    )


def test_names_are_few_lower_case_words() -> None:
    assert not [name for name in names_in_code() if not re.fullmatch(r"[a-z-]+( [a-z-]+){0,2}", name)]


def test_each_step_of_the_fake_engine_has_a_name() -> None:
    assert set(STAGES) == set(STEPS)
