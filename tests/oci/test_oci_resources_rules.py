"""What an update writes, and when a memory limit is too low: rules that need no container."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright.engines.node import limit_refusals
from podwright.engines.node.limit_refusals import (
    at_creation,
    not_the_parents,
    parents_cpus,
    too_low,
    unheard_of,
)
from podwright.linux.cgroups import Layout
from podwright.spec.inputs import HostFacts, Policy
from podwright.spec.resources import in_spec, not_set, unsetting
from podwright.wire import cri_pb2 as cri

MIB = 1 << 20
HOST = HostFacts(hostname="host")
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


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_has_no_cpus_yet_has_those_of_the_next_one_above(tmp_path: Path, version: int) -> None:
    suffix = ".effective" if version == 2 else ""
    (tmp_path / "pods" / "new").mkdir(parents=True)
    (tmp_path / f"cpuset.cpus{suffix}").write_text("0-3\n")
    (tmp_path / f"cpuset.mems{suffix}").write_text("0\n")
    (tmp_path / f"pods/cpuset.cpus{suffix}").write_text("2-3\n")
    (tmp_path / f"pods/new/cpuset.cpus{suffix}").write_text("\n")
    where = Layout(version, False, tmp_path, frozenset({"cpuset"}), {"cpuset": tmp_path})
    for cgroup in ("/pods/one", "/pods/new/one", "/pods/gone/one"):
        assert parents_cpus(cgroup, where) == {"cpus": "2-3", "mems": "0"}
    assert parents_cpus("/one", where) == {"cpus": "0-3", "mems": "0"}
    assert parents_cpus("/one", Layout(1, False, None, frozenset(), {})) == {}


def test_a_creation_names_the_processors_that_the_cgroup_above_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limit_refusals, "parents_cpus", lambda cgroup: {"cpus": "0-3", "mems": "0"})
    refused = at_creation(
        cri.LinuxContainerResources(cpuset_cpus="77"), "/pods/one", HostFacts(hostname="host")
    )
    assert refused == (
        "config.linux.resources.cpuset_cpus: '77' has 77, and the cgroup above the container has 0-3"
    )
    assert at_creation(cri.LinuxContainerResources(cpuset_cpus="3"), "/pods/one", HOST) == ""


@pytest.mark.parametrize(
    ("version", "made", "asked", "named"),
    [
        (1, {}, {"memory.high": "1"}, "linux.unified[memory.high]"),
        (1, {"memory.high": "1"}, {"memory.high": "2"}, "linux.unified[memory.high]"),
        (1, {"memory.high": "1"}, {"memory.high": "1"}, ""),
        (2, {}, {"memory.high": "1"}, ""),
    ],
)
def test_an_update_of_files_that_cgroup_v1_lacks_is_refused(
    version: int, made: dict[str, str], asked: dict[str, str], named: str
) -> None:
    host = replace(HOST, cgroup_version=version)
    made_with = cri.LinuxContainerResources(unified=made)
    why = unheard_of(cri.LinuxContainerResources(unified=asked), made_with, host)
    assert why.startswith(named) and bool(why) == bool(named)


@pytest.mark.parametrize(
    ("size", "policy", "controller", "named"),
    [
        ("2MB", True, True, ""),
        ("2048KB", True, True, ""),
        ("1GB", True, True, ""),
        ("4MB", True, True, "linux.hugepage_limits: this host has no pages of 4MB (it has: "),
        # Nothing is set then, which is warned of.
        ("4MB", False, True, ""),
        ("4MB", True, False, ""),
    ],
)  # fmt: skip
def test_an_update_of_pages_that_the_host_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str, policy: bool, controller: bool, named: str
) -> None:
    for each in ("hugepages-2048kB", "hugepages-1048576kB"):
        (tmp_path / each).mkdir()
    monkeypatch.setattr(limit_refusals, "HUGE_PAGES", tmp_path)
    host = replace(HOST, hugetlb_controller=controller, policy=Policy(hugepages=policy))
    asked = cri.LinuxContainerResources(hugepage_limits=[cri.HugepageLimit(page_size=size, limit=1)])
    why = unheard_of(asked, cri.LinuxContainerResources(), host)
    assert why.startswith(named) and bool(why) == bool(named)
    assert not named or "2048 KiB, 1048576 KiB" in why
    told = not_set(asked, host)
    assert [each.partition(":")[0] for each in told] == (
        [] if policy and controller else ["hugepage limits are not set"]
    )
