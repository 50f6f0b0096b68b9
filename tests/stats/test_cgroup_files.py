"""Control groups of both versions, read from recorded files in a directory that stands for the mounts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from podwright.linux.cgroups import Layout
from podwright.stats import cgroup_v1, cgroup_v2
from podwright.stats.reading import Device, HugePages, Memory, Pressure, Stall, Swap, content, number, stall

ID = "/pods/c1"

V1 = {
    "cpuacct/cpuacct.usage": "5123456789\n",
    "cpuacct/cpuacct.stat": "user 301\nsystem 211\n",
    "cpu/cpu.stat": "nr_periods 40\nnr_throttled 7\nthrottled_time 1500000000\n",
    "memory/memory.usage_in_bytes": "9437184\n",
    "memory/memory.max_usage_in_bytes": "10485760\n",
    "memory/memory.kmem.usage_in_bytes": "303104\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory/memory.stat": (
        "cache 4096\nrss 8192\nmapped_file 0\nswap 0\npgfault 100\npgmajfault 4\n"
        "inactive_file 0\nactive_file 4096\nhierarchical_memory_limit 134217728\n"
        "hierarchical_memsw_limit 201326592\ntotal_cache 5242880\ntotal_rss 3145728\n"
        "total_mapped_file 1048576\ntotal_swap 65536\ntotal_pgfault 2000\ntotal_pgmajfault 9\n"
        "total_inactive_anon 0\ntotal_active_anon 3145728\ntotal_inactive_file 4194304\n"
        "total_active_file 1048576\ntotal_unevictable 0\n"
    ),
    "pids/pids.current": "5\n",
    "pids/pids.max": "max\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 12288\n8:0 Async 0\n8:0 Total 12288\nTotal 12288\n"
    ),
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb/hugetlb.2MB.max_usage_in_bytes": "4194304\n",
}

PSI = (
    "some avg10=1.50 avg60=0.25 avg300=0.10 total=1234567\n"
    "full avg10=0.50 avg60=0.12 avg300=0.05 total=1000\n"
)
STALL = Stall(Pressure(1234567000, 1.5, 0.25, 0.1), Pressure(1000000, 0.5, 0.12, 0.05))

V2 = {
    "cpu.stat": (
        "usage_usec 5123456\nuser_usec 3010000\nsystem_usec 2113456\nnice_usec 0\n"
        "core_sched.force_idle_usec 0\nnr_periods 40\nnr_throttled 7\n"
        "throttled_usec 1500000\nnr_bursts 0\nburst_usec 0\n"
    ),
    "memory.current": "9437184\n",
    "memory.peak": "10485760\n",
    "memory.max": "134217728\n",
    "memory.swap.current": "65536\n",
    "memory.swap.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n",
    "memory.stat": (
        "anon 3145728\nfile 5242880\nkernel 303104\nkernel_stack 49152\npagetables 81920\npercpu 576\n"
        "sock 0\nfile_mapped 1048576\ninactive_anon 0\nactive_anon 3145728\ninactive_file 4194304\n"
        "active_file 1048576\nunevictable 0\nslab 98304\n"
        "workingset_refault_anon 0\npgfault 2000\npgmajfault 9\n"
    ),
    "pids.current": "5\n",
    "pids.max": "100\n",
    "io.stat": (
        "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n259:3 \n"
        "8:16 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=0 dios=0 cost.usage=5 cost.wait=0\n"
    ),
    "hugetlb.2MB.current": "2097152\n",
    "cpu.pressure": PSI,
    "memory.pressure": PSI,
    "io.pressure": PSI,
}


def written(top: Path, files: Mapping[str, str], path: str = ID) -> None:
    for name, text in files.items():
        controller, _, file = name.rpartition("/")
        target = top / controller / path.lstrip("/") / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def v1(top: Path, files: Mapping[str, str] = V1, unified: bool = False) -> Layout:
    written(top, files)
    names = {name.partition("/")[0] for name in files}
    return Layout(
        1,
        unified,
        top / "unified" if unified else None,
        frozenset(),
        {name: top / name for name in sorted(names)},
    )


def v2(top: Path, files: Mapping[str, str] = V2) -> str:
    written(top, files)
    return f"{top}{ID}"


MEMORY = Memory(9437184, 9437184 - 4194304, 3145728, 2000, 9, 134217728)


def test_v1(tmp_path: Path) -> None:
    found = cgroup_v1.read(ID, v1(tmp_path))
    assert found is not None
    assert found.cpu == 5123456789 and found.memory == MEMORY
    assert found.swap == Swap(65536, 201326592 - 134217728), "v1 limits memory and swap together"
    assert (found.cpu_stall, found.memory_stall, found.io_stall) == (None, None, None)
    assert cgroup_v1.pids(ID, v1(tmp_path)) == 5


def test_v2(tmp_path: Path) -> None:
    found = cgroup_v2.read(v2(tmp_path))
    assert found is not None
    assert found.cpu == 5123456000 and found.memory == MEMORY
    assert found.swap == Swap(65536, None)
    assert (found.cpu_stall, found.memory_stall, found.io_stall) == (STALL, STALL, STALL)


def test_detail_of_v1(tmp_path: Path) -> None:
    found = cgroup_v1.detail(ID, v1(tmp_path), ("2MB", "1GB"))
    assert (found.user, found.system) == (3_010_000_000, 2_110_000_000)
    assert (found.periods, found.throttled_periods, found.throttled) == (40, 7, 1_500_000_000)
    assert (found.cache, found.kernel, found.mapped_file) == (5242880, 303104, 1048576)
    assert (found.active_file, found.inactive_file) == (1048576, 4194304)
    assert (found.max_usage, found.limit_hits, found.oom_kills) == (10485760, 3, 2)
    assert found.faults == (100, 4), "without the cgroups below"
    assert (found.pids, found.pids_limit) == (5, None)
    [device] = found.devices
    assert (device.major, device.minor) == (8, 0)
    assert device.bytes["Read"] == 4096 and device.bytes["Total"] == 12288
    assert device.operations == {"Read": 1, "Write": 2, "Total": 3}
    assert found.huge_pages == (HugePages("2MB", 2097152, 4194304),)


def test_detail_of_v2(tmp_path: Path) -> None:
    found = cgroup_v2.detail(v2(tmp_path), ("2MB",))
    assert (found.user, found.system) == (3_010_000_000, 2_113_456_000)
    assert (found.periods, found.throttled_periods, found.throttled) == (40, 7, 1_500_000_000)
    assert (found.cache, found.kernel, found.mapped_file) == (5242880, 303104, 1048576)
    assert (found.active_file, found.inactive_file) == (1048576, 4194304)
    assert (found.max_usage, found.limit_hits, found.oom_kills) == (10485760, 3, 2)
    assert found.faults == (2000, 9)
    assert (found.pids, found.pids_limit) == (5, 100)
    assert found.devices == (
        Device(8, 0, {"Read": 4096, "Write": 8192, "Discard": 0}, {"Read": 1, "Write": 2, "Discard": 0}),
        Device(8, 16, {"Read": 1, "Write": 0, "Discard": 0}, {"Read": 1, "Write": 0, "Discard": 0}),
    ), "a device without figures is left out"
    assert found.huge_pages == (HugePages("2MB", 2097152, None),)


def test_kernel_memory_before_the_kernel_summed_it_up(tmp_path: Path) -> None:
    files = {**V2, "memory.stat": V2["memory.stat"].replace("kernel 303104\n", "")}
    assert cgroup_v2.detail(v2(tmp_path, files), ()).kernel == 98304 + 49152 + 81920 + 576


def test_a_hybrid_host_has_pressure_and_what_v1_let_go_in_the_unified_hierarchy(tmp_path: Path) -> None:
    files = {name: text for name, text in V1.items() if not name.startswith("hugetlb/")}
    where = v1(tmp_path, files, unified=True)
    found = cgroup_v1.read(ID, where)
    assert found is not None and found.cpu_stall is None, "this runtime made no cgroup there"
    written(tmp_path / "unified", {name: V2[name] for name in V2 if "pressure" in name or "hugetlb" in name})
    found = cgroup_v1.read(ID, where)
    assert found is not None
    assert (found.cpu_stall, found.memory_stall, found.io_stall) == (STALL, STALL, STALL)
    assert cgroup_v1.detail(ID, where, ("2MB",)).huge_pages == (HugePages("2MB", 2097152, None),)


@pytest.mark.parametrize(
    ("usage", "inactive", "working_set"), [(100, 30, 70), (100, 100, 0), (100, 101, 0), (0, 4096, 0)]
)
def test_a_working_set_is_never_negative(tmp_path: Path, usage: int, inactive: int, working_set: int) -> None:
    v2_files = {**V2, "memory.current": f"{usage}\n"}
    v2_files["memory.stat"] = v2_files["memory.stat"].replace(
        "inactive_file 4194304", f"inactive_file {inactive}"
    )
    found = cgroup_v2.read(v2(tmp_path / "2", v2_files))
    assert found is not None and found.memory is not None and found.memory.working_set == working_set
    v1_files = {**V1, "memory/memory.usage_in_bytes": f"{usage}\n"}
    v1_files["memory/memory.stat"] = v1_files["memory/memory.stat"].replace(
        "total_inactive_file 4194304", f"total_inactive_file {inactive}"
    )
    found = cgroup_v1.read(ID, v1(tmp_path / "1", v1_files))
    assert found is not None and found.memory is not None and found.memory.working_set == working_set


def test_no_limit_is_none(tmp_path: Path) -> None:
    unlimited = V1["memory/memory.stat"].replace("134217728", "9223372036854771712")
    found = cgroup_v1.read(ID, v1(tmp_path / "1", {**V1, "memory/memory.stat": unlimited}))
    assert found is not None and found.memory is not None and found.swap is not None
    assert found.memory.limit is None and found.swap.limit is None
    again = cgroup_v2.read(v2(tmp_path / "2", {**V2, "memory.max": "max\n", "memory.swap.max": "0\n"}))
    assert again is not None and again.memory is not None and again.swap is not None
    assert again.memory.limit is None and again.swap.limit == 0, "no swap is a limit"


def test_what_a_host_does_not_have_is_none_not_zero(tmp_path: Path) -> None:
    """Controllers that are not handed down, a kernel without swap accounting or pressure."""
    few = {name: text for name, text in V2.items() if name in ("cpu.stat", "memory.current", "memory.stat")}
    found = cgroup_v2.read(v2(tmp_path / "2", few))
    assert found is not None and found.swap is None and found.cpu_stall is None
    bare = cgroup_v2.read(v2(tmp_path / "3", {"cpu.stat": "usage_usec 5\nuser_usec 5\nsystem_usec 0\n"}))
    assert bare is not None and bare.cpu == 5000 and bare.memory is None and bare.swap is None
    detail = cgroup_v2.detail(v2(tmp_path / "4", {"cpu.stat": "usage_usec 5\n"}), ("2MB",))
    assert detail.periods is None and detail.cache is None and detail.pids is None
    assert detail.oom_kills is None and detail.devices == () and detail.huge_pages == ()
    swapless = V1["memory/memory.stat"].replace("total_swap 65536\n", "")
    old = cgroup_v1.read(ID, v1(tmp_path / "1", {**V1, "memory/memory.stat": swapless}))
    assert old is not None and old.swap is None and old.memory == MEMORY
    where = v1(tmp_path / "5", {"cpuacct/cpuacct.usage": "7\n"})
    only = cgroup_v1.read(ID, where)
    assert only is not None and only.cpu == 7 and only.memory is None
    assert cgroup_v1.pids(ID, where) is None and cgroup_v1.detail(ID, where, ()).kernel is None


def test_a_cgroup_that_is_gone_is_none(tmp_path: Path) -> None:
    where = v1(tmp_path / "1")
    assert cgroup_v1.read("/pods/other", where) is None
    assert cgroup_v2.read(f"{tmp_path}/2/pods/other") is None


def test_pressure_without_a_full_line(tmp_path: Path) -> None:
    """cpu.pressure before Linux 5.13."""
    file = tmp_path / "cpu.pressure"
    file.write_text(PSI.splitlines()[0] + "\n")
    assert stall(str(file)) == Stall(STALL.some, Pressure(0, 0.0, 0.0, 0.0))
    file.write_text("")
    assert stall(str(file)) is None and stall(str(tmp_path / "none")) is None


def test_files_that_are_no_numbers(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for text, value in (("5\n", 5), ("-1\n", -1), ("max\n", None), ("", None), ("1 2\n", None)):
        file.write_text(text)
        assert number(str(file)) == value, text
    assert number(str(tmp_path / "none")) is None
    assert content(str(tmp_path)) is None, "a directory"
