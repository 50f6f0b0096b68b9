"""The cgroups of pods: names and amounts by the kubelet's rules, and what the kernel has of them."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright.kube.failures import Failure
from podwright.kube.files import pod_cgroups
from podwright.kube.files.pod_cgroups import PodLimits
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import ObjectMeta
from podwright.kube.node import Node
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri
from tests.kube.volume_pods import UID, node, pod, recordings


def with_resources(*each: dict[str, Any], init: list[dict[str, Any]] | None = None, **spec: Any) -> Manifest:
    """A Pod of containers with these resources, and init containers with those of `init`."""
    container = {"image": "x:1"}
    return pod(
        [],
        containers=[{**container, "name": f"c{n}", "resources": one} for n, one in enumerate(each)],
        initContainers=[
            {**container, "name": f"i{n}", "resources": one.get("resources", one), **one.get("more", {})}
            for n, one in enumerate(init or [])
        ],
        **spec,
    )


def both(**amounts: str) -> dict[str, Any]:
    return {"limits": amounts, "requests": amounts}


BURSTABLE = {"requests": {"cpu": "100m", "memory": "10Mi"}, "limits": {"cpu": "200m", "memory": "20Mi"}}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (with_resources({}), PodLimits(2)),
        (with_resources(both(cpu="500m", memory="64Mi")), PodLimits(512, 50_000, 64 << 20)),
        (with_resources(BURSTABLE, BURSTABLE), PodLimits(204, 40_000, 40 << 20)),
        # One container without a limit, and the pod has none.
        (with_resources(BURSTABLE, {"limits": {"cpu": "1"}, "requests": {}}), PodLimits(102, 120_000)),
        (with_resources(BURSTABLE, {}), PodLimits(102)),
        (with_resources(BURSTABLE, init=[{}]), PodLimits(102)),
        # What an init container needs at its most counts; a sidecar stays beside the others.
        (with_resources(BURSTABLE, init=[both(cpu="1", memory="1Gi")]), PodLimits(1024, 100_000, 1 << 30)),
        (
            with_resources(
                BURSTABLE,
                init=[{"resources": both(cpu="1", memory="1Gi"), "more": {"restartPolicy": "Always"}}],
            ),
            PodLimits(1126, 120_000, (1 << 30) + (20 << 20)),
        ),
        # Resources of the pod as a whole, and what its runtime class costs.
        (
            with_resources({}, resources={"limits": {"memory": "32Mi"}, "requests": {"cpu": "250m"}}),
            PodLimits(256, None, 32 << 20),
        ),
        (
            with_resources(BURSTABLE, overhead={"cpu": "100m", "memory": "5Mi"}),
            PodLimits(204, 30_000, 25 << 20),
        ),
        (
            with_resources(both(cpu="1", memory="1Mi", **{"hugepages-2Mi": "4Mi"})),
            PodLimits(1024, 100_000, 1 << 20, {"2MB": 4 << 20}),
        ),
    ],
)
def test_amounts(manifest: Manifest, expected: PodLimits) -> None:
    assert pod_cgroups.limits(manifest) == expected


@pytest.mark.parametrize(
    ("resources", "driver", "expected"),
    [
        ({}, "cgroupfs", f"/kubepods/besteffort/pod{UID}"),
        (BURSTABLE, "cgroupfs", f"/kubepods/burstable/pod{UID}"),
        (both(cpu="1", memory="1Mi"), "cgroupfs", f"/kubepods/pod{UID}"),
        (
            {},
            "systemd",
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice",
        ),
        (
            both(cpu="1", memory="1Mi"),
            "systemd",
            f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice",
        ),
    ],
)
def test_names(tmp_path: Path, resources: dict[str, Any], driver: Any, expected: str) -> None:
    here = node(tmp_path, cgroup_root="", cgroup_driver=driver, make_cgroups=True)
    assert pod_cgroups.parent(with_resources(resources), here) == expected
    assert pod_cgroups.parent(with_resources(resources), replace(here, make_cgroups=False)) == ""


def test_recorded_pods_have_the_recorded_parents(tmp_path: Path) -> None:
    here = node(tmp_path, cgroup_root="", make_cgroups=True)
    checked = 0
    for case in recordings():
        for call in case.calls:
            linux = call.get("request", {}).get("config", {}).get("linux", {})
            if call.get("call") == "RunPodSandbox":
                manifest = case.manifest()
                fill_requests(manifest)
                assert pod_cgroups.parent(manifest, here).replace(UID, "${POD_UID}") == linux["cgroup_parent"]
                checked += 1
    assert checked > 100


def fill_requests(manifest: Manifest) -> None:
    """As the API server does: without a request the limit is asked for."""
    for container in [*manifest.init_containers, *manifest.containers]:
        if container.resources is not None and container.resources.limits:
            container.resources.requests = {
                **container.resources.limits,
                **(container.resources.requests or {}),
            }


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 20, 10_000)],
)
def test_ends_and_default_of_weights(shares: int, weight: int) -> None:
    assert pod_cgroups.weight(shares) == weight


def test_more_shares_never_weigh_less() -> None:
    weights = [pod_cgroups.weight(shares) for shares in range(0, 300_000, 7)]
    assert weights == sorted(weights)
    assert len(set(weights)) > 5000


def test_without_cgroups_nothing_happens(tmp_path: Path) -> None:
    here = node(tmp_path, make_cgroups=False)
    made = with_resources({})
    pod_cgroups.make(made, here)
    pod_cgroups.update(made, here)
    pod_cgroups.remove(made, here)
    assert list(tmp_path.iterdir()) == []


# On a unified hierarchy of plain files: which are written, and with what


@pytest.fixture
def unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = cgroups.Layout(2, False, tmp_path, frozenset({"cpu", "memory", "hugetlb"}), {})
    monkeypatch.setattr(cgroups, "layout", lambda: where)
    return tmp_path


FILES = ("cpu.weight", "cpu.max", "memory.max", "hugetlb.2MB.max", "hugetlb.1GB.max")


def laid_out(unified: Path, path: str) -> Path:
    """The directory of a cgroup with the files that a kernel would show."""
    place = unified / path.lstrip("/")
    for directory in (place, place.parent):
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (directory / name).write_text("")
    return place


def test_a_unified_hierarchy_gets_weights_and_maxima(unified: Path) -> None:
    here = node(unified, cgroup_root="/r", make_cgroups=True, huge_pages=("2MB", "1GB"))
    made = with_resources({**BURSTABLE, "limits": {**BURSTABLE["limits"], "hugepages-2Mi": "4Mi"}})
    fill_requests(made)
    place = laid_out(unified, pod_cgroups.parent(made, here))
    pod_cgroups.make(made, here)
    found = {name: (place / name).read_text() for name in FILES}
    assert found == {
        "cpu.weight": "17",
        "cpu.max": "20000 100000",
        "memory.max": str(20 << 20),
        "hugetlb.2MB.max": str(4 << 20),
        "hugetlb.1GB.max": "0",
    }
    assert (place.parent / "cpu.weight").read_text() == "17"


def test_a_limit_can_be_taken_away(unified: Path) -> None:
    here = node(unified, cgroup_root="/r", make_cgroups=True)
    place = laid_out(unified, pod_cgroups.parent(with_resources(BURSTABLE), here))
    pod_cgroups.make(with_resources({"requests": {"cpu": "1"}}), here)
    assert (place / "cpu.max").read_text() == "max 100000"
    assert (place / "memory.max").read_text() == "max"


def test_amounts_on_the_way_of_a_resize(unified: Path) -> None:
    here = node(unified, cgroup_root="/r", make_cgroups=True)
    made = with_resources(BURSTABLE)
    place = laid_out(unified, pod_cgroups.parent(made, here))
    pod_cgroups.update(
        made, here, cri.LinuxContainerResources(cpu_shares=1024, memory_limit_in_bytes=1 << 30)
    )
    assert [(place / name).read_text() for name in FILES[:3]] == ["100", "max 100000", str(1 << 30)]


# The kernel's


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Node]:
    root = f"/podwright-test-{secrets.token_hex(4)}"
    yield node(tmp_path, cgroup_root=root, make_cgroups=True)
    left = cgroups.directories(f"{root}/kubepods")
    cgroups.remove(root)
    assert left == []


def value(path: str, name: str) -> str:
    """What the kernel has, whatever its version of cgroups calls it."""
    v1 = {"cpu.weight": "cpu.shares", "memory.max": "memory.limit_in_bytes", "cpu.max": "cpu.cfs_quota_us"}
    name = v1[name] if cgroups.layout().version == 1 else name
    return (cgroups.directory(path, name.partition(".")[0]) / name).read_text().split()[0]


def shares(number: int) -> str:
    return str(number if cgroups.layout().version == 1 else pod_cgroups.weight(number))


@pytest.mark.root
def test_a_pod_s_cgroup_is_made_with_its_limits_and_goes_with_its_processes(here: Node) -> None:
    made = with_resources(BURSTABLE)
    path = pod_cgroups.parent(made, here)
    for _ in range(2):
        pod_cgroups.make(made, here)
    assert (value(path, "cpu.weight"), value(path, "cpu.max")) == (shares(102), "20000")
    assert value(path, "memory.max") == str(20 << 20)
    cgroups.create(f"{path}/container")
    with subprocess.Popen(["sleep", "600"]) as process:
        cgroups.join(f"{path}/container", process.pid)
        pod_cgroups.remove(made, here)
        assert process.wait(timeout=60) == -9
    assert cgroups.directories(path) == []
    pod_cgroups.remove(made, here)


@pytest.mark.root
def test_a_pod_of_which_only_the_uid_is_known(here: Node) -> None:
    for one in (with_resources(BURSTABLE), with_resources({}), with_resources(both(cpu="1", memory="64Mi"))):
        path = pod_cgroups.parent(one, here)
        pod_cgroups.make(one, here)
        for uid in ("another", "", "..", "a/b"):
            pod_cgroups.discard(here, uid)
        assert cgroups.directories(path) != []
        pod_cgroups.discard(here, UID)
        assert cgroups.directories(path) == []


@pytest.mark.root
def test_burstable_pods_weigh_what_they_ask_for_together(here: Node) -> None:
    pods = [with_resources(BURSTABLE), with_resources({"requests": {"cpu": "1"}})]
    for number, one in enumerate(pods):
        metadata = one.pod.metadata
        assert isinstance(metadata, ObjectMeta)
        metadata.uid = f"uid-{number}"
    above = str(Path(pod_cgroups.parent(pods[0], here)).parent)
    pod_cgroups.make(pods[0], here)
    assert value(above, "cpu.weight") == shares(102)
    pod_cgroups.make(pods[1], here)
    assert value(above, "cpu.weight") == shares(1126)
    pod_cgroups.remove(pods[0], here)
    assert value(above, "cpu.weight") == shares(1024)
    best = with_resources({})
    pod_cgroups.make(best, here)
    assert value(str(Path(pod_cgroups.parent(best, here)).parent), "cpu.weight") == shares(2)
    pod_cgroups.remove(best, here)
    pod_cgroups.remove(pods[1], here)


@pytest.mark.root
def test_more_memory_than_before_and_none_to_speak_of(here: Node) -> None:
    made, path = with_resources(BURSTABLE), pod_cgroups.parent(with_resources(BURSTABLE), here)
    pod_cgroups.make(made, here)
    limits = {**BURSTABLE["limits"], "memory": "30Mi"}
    pod_cgroups.update(with_resources({**BURSTABLE, "limits": limits}), here)
    assert value(path, "memory.max") == str(30 << 20)
    pod_cgroups.remove(made, here)


@pytest.mark.root
def test_a_cgroup_that_cannot_be_made_has_the_kubelet_s_reason(tmp_path: Path) -> None:
    here = node(tmp_path, cgroup_root="/..", make_cgroups=True)
    with pytest.raises(Failure, match="unable to ensure pod container exists") as failed:
        pod_cgroups.make(with_resources({}), here)
    assert failed.value.reason == "FailedToCreatePodContainer"


@pytest.mark.root
@pytest.mark.parametrize(
    "root, left",
    [
        ("/podwright-test-{}", ["/podwright-test-{}"]),
        ("/podwright-test-{}/deep", ["/podwright-test-{}/deep"]),
    ],
)
def test_the_last_pod_takes_what_was_made_above_it(tmp_path: Path, root: str, left: list[str]) -> None:
    mark = secrets.token_hex(4)
    here = node(tmp_path, cgroup_root=root.format(mark), make_cgroups=True)
    pod_cgroups.make(with_resources(BURSTABLE), here)
    pod_cgroups.remove(with_resources(BURSTABLE), here)
    try:
        assert all(cgroups.directories(each.format(mark)) for each in left)
        assert not cgroups.directories(f"{here.cgroup_root}/kubepods")
    finally:
        cgroups.remove(f"/podwright-test-{mark}")
