"""Processes are told apart from later ones with the same number; capabilities have their names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from podwright.linux import caps, proc


def test_a_process_is_known_by_pid_and_start() -> None:
    own = os.getpid()
    started = proc.start_time(own)
    assert proc.alive(own) and proc.alive(own, started)
    assert not proc.alive(own, started + 1)
    assert not proc.alive(0)
    assert proc.parent(own) == os.getppid()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert proc.state(child.pid) == "Z"
    assert not proc.alive(child.pid)
    child.wait()
    with pytest.raises(ProcessLookupError, match=f"no process {child.pid}"):
        proc.start_time(child.pid)


def test_a_command_with_parentheses_and_spaces_is_no_riddle(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "1000"]) as child:
        assert proc.parent(child.pid) == os.getpid()
        assert proc.alive(child.pid, proc.start_time(child.pid))
        child.kill()


def test_own_values() -> None:
    assert -1000 <= proc.own_oom_score_adj() <= 1000
    assert proc.ns_inode("/proc/self/ns/net") == proc.ns_inode(Path("/proc/thread-self/ns/net"))
    assert len(proc.boot_id()) == 36


def test_capability_names_follow_the_kernels_numbers() -> None:
    assert caps.names(0b1001) == ["CAP_CHOWN", "CAP_FOWNER"]
    assert caps.names(1 << 40) == ["CAP_CHECKPOINT_RESTORE"]
    assert caps.names(1 << 21 | 1 << 63) == ["CAP_SYS_ADMIN"]
    assert len(set(caps.NAMES)) == 41
    assert set(caps.effective()) <= set(caps.NAMES)
    assert isinstance(caps.bounding(), list)
