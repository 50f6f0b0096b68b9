"""Which unit of the tests' work the next free process is given."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import SERVERS
from tests.scheduling import ENGINES, choose, unit


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/oci/test_a.py::test_x", "oci tests/oci/test_a.py"),
        ("tests/oci/test_a.py::TestIt::test_x[docker]", "oci tests/oci/test_a.py"),
        ("tests/behaviour/test_a.py::test_x[docker]", "behaviour/docker tests/behaviour/test_a.py"),
        ("tests/behaviour/test_a.py::test_x[a-oci]", "behaviour/oci tests/behaviour/test_a.py"),
        ("tests/behaviour/test_a.py::test_x[fake-a::b\n]", "behaviour/fake tests/behaviour/test_a.py"),
        ("tests/behaviour/test_docs.py::test_x", "behaviour tests/behaviour/test_docs.py"),
        ("elsewhere/test_a.py::test_x[oci]", " elsewhere/test_a.py"),
    ],
)
def test_a_unit_is_a_file_and_in_the_behaviour_suite_an_engine(nodeid: str, expected: str) -> None:
    assert unit(nodeid) == expected


def test_every_engine_of_the_behaviour_suite_is_known() -> None:
    assert set(ENGINES) == set(SERVERS)


@pytest.mark.parametrize(
    ("units", "own", "others", "expected"),
    [
        ({"a 1": 1, "a 2": 2, "b 1": 9}, "a", ["b"], "a 2"),  # its own, the longest
        ({"a 1": 1, "b 1": 3, "b 2": 3, "c 1": 5}, "d", ["a"], "b 1"),  # the stage with the most work left
        ({"a 1": 1, "b 1": 3, "c 1": 5}, "d", ["b", "c"], "a 1"),  # nobody else's
        ({"a 1": 1, "b 1": 3}, "d", ["a", "b"], "b 1"),  # somebody else's, when there is nothing else
        ({"oci 1": 2, "core 1": 5}, None, [], "oci 1"),  # by time, not by number
    ],
)
def test_a_process_stays_where_its_servers_are(
    units: dict[str, int], own: str | None, others: list[str], expected: str
) -> None:
    assert choose(units, own, others) == expected
