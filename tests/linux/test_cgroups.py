"""Cgroup paths for both drivers and both versions; on this host the cgroups themselves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import cgroups, mounts, proc, spawn


@pytest.mark.parametrize(
    ("driver", "parent", "path", "location"),
    [
        ("cgroupfs", "/kubepods/pod1", "/kubepods/pod1/ID", "/kubepods/pod1/ID"),
        ("cgroupfs", "podwright/", "/podwright/ID", "/podwright/ID"),
        ("cgroupfs", "", "/ID", "/ID"),
        (
            "systemd",
            "/kubepods.slice/kubepods-pod1.slice",
            "kubepods-pod1.slice:podwright:ID",
            "/kubepods.slice/kubepods-pod1.slice/podwright-ID.scope",
        ),
        ("systemd", "", "system.slice:podwright:ID", "/system.slice/podwright-ID.scope"),
        ("systemd", "-.slice", "-.slice:podwright:ID", "/podwright-ID.scope"),
        (
            "systemd",
            "a-b-c.slice",
            "a-b-c.slice:podwright:ID",
            "/a.slice/a-b.slice/a-b-c.slice/podwright-ID.scope",
        ),
    ],
)
def test_container_paths(driver: str, parent: str, path: str, location: str) -> None:
    assert cgroups.container_path(driver, parent, "ID") == path
    assert cgroups.location(path) == location


@pytest.mark.parametrize(("driver", "parent"), [("systemd", "/kubepods"), ("cgroupfs", "/a/../../b")])
def test_impossible_parents_are_refused(driver: str, parent: str) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.linux\.cgroup_parent"):
        cgroups.container_path(driver, parent, "ID")


@given(st.text(st.sampled_from("ab./-"), max_size=20))
def test_a_cgroupfs_path_never_leaves_the_hierarchy(parent: str) -> None:
    try:
        path = cgroups.container_path("cgroupfs", parent, "ID")
    except InvalidArgument:
        assert ".." in parent
        return
    assert path.startswith("/") and path.endswith("/ID")
    assert os.path.normpath(path) == path


def test_the_root_is_nobodys_cgroup(tmp_path: Path) -> None:
    """A container whose cgroup is not known has ""; the whole host must not be taken for it."""
    with subprocess.Popen(["sleep", "100"]) as stranger:
        try:
            for root in ("a", "b"):
                (tmp_path / root / "inner").mkdir(parents=True)
                (tmp_path / root / "cgroup.procs").write_text(f"{stranger.pid}\n")
            where = cgroups.Layout(
                1, False, None, frozenset(), {name: tmp_path / name for name in ("a", "b")}
            )
            for path in ("", "/", "//", "/./"):
                assert cgroups.pids(path, where) == set()
                assert cgroups.kill_all(path, where) == set()
                cgroups.remove(path, where)
            assert stranger.poll() is None
            assert (tmp_path / "a" / "inner").is_dir()
        finally:
            stranger.kill()


V1 = (
    "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "2 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "3 1 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n"
)
V2 = "2 1 0:2 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_detection_of_versions(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    pure = cgroups.detect(mounts.parse_table(V2.format(tmp_path)))
    assert (pure.version, pure.hybrid, pure.roots) == (2, False, [tmp_path])
    assert pure.has("memory") and not pure.has("hugetlb")

    legacy = cgroups.detect(mounts.parse_table(V1))
    assert (legacy.version, legacy.hybrid, legacy.unified) == (1, False, None)
    assert legacy.roots == [Path("/sys/fs/cgroup/cpu,cpuacct"), Path("/sys/fs/cgroup/systemd")]
    assert set(legacy.controllers) == {"cpu", "cpuacct", "name=systemd"}

    hybrid = cgroups.detect(mounts.parse_table(V1 + V2.format(tmp_path)))
    assert (hybrid.version, hybrid.hybrid) == (1, True)

    with pytest.raises(FailedPrecondition, match="mount cgroup2"):
        cgroups.detect([])


def test_v2_counts_oom_kills_and_knows_swap(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory")
    host = cgroups.detect(mounts.parse_table(V2.format(tmp_path)))
    assert cgroups.memory_oom_kills("/pod", host) == 0
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "memory.current").write_text("0\n")
    assert not cgroups.swap_controller(host)
    (tmp_path / "pod" / "memory.events").write_text("low 0\noom 2\noom_kill 3\noom_group_kill 0\n")
    (tmp_path / "pod" / "memory.swap.max").write_text("max\n")
    assert cgroups.memory_oom_kills("/pod", host) == 3
    assert cgroups.swap_controller(host)


def test_v2_has_swap_before_any_cgroup_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server is in the root cgroup and its first container makes the first one below it."""
    (tmp_path / "cgroup.controllers").write_text("memory")
    host = cgroups.detect(mounts.parse_table(V2.format(tmp_path)))
    monkeypatch.setattr(cgroups, "SWAPS", tmp_path / "swaps")
    assert not cgroups.swap_controller(host)
    (tmp_path / "swaps").write_text("Filename\n")
    assert cgroups.swap_controller(host)


