"""Quantities and the arithmetic of quality of service."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.kube.manifests import manifest
from podwright.kube.node import Node
from podwright.kube.requests import resources


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        (2, 2),
        (0.1, Fraction(1, 10)),
        ("100m", Fraction(1, 10)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("64Mi", 64 << 20),
        ("1Gi", 1 << 30),
        ("1k", 1000),
        ("1M", 10**6),
        ("2Ki", 2048),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1e-3", Fraction(1, 1000)),
        ("+1", 1),
        ("-1", -1),
        ("10n", Fraction(10, 10**9)),
        ("3u", Fraction(3, 10**6)),
        ("1Ei", 1 << 60),
    ],
)
def test_quantities_are_exact(text: object, value: int | Fraction) -> None:
    assert resources.parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "1K", "1ki", "1mi", "m", "1 Gi", "1Gb", "0x1", True, None, "1e", "١"])
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(InvalidArgument, match=r"somewhere: .*not a quantity"):
        resources.parse_quantity(text, "somewhere")


@given(st.integers(0, 10**9), st.sampled_from(["m", "", "k", "M", "Ki", "Mi", "Gi"]))
def test_a_suffix_only_multiplies(number: int, suffix: str) -> None:
    assert resources.parse_quantity(f"{number}{suffix}") == number * resources.parse_quantity(f"1{suffix}")


@given(st.integers(0, 10**7))
def test_shares_and_quota_stay_within_what_the_kernel_takes(milli: int) -> None:
    assert resources.MIN_SHARES <= resources.shares(milli) <= resources.MAX_SHARES
    assert resources.quota(milli) == 0 if milli == 0 else resources.quota(milli) >= resources.MIN_QUOTA


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_cpu_is_never_fewer_shares(one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert resources.shares(less) <= resources.shares(more)
    assert less == 0 or resources.quota(less) <= resources.quota(more)


def pod(
    *containers: dict[str, Any], init: list[dict[str, Any]] | None = None, **spec: Any
) -> manifest.Manifest:
    made = [{"name": f"c{n}", "image": "x:1", "resources": one} for n, one in enumerate(containers)]
    inits = [{"name": f"i{n}", "image": "x:1", "resources": one} for n, one in enumerate(init or [])]
    return manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": made, "initContainers": inits, **spec},
        }
    )


FULL = {"limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("containers", "init", "qos"),
    [
        ([{}], [], "BestEffort"),
        ([{"requests": {"cpu": 0}}], [], "BestEffort"),
        ([{"limits": {"ephemeral-storage": "1Gi"}}], [], "BestEffort"),
        ([FULL], [], "Guaranteed"),
        ([FULL, FULL], [FULL], "Guaranteed"),
        ([FULL, {}], [], "Burstable"),
        ([FULL], [{}], "Burstable"),
        ([{}], [FULL], "Burstable"),
        ([{"limits": {"memory": "1Gi"}}], [], "Burstable"),
        ([{**FULL, "requests": {"cpu": "500m"}}], [], "Burstable"),
        ([{**FULL, "requests": {"cpu": "1000m", "memory": "1024Mi"}}], [], "Guaranteed"),
    ],
)
def test_quality_of_service(containers: list[dict[str, Any]], init: list[dict[str, Any]], qos: str) -> None:
    assert resources.qos_class(pod(*containers, init=init).spec) == qos


@pytest.mark.parametrize(
    ("requests", "spec", "score"),
    [
        ({}, {}, 1000),
        ({"memory": "100"}, {}, 990),
        ({"memory": "1"}, {}, 999),
        ({"cpu": "1"}, {}, 999),
        ({"memory": "10000"}, {}, 3),
        ({"memory": "20000"}, {}, 3),
        ({"memory": "100"}, {"priorityClassName": "system-cluster-critical"}, 990),
        ({"memory": "100"}, {"priorityClassName": "system-node-critical"}, -997),
        ({}, {"priorityClassName": "system-node-critical"}, -997),
        ({"memory": "100"}, {"resources": {"requests": {"memory": "1100"}}}, 890),
    ],
)
def test_oom_score(requests: dict[str, str], spec: dict[str, Any], score: int) -> None:
    made = pod({"requests": requests}, **spec)
    assert resources.oom_score_adj(made.spec, made.containers[0], 10_000) == score


def test_pod_resources_are_the_sum_or_the_largest_init_container() -> None:
    limits = {"limits": {"cpu": "1", "memory": "10"}}
    made = resources.sandbox_resources(pod(limits, limits, init=[{"limits": {"cpu": "3", "memory": "5"}}]))
    assert (made.cpu_quota, made.cpu_shares, made.memory_limit_in_bytes) == (300_000, 3072, 20)


def test_memory_limit_is_known_only_when_all_have_one() -> None:
    limited = {"limits": {"memory": "10"}}
    assert resources.memory_limit(pod(limited, limited).containers) == 20
    assert resources.memory_limit(pod(limited, {}).containers) is None


def sidecar(amount: str) -> dict[str, Any]:
    resources_of = {"limits": {"cpu": amount, "memory": amount}}
    return {"name": "side", "image": "x:1", "restartPolicy": "Always", "resources": resources_of}


def test_sidecars_count_with_the_containers_and_with_the_init_containers_after_them() -> None:
    last = {"name": "last", "image": "x:1", "resources": {"limits": {"cpu": "5"}}}
    made = pod({"limits": {"cpu": "1"}}, initContainers=[sidecar("2"), last])
    assert resources.pod_amount(made.spec, "limits", "cpu") == 7
    made = pod({"limits": {"cpu": "1"}}, initContainers=[last, sidecar("2")])
    assert resources.pod_amount(made.spec, "limits", "cpu") == 5
    made = pod({"limits": {"cpu": "4"}}, initContainers=[sidecar("2")])
    assert resources.pod_amount(made.spec, "limits", "cpu") == 6


def test_a_sidecar_is_killed_no_sooner_than_what_it_serves() -> None:
    made = pod({"requests": {"memory": "5000"}}, initContainers=[sidecar("100")])
    (side,), (main,) = made.init_containers, made.containers
    assert resources.oom_score_adj(made.spec, side, 10_000) == 500
    assert resources.oom_score_adj(made.spec, main, 10_000) == 500


def test_the_pod_as_a_whole_has_the_last_word_of_quality() -> None:
    whole = {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert resources.qos_class(pod({}, resources=whole).spec) == "Guaranteed"
    assert resources.qos_class(pod(FULL, resources={"requests": {"cpu": "2"}}).spec) == "Burstable"


def test_a_pods_request_is_its_containers_or_else_its_limit() -> None:
    made = pod({"requests": {"cpu": "1500m"}}, resources={"limits": {"cpu": "4", "memory": "1Gi"}})
    assert resources.pod_amount(made.spec, "requests", "cpu") == Fraction(3, 2)
    assert resources.pod_amount(made.spec, "requests", "memory") == 1 << 30


def test_huge_pages_are_limited_for_each_size_of_the_node() -> None:
    amounts = {"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}}
    made = pod(amounts, {})
    node = Node(memory=10_000, huge_pages=("2MB", "1GB"))
    first, second = (resources.container_resources(made, one, node) for one in made.containers)
    assert [(one.page_size, one.limit) for one in first.hugepage_limits] == [("2MB", 4 << 20), ("1GB", 0)]
    assert [one.limit for one in second.hugepage_limits] == [0, 0]
    assert not first.unified


def test_on_cgroup_v2_a_container_dies_as_a_whole() -> None:
    made = pod({})
    found = resources.container_resources(made, made.containers[0], Node(cgroup_v2=True))
    assert dict(found.unified) == {"memory.oom.group": "1"}
