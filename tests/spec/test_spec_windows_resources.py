"""Windows: limits, and what an update makes of them."""

from __future__ import annotations

import pytest

from podwright.errors import InvalidArgument
from podwright.spec.windows.inputs import WindowsHandler
from podwright.spec.windows.resources import merge, rootfs_labels, to_oci
from podwright.wire import cri_pb2 as cri
from tests.spec.windows_pods import build, container


def test_resources() -> None:
    limits = cri.WindowsContainerResources(
        cpu_count=2, memory_limit_in_bytes=1 << 30, rootfs_size_in_bytes=20 << 30
    )
    limits.affinity_cpus.add(cpu_mask=2**64 - 1)
    limits.affinity_cpus.add(cpu_mask=3, cpu_group=1)
    built = build(container(limits))
    assert built.spec["windows"]["resources"] == {
        "cpu": {"count": 2, "affinity": [{"mask": 2**64 - 1}, {"mask": 3, "group": 1}]},
        "memory": {"limit": 1 << 30},
    }
    assert built.spec["ociVersion"] == "1.3.0"
    assert built.warnings == ()
    assert "resources" not in build(container()).spec["windows"]


def test_the_size_of_the_rootfs_is_a_label_of_the_snapshot() -> None:
    limits = cri.WindowsContainerResources(rootfs_size_in_bytes=20 << 30)
    assert rootfs_labels(container(limits)) == {
        "containerd.io/snapshot/windows/rootfs.sizebytes": "21474836480"
    }
    assert rootfs_labels(container()) == {}
    assert "resources" not in build(container(limits)).spec["windows"]


def test_cpu_limits_that_exclude_each_other_are_passed_with_a_warning() -> None:
    limits = cri.WindowsContainerResources(cpu_count=2, cpu_shares=500, cpu_maximum=5000)
    built = build(container(limits))
    assert built.spec["windows"]["resources"]["cpu"] == {"count": 2, "shares": 500, "maximum": 5000}
    assert any("cpu_count, cpu_maximum, cpu_shares" in warning for warning in built.warnings)
    assert build(container(limits), windows=WindowsHandler(hyperv=True)).warnings == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_shares", 10_001),
        ("cpu_shares", -1),
        ("cpu_maximum", 65536),
        ("cpu_maximum", -1),
        ("cpu_count", -1),
        ("memory_limit_in_bytes", -1),
        ("rootfs_size_in_bytes", -1),
    ],
)
def test_limits_out_of_range(name: str, value: int) -> None:
    limits = cri.WindowsContainerResources()
    setattr(limits, name, value)
    with pytest.raises(InvalidArgument, match=rf"config\.windows\.resources\.{name}: {value}"):
        build(container(limits))


def test_an_affinity_to_no_processor_is_refused() -> None:
    limits = cri.WindowsContainerResources()
    limits.affinity_cpus.add(cpu_group=1)
    with pytest.raises(InvalidArgument, match=r"affinity_cpus\[0\]\.cpu_mask"):
        build(container(limits))


def test_an_update_changes_what_it_sets() -> None:
    old = cri.WindowsContainerResources(
        cpu_count=2, memory_limit_in_bytes=100, rootfs_size_in_bytes=7, cpu_shares=10
    )
    old.affinity_cpus.add(cpu_mask=1)
    old.affinity_cpus.add(cpu_mask=1, cpu_group=1)
    new = cri.WindowsContainerResources(memory_limit_in_bytes=200, cpu_shares=20, rootfs_size_in_bytes=9)
    before = old.SerializeToString(), new.SerializeToString()
    merged = merge(old, new)
    assert to_oci(merged) == {
        "cpu": {"count": 2, "shares": 20, "affinity": [{"mask": 1}, {"mask": 1, "group": 1}]},
        "memory": {"limit": 200},
    }
    assert merged.rootfs_size_in_bytes == 7
    new.affinity_cpus.add(cpu_mask=4)
    assert to_oci(merge(old, new))["cpu"]["affinity"] == [{"mask": 4}]
    del new.affinity_cpus[:]
    assert (old.SerializeToString(), new.SerializeToString()) == before
