"""/proc: what it says about a process, told apart from a later process with the same number."""

from __future__ import annotations

import os
from pathlib import Path


def start_time(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: pid and this name a process until the next reboot.

    Raises ProcessLookupError when there is no such process.
    """
    return int(_stat(pid)[19])


def state(pid: int) -> str:
    """The state letter of proc_pid_stat(5), "Z" for a zombie. Raises ProcessLookupError."""
    return _stat(pid)[0]


def parent(pid: int) -> int:
    """The parent's pid. Raises ProcessLookupError."""
    return int(_stat(pid)[1])


def alive(pid: int, started: int | None = None) -> bool:
    """Whether `pid` runs (a zombie does not) and, when given, is the process that started at `started`."""
    if pid <= 0:
        return False
    try:
        fields = _stat(pid)
    except ProcessLookupError:
        return False
    return fields[0] not in "ZXx" and (started is None or int(fields[19]) == started)


def own_oom_score_adj() -> int:
    """This process's oom_score_adj: without CAP_SYS_RESOURCE the least that a child can get."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def set_oom_score_adj(pid: int, score: int) -> None:
    """Of a process of this kernel; fine when it has ended. PermissionError for less than it may have."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))
    except (FileNotFoundError, ProcessLookupError):
        pass


def ns_inode(path: Path | str) -> int:
    """The number that identifies the namespace behind a pin or /proc/PID/ns/KIND. Raises OSError."""
    return Path(path).stat().st_ino


def boot_id() -> str:
    """Changes with every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str]:
    """The fields after the command, which may itself hold spaces and parentheses."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    return text[text.rindex(b")") + 2 :].decode().split()
