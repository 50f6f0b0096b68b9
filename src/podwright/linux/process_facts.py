"""What the kernel shows of one process: credentials, limits, namespaces, mounts and its cgroup's files.

Only reads. What this user may not read is None, so that "not seen" is never taken for "not there".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from podwright.linux import caps, cgroups, mounts

T = TypeVar("T")

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
UNLIMITED = 2**64 - 1
"""As an OCI spec writes RLIM_INFINITY."""

_SETS = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}
_LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max file locks": "RLIMIT_LOCKS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
    "Max realtime timeout": "RLIMIT_RTTIME",
}
"""proc_pid_limits(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    pid: int
    uid: int
    gid: int
    """The effective ones."""
    groups: tuple[int, ...]
    capabilities: Mapping[str, tuple[str, ...]]
    """By the OCI spec's names of the sets."""
    no_new_privileges: bool
    seccomp: int
    """0: none, 1: strict, 2: filtered."""
    umask: int
    oom_score_adj: int
    limits: Mapping[str, tuple[int, int]]
    """Soft and hard by RLIMIT name; UNLIMITED stands for no limit."""
    command: tuple[str, ...]
    cwd: str | None
    namespaces: Mapping[str, int] | None
    """Inode by kind."""
    label: str | None
    """Of AppArmor or SELinux; "" where neither is there."""
    mounts: Sequence[mounts.Mount] | None
    root: Path
    """A path through which its files can be looked at, links excepted."""
    cgroups: Mapping[str, str] = field(default_factory=dict)
    """Path in each v1 controller's hierarchy, "" is the unified one (proc_pid_cgroup)."""


def read(pid: int) -> ProcessFacts:
    """Raises ProcessLookupError when there is no such process."""
    proc = Path(f"/proc/{pid}")
    try:
        status = dict(
            line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
        )
        oom = int((proc / "oom_score_adj").read_text())
        limits = (proc / "limits").read_text()
        hierarchies = (proc / "cgroup").read_text()
        command = (proc / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    return ProcessFacts(
        pid=pid,
        uid=int(status["Uid"].split()[1]),
        gid=int(status["Gid"].split()[1]),
        groups=tuple(map(int, status["Groups"].split())),
        capabilities={
            name: tuple(caps.names(int(status[row], 16))) for row, name in _SETS.items() if row in status
        },
        no_new_privileges=status.get("NoNewPrivs", "0").strip() == "1",
        seccomp=int(status.get("Seccomp", "0")),
        umask=int(status.get("Umask", "0"), 8),
        oom_score_adj=oom,
        limits=dict(_limits(limits)),
        command=tuple(part.decode(errors="replace") for part in command.split(b"\0")[:-1]),
        cwd=_seen(lambda: str((proc / "cwd").readlink())),
        namespaces=_seen(lambda: {kind: (proc / "ns" / kind).stat().st_ino for kind in _kinds(proc)}),
        label=_label(proc),
        mounts=_seen(lambda: mounts.read_table(pid)),
        root=proc / "root",
        cgroups=dict(_hierarchies(hierarchies)),
    )


def limits_of_cgroup(facts: ProcessFacts, where: cgroups.Layout | None = None) -> dict[str, str]:
    """The text of each file that limits the process's cgroup, by name ("memory.max", "cpu.shares")."""
    layout = where or cgroups.layout()
    found = {}
    for controller, names in (_V2 if layout.version == 2 else _V1).items():
        root = layout.unified if layout.version == 2 else layout.controllers.get(controller)
        path = facts.cgroups.get("" if layout.version == 2 else controller)
        for name in names if root is not None and path is not None else ():
            text = _seen(lambda file=Path(f"{root}{path}", name): file.read_text().strip())  # type: ignore[misc]
            if text is not None:
                found[name] = text
    return found


_V1 = {
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
    "pids": ("pids.max",),
}
_V2 = {
    "cpu": ("cpu.weight", "cpu.max"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": ("memory.max", "memory.swap.max", "memory.low"),
    "pids": ("pids.max",),
}


def _seen(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except OSError:
        return None


def _kinds(proc: Path) -> list[str]:
    there = {entry.name for entry in (proc / "ns").iterdir()}
    return [kind for kind in NAMESPACES if kind in there]


def _label(proc: Path) -> str | None:
    try:
        return (proc / "attr/current").read_text().strip("\n\0")
    except PermissionError:
        return None
    except OSError:
        return ""  # EINVAL: no security module that labels processes


def _limits(text: str) -> list[tuple[str, tuple[int, int]]]:
    found = []
    for line in text.splitlines():
        for title, name in _LIMITS.items():
            if line.startswith(f"{title}  "):
                soft, hard = line.removeprefix(title).split()[:2]
                found.append((name, (_amount(soft), _amount(hard))))
    return found


def _amount(word: str) -> int:
    return UNLIMITED if word == "unlimited" else int(word)


def _hierarchies(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found += [(name, path.rstrip("/")) for name in controllers.split(",")]
    return found
