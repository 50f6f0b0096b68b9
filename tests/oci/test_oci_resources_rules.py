"""What an update writes, and when a memory limit is too low: rules that need no container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podwright.engines.oci.resources import not_the_parents, too_low
from podwright.linux.cgroups import Layout
from podwright.spec.resources import in_spec, unsetting
from podwright.wire import cri_pb2 as cri

MIB = 1 << 20
Limits = dict[str, Any]


@pytest.mark.parametrize(
    ("there", "limits", "former", "result"),
    [
        (
            {"devices": [1], "pids": {"limit": 5}, "cpu": {"shares": 2, "burst": 7}},
            {"cpu": {"shares": 5}, "memory": {"limit": 9}},
            {"cpu": {"shares": 2}, "memory": {}},
            {
                "devices": [1],
                "pids": {"limit": 5},
                "cpu": {"shares": 5, "burst": 7},
                "memory": {"limit": 9},
            },
        ),
        (
            {"cpu": {"quota": 5}, "unified": {"memory.high": "1", "io.max": "x"}},
            {"cpu": {}},
            {"cpu": {"quota": 5}, "unified": {"memory.high": "1"}},
            {"cpu": {}, "unified": {"io.max": "x"}},
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 0}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 3}]},
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 0}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 3}]},
        ),
    ],
)
def test_limits_take_the_place_of_others_in_a_spec(
    there: Limits, limits: Limits, former: Limits, result: Limits
) -> None:
    assert in_spec(there, limits, former) == result


def test_what_shall_not_hold_any_more_is_lifted() -> None:
    former = {
        "cpu": {"shares": 5, "quota": 7, "period": 9, "cpus": "0", "mems": "0"},
        "memory": {"limit": 1, "swap": 1},
        "unified": {"memory.high": "1", "memory.min": "1", "strange.file": "1"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
    }
    limits = {"cpu": {"shares": 4}, "memory": {"limit": 3}}
    lifted = unsetting(limits, former, {"cpus": "0-3", "mems": "0-1"})
    assert lifted["cpu"] == {"shares": 4, "quota": -1, "period": 100000, "cpus": "0-3", "mems": "0-1"}
    assert lifted["memory"] == {"limit": 3, "swap": -1}
    assert lifted["unified"] == {"memory.high": "max", "memory.min": "0"}
    [pages] = lifted["hugepageLimits"]
    assert pages["pageSize"] == "2MB" and pages["limit"] > 1 << 60 and pages["limit"] % (1 << 30) == 0
    assert limits == {"cpu": {"shares": 4}, "memory": {"limit": 3}}
    assert unsetting(limits, limits, {}) == limits


@pytest.fixture
def unified(tmp_path: Path) -> Layout:
    """A cgroup v2 hierarchy with a container that uses 100 MiB, 60 of them pages of files."""
    cgroup = tmp_path / "pods" / "one"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.current").write_text(f"{100 * MIB}\n")
    (cgroup / "memory.stat").write_text(f"anon 1\nactive_file {20 * MIB}\ninactive_file {40 * MIB}\n")
    return Layout(2, False, tmp_path, frozenset({"memory"}), {})


@pytest.mark.parametrize(
    ("limit", "swap", "refused"),
    [
        (39 * MIB, 0, True),
        (40 * MIB, 0, False),
        (39 * MIB, 39 * MIB, True),
        # What does not fit is swapped out.
        (39 * MIB, 80 * MIB, False),
        (39 * MIB, -1, False),
        (0, 0, False),
        (-1, 0, False),
    ],
)
def test_memory_that_cannot_be_taken_back_bounds_the_limit(
    unified: Layout, limit: int, swap: int, refused: bool
) -> None:
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=limit, memory_swap_limit_in_bytes=swap)
    why = too_low("/pods/one", wanted, unified)
    assert bool(why) is refused
    assert not refused or f"{limit} bytes are less than the {40 * MIB}" in why
    assert too_low("/pods/gone", wanted, unified) == ""


@pytest.mark.parametrize(
    ("asked", "parents", "named"),
    [
        ({"cpuset_cpus": "0-1"}, {"cpus": "0-3", "mems": "0"}, ""),
        ({"cpuset_cpus": "0,6-7", "cpuset_mems": "0"}, {"cpus": "0-1,5-7", "mems": "0"}, ""),
        ({"cpuset_cpus": "1,77"}, {"cpus": "0-3", "mems": "0"}, "cpuset_cpus: '1,77' has 77"),
        ({"cpuset_cpus": "1-5"}, {"cpus": "0-1,5", "mems": "0"}, "cpuset_cpus: '1-5' has 1-5"),
        ({"cpuset_mems": "1"}, {"cpus": "0-3", "mems": "0"}, "cpuset_mems: '1' has 1"),
        ({"cpuset_cpus": "0-9999999999999999"}, {"cpus": "0-3"}, "cpuset_cpus"),
        ({"cpuset_cpus": "77"}, {}, ""),
        ({"cpuset_cpus": "77"}, {"cpus": ""}, ""),
        ({}, {"cpus": "0", "mems": "0"}, ""),
    ],
)
def test_processors_that_the_cgroup_above_has_not_are_named(
    asked: dict[str, Any], parents: dict[str, str], named: str
) -> None:
    why = not_the_parents(cri.LinuxContainerResources(**asked), parents)
    assert (f"linux.{named}" in why) if named else why == ""
