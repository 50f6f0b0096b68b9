"""How a Docker Engine of the tests goes away, and comes back on the same files."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from podwright.linux import cgroups, mounts, proc
from tests.containerd.daemon import shim_socket
from tests.docker.daemon import Daemon, start

PATIENCE = 60.0
"""Seconds."""


def power_off(daemon: Daemon) -> None:
    """End dockerd and all that it runs at this very instruction; of mounts and cgroups nothing is left."""
    exec_root = daemon.socket.parent / "x"
    own = [pid for pid in _pids() if str(exec_root) in _command(pid)]
    shims = {pid for pid in own if "shim" in _command(pid)}
    inside = [pid for pid in _pids() if pid not in own and _parent(pid) in shims]
    places = {_cgroup(pid) for pid in inside} - {""}
    bundles = exec_root.glob("containerd/daemon/io.containerd.runtime.v2.task/*/*")
    sockets = [socket for each in bundles if (socket := shim_socket(each)) is not None]
    _kill([daemon.process.pid, *own, *inside])
    for socket in sockets:
        socket.unlink(missing_ok=True)  # below /run
    for place in places:
        for directory in cgroups.directories(place):
            directory.rmdir()
    daemon.process.wait()
    mounts.unmount_below(daemon.socket.parent)
    for mount in reversed(mounts.mounts_below(daemon.directory)):
        if mount.target != str(daemon.root):
            mounts.unmount(Path(mount.target))
    shutil.rmtree(exec_root)
    # Of a machine that has no power for a moment no process keeps its number; dockerd looks at this file.
    (daemon.socket.parent / "pid").unlink(missing_ok=True)


def kill(daemon: Daemon) -> None:
    """End dockerd and its containerd; containers run on, with nobody to hear of their ends."""
    exec_root = daemon.socket.parent / "x"
    own = [pid for pid in _pids() if str(exec_root) in _command(pid) and "shim" not in _command(pid)]
    _kill([daemon.process.pid, *own])
    daemon.process.wait()
    # A dead containerd that nobody has reaped yet would be waited for.
    (exec_root / "containerd" / "containerd.pid").unlink(missing_ok=True)


def start_again(daemon: Daemon, options: Sequence[str] = ()) -> None:
    daemon.process = start(daemon.directory, options).process


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    give_up = time.monotonic() + PATIENCE
    while any(proc.alive(pid) for pid in pids):
        assert time.monotonic() < give_up, "they do not end"
        time.sleep(0.01)


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text().splitlines()[0].split(":", 2)[2]
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return proc.parent(pid)
    except ProcessLookupError:
        return 0
