"""The table of differences names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.behaviour.conftest import SERVERS
from tests.behaviour.differences import table

HERE = Path(__file__).parent


def test_the_table_names_engines_groups_and_tests_that_exist(pytestconfig: pytest.Config) -> None:
    text = "".join(file.read_text() for file in HERE.glob("test_*_behaviour.py"))
    tests = set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
    groups = set(re.findall(r"pytest\.mark\.(\w+)", text))
    registered = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert table().keys() <= SERVERS.keys()
    for engine, differences in table().items():
        assert differences.tests.keys() <= tests, engine
        assert differences.groups.keys() <= groups & registered, engine
        assert all(differences.tests.values()) and all(differences.groups.values()), "each has a reason"


def test_the_oci_engine_runs_every_group() -> None:
    assert not table()["oci"].groups
