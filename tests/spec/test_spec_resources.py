"""Limits and their updates."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.inputs import HostFacts, Policy
from podwright.spec.linux.process import update_oom_score_adj
from podwright.spec.resources import merge, to_oci
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host

Limits = cri.LinuxContainerResources
V1 = HostFacts(hostname="h", cgroup_version=1, swap_controller=True)
V2 = HostFacts(hostname="h", cgroup_version=2, swap_controller=True)
NO_SWAP = HostFacts(hostname="h", cgroup_version=2)


@pytest.mark.parametrize(
    ("limits", "host", "expected"),
    [
        (Limits(), V2, {"cpu": {}, "memory": {}}),
        (
            Limits(cpu_period=100000, cpu_quota=-1, cpu_shares=2, cpuset_cpus="0-1", cpuset_mems="0"),
            V1,
            {
                "cpu": {"shares": 2, "period": 100000, "quota": -1, "cpus": "0-1", "mems": "0"},
                "memory": {},
            },
        ),
        (Limits(memory_limit_in_bytes=5), V2, {"cpu": {}, "memory": {"limit": 5, "swap": 5}}),
        (Limits(memory_limit_in_bytes=5), NO_SWAP, {"cpu": {}, "memory": {"limit": 5}}),
        (
            Limits(memory_limit_in_bytes=5, memory_swap_limit_in_bytes=-1),
            V2,
            {"cpu": {}, "memory": {"limit": 5, "swap": -1}},
        ),
        (
            Limits(unified={"memory.high": "7"}),
            V2,
            {"cpu": {}, "memory": {}, "unified": {"memory.high": "7"}},
        ),
        (Limits(unified={"memory.high": "7"}), V1, {"cpu": {}, "memory": {}}),
        (Limits(hugepage_limits=[cri.HugepageLimit(page_size="2MB")]), V2, {"cpu": {}, "memory": {}}),
    ],
)
def test_zero_means_not_set(limits: cri.LinuxContainerResources, host: HostFacts, expected: Any) -> None:
    assert to_oci(limits, host) == expected


@pytest.mark.parametrize(
    "limits",
    [
        Limits(cpu_shares=-2),
        Limits(cpu_period=-1),
        Limits(memory_limit_in_bytes=-2),
        Limits(memory_swap_limit_in_bytes=-5),
    ],
)
def test_values_that_no_cgroup_can_hold_are_refused(limits: cri.LinuxContainerResources) -> None:
    with pytest.raises(InvalidArgument):
        to_oci(limits, V1)


def test_hugepages_are_passed_on_only_by_policy_and_need_the_controller() -> None:
    limits = Limits(hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=0)])
    policy = Policy(hugepages=True, tolerate_missing_hugetlb=False)
    there = HostFacts(hostname="h", hugetlb_controller=True, policy=policy)
    assert to_oci(limits, there)["hugepageLimits"] == [{"pageSize": "2MB", "limit": 0}]
    with pytest.raises(FailedPrecondition):
        to_oci(limits, HostFacts(hostname="h", policy=policy))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Limits(cpu_shares=5, cpuset_cpus="0"), Limits(), Limits(cpu_shares=5, cpuset_cpus="0")),
        (Limits(cpu_shares=5, cpu_quota=7), Limits(cpu_shares=6), Limits(cpu_shares=6, cpu_quota=7)),
        # Swap follows memory, unless the update says otherwise.
        (
            Limits(memory_limit_in_bytes=10, memory_swap_limit_in_bytes=10),
            Limits(memory_limit_in_bytes=20),
            Limits(memory_limit_in_bytes=20),
        ),
        (
            Limits(memory_limit_in_bytes=10),
            Limits(memory_limit_in_bytes=20, memory_swap_limit_in_bytes=30),
            Limits(memory_limit_in_bytes=20, memory_swap_limit_in_bytes=30),
        ),
        (
            Limits(memory_swap_limit_in_bytes=9),
            Limits(cpu_quota=1),
            Limits(memory_swap_limit_in_bytes=9, cpu_quota=1),
        ),
        (
            Limits(unified={"a": "1", "b": "2"}),
            Limits(unified={"b": "3"}),
            Limits(unified={"a": "1", "b": "3"}),
        ),
        (
            Limits(hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=1)]),
            Limits(
                hugepage_limits=[
                    cri.HugepageLimit(page_size="2MB"),
                    cri.HugepageLimit(page_size="1GB", limit=4),
                ]
            ),
            Limits(
                hugepage_limits=[
                    cri.HugepageLimit(page_size="2MB"),
                    cri.HugepageLimit(page_size="1GB", limit=4),
                ]
            ),
        ),
    ],
)
def test_an_update_changes_what_it_sets_and_keeps_the_rest(
    old: cri.LinuxContainerResources, new: cri.LinuxContainerResources, expected: cri.LinuxContainerResources
) -> None:
    before = Limits.FromString(old.SerializeToString())
    assert merge(old, new) == expected
    assert old == before


@pytest.mark.parametrize(
    ("asked", "own", "capabilities", "restrict", "given"),
    [
        (-998, 0, ["CAP_SYS_RESOURCE"], False, -998),
        (-998, 0, ["CAP_SYS_RESOURCE"], True, 0),
        (-998, 0, [], False, 0),
        (-998, -999, [], False, -998),
        (500, 0, [], True, 500),
        (3, 100, [], False, 100),
    ],
)
def test_an_oom_score_below_the_daemons_own_needs_cap_sys_resource(
    asked: int, own: int, capabilities: list[str], restrict: bool, given: int
) -> None:
    host = HostFacts(
        hostname="h",
        capabilities=capabilities,
        own_oom_score_adj=own,
        policy=Policy(restrict_oom_score_adj=restrict),
    )
    assert update_oom_score_adj(Limits(oom_score_adj=asked), host) == given


@pytest.mark.parametrize(
    ("capabilities", "restrict", "warns"),
    [([], False, True), (["CAP_SYS_RESOURCE"], False, False), (["CAP_SYS_RESOURCE"], True, False)],
)
def test_an_oom_score_that_the_host_does_not_allow_is_named_once(
    capabilities: list[str], restrict: bool, warns: bool
) -> None:
    facts = host(Policy(restrict_oom_score_adj=restrict), capabilities=capabilities)
    built = build(container(resources=Limits(oom_score_adj=-998)), facts)
    told = [warning for warning in built.warnings if "oom_score_adj" in warning]
    because = "oom_score_adj is 0 instead of -998: this host gives no CAP_SYS_RESOURCE"
    assert told == ([because] if warns else [])