def test_v2_hands_controllers_down(tmp_path: Path) -> None:
    for name in ("cgroup.controllers", "cgroup.subtree_control"):
        (tmp_path / name).write_text("cpu memory" if name == "cgroup.controllers" else "cpu")
    host = cgroups.detect(mounts.parse_table(V2.format(tmp_path)))
    cgroups.create("/a/b", host)
    assert (tmp_path / "a" / "b").is_dir()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"


@pytest.fixture
def group() -> Iterator[str]:
    path = f"/podwright-test-{os.getpid()}/inner"
    cgroups.create(path)
    yield path
    cgroups.remove(path.rpartition("/")[0])
    assert cgroups.directories(path.rpartition("/")[0]) == []


@pytest.mark.root
async def test_a_cgroup_lives_in_every_hierarchy_from_its_root(group: str) -> None:
    assert len(cgroups.directories(group)) == len(cgroups.layout().roots)
    cgroups.create(group)
    child = subprocess.Popen(["sleep", "1000"])  # noqa: ASYNC220
    cgroups.join(group, child.pid)
    assert cgroups.pids(group) == {child.pid}
    assert cgroups.pids(group.rpartition("/")[0]) == {child.pid}
    with pytest.raises(FailedPrecondition, match=f"processes are in it \\({child.pid}\\)"):
        cgroups.remove(group)
    cgroups.prune(group)
    assert cgroups.directories(group)
    assert cgroups.kill_all(group) == {child.pid}
    await spawn.exited(child.pid)
    assert child.wait() == -signal.SIGKILL
    cgroups.remove(group)
    cgroups.remove(group)
    assert cgroups.pids(group) == set()
    assert cgroups.kill_all(group) == set()


@pytest.mark.root
async def test_a_process_that_forks_all_the_time_is_killed_too(group: str) -> None:
    ready, signal_end = os.pipe()
    script = f"read go; echo >&{signal_end}; while :; do sleep 0.01 & wait; done"
    child = subprocess.Popen(  # noqa: ASYNC220
        ["sh", "-c", script], pass_fds=[signal_end], stdin=subprocess.PIPE
    )
    assert child.stdin is not None
    cgroups.join(group, child.pid)
    child.stdin.write(b"go\n")
    child.stdin.close()
    os.close(signal_end)
    os.read(ready, 1)
    os.close(ready)
    for pid in cgroups.kill_all(group):
        await spawn.exited(pid)
    child.wait()
    assert cgroups.pids(group) == set()


@pytest.mark.root
def test_this_host_reports_memory_and_swap() -> None:
    assert isinstance(cgroups.swap_controller(), bool)
    assert cgroups.memory_oom_kills("/no/such/group") == 0
    assert proc.alive(os.getpid())


def test_what_a_runtime_made_in_the_unified_hierarchy_of_a_hybrid_host_goes_too(tmp_path: Path) -> None:
    cpu, unified = tmp_path / "cpu", tmp_path / "unified"
    for each in (cpu, unified):
        (each / "parent" / "pod").mkdir(parents=True)
    layout = cgroups.Layout(1, True, unified, frozenset({"hugetlb"}), {"cpu": cpu})
    cgroups.remove("/parent/pod", layout)
    cgroups.prune("/parent", layout)
    assert list(unified.iterdir()) == list(cpu.iterdir()) == []
    cgroups.create("/own", layout)
    assert not (unified / "own").exists()  # its controllers are elsewhere: nothing of ours belongs there
