"""The spec of a container beside what the kernel shows of its process, place by place: whether they agree."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podwright.engines.node.rootfs import inside
from podwright.linux import cgroups, mounts
from podwright.linux.process_facts import UNLIMITED, ProcessFacts, limits_of_cgroup
from podwright.spec.draft import Json
from podwright.spec.places import places

_KINDS = {"mnt": "mount", "net": "network"}
"""The kernel's names of namespaces where the OCI has others."""
_SECCOMP = {0: "no filter", 1: "strict", 2: "filtered"}


@dataclass(frozen=True, slots=True)
class Seen:
    path: str
    """A place in the spec."""
    value: Json
    agrees: bool


def compare(spec: Mapping[str, Json], facts: ProcessFacts) -> dict[str, Seen]:
    """What there is to see, by place; also at places that the spec does not have, if something is there."""
    given = places(spec)
    rows = (*_process(given, facts), *_confinement(given, facts), *_namespaces(given, facts))
    if facts.mounts is not None:
        rows = (*rows, *_files(given, facts, facts.mounts))
    return {row.path: row for row in (*rows, *_resources(given, facts))}


def _process(given: Mapping[str, Json], facts: ProcessFacts) -> Iterator[Seen]:
    user = given.get("process.user", {})
    # The kernel keeps no difference between a primary group that is listed twice and one that is not.
    wanted = (user.get("uid", 0), user.get("gid", 0), {user.get("gid", 0), *user.get("additionalGids", ())})
    seen = {"uid": facts.uid, "gid": facts.gid, "additionalGids": sorted(facts.groups)}
    yield Seen("process.user", seen, wanted == (facts.uid, facts.gid, {facts.gid, *facts.groups}))
    if "process.args" in given:
        yield Seen("process.args", list(facts.command), given["process.args"] == list(facts.command))
    if facts.cwd is not None:
        yield Seen("process.cwd", facts.cwd, given.get("process.cwd") == facts.cwd)
    if "process.oomScoreAdj" in given:
        agrees = given["process.oomScoreAdj"] == facts.oom_score_adj
        yield Seen("process.oomScoreAdj", facts.oom_score_adj, agrees)
    for path, limit in given.items():
        if path.startswith("process.rlimits[") and limit["type"] in facts.limits:
            soft, hard = facts.limits[limit["type"]]
            shown = {"type": limit["type"], "soft": soft, "hard": hard}
            yield Seen(path, shown, (_limit(limit["soft"]), _limit(limit["hard"])) == (soft, hard))


def _limit(value: int) -> int:
    return UNLIMITED if value < 0 else value


def _confinement(given: Mapping[str, Json], facts: ProcessFacts) -> Iterator[Seen]:
    asked = given.get("process.capabilities", {})
    agrees = all(set(asked.get(name, ())) == set(has) for name, has in facts.capabilities.items())
    shown = {name: list(has) for name, has in facts.capabilities.items()}
    yield Seen("process.capabilities", shown, agrees)
    wanted = bool(given.get("process.noNewPrivileges"))
    # A runtime sets it, too, where that is the only way to load a filter.
    yield Seen("process.noNewPrivileges", facts.no_new_privileges, wanted == facts.no_new_privileges)
    if "linux.seccomp" in given or facts.seccomp:
        filtered = "linux.seccomp" in given
        yield Seen("linux.seccomp", _SECCOMP[facts.seccomp], filtered == (facts.seccomp == 2))
    for path in ("process.apparmorProfile", "process.selinuxLabel"):
        if path in given and facts.label is not None:
            # AppArmor adds the mode: "profile (enforce)".
            yield Seen(path, facts.label, given[path] in (facts.label, facts.label.rpartition(" (")[0]))


def _namespaces(given: Mapping[str, Json], facts: ProcessFacts) -> Iterator[Seen]:
    """Each kind: the sandbox's own one, one of the container's alone, or the host's."""
    if facts.namespaces is None:
        return
    for kind, inode in facts.namespaces.items():
        path = f"linux.namespaces[{_KINDS.get(kind, kind)}]"
        hosts = _inode(f"/proc/self/ns/{kind}") == inode
        entry = given.get(path)
        if entry is None:
            if not hosts:
                yield Seen(path, f"{inode}, not the host's", False)
        elif joined := entry.get("path"):
            yield Seen(path, f"{inode}" + (", the host's" if hosts else ""), _inode(joined) == inode)
        else:
            yield Seen(path, f"{inode}" + (", the host's" if hosts else ", its own"), not hosts)


def _inode(path: str) -> int:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def _files(given: Mapping[str, Json], facts: ProcessFacts, table: Sequence[mounts.Mount]) -> Iterator[Seen]:
    # What was mounted last on a place covers what was there before.
    top = {mount.target: mount for mount in table}
    if "/" in top:
        readonly = top["/"].readonly
        yield Seen("root.readonly", readonly, bool(given.get("root.readonly")) == readonly)
    for path, entry in given.items():
        if path.startswith("mounts["):
            yield _mount(path, entry, facts, top)
    for path, is_so in (("linux.maskedPaths", _masked), ("linux.readonlyPaths", _readonly)):
        if path in given:
            there = [each for each in given[path] if _exists(facts, each)]
            found = [each for each in there if is_so(top.get(posixpath.normpath(each)))]
            yield Seen(path, found, found == there)


def _mount(
    path: str, entry: Mapping[str, Json], facts: ProcessFacts, top: Mapping[str, mounts.Mount]
) -> Seen:
    target = inside(facts.root, entry["destination"])
    where = "/" + str(target.relative_to(facts.root)).removeprefix(".")
    mount = top.get(where)
    if mount is None:
        return Seen(path, "not mounted", False)
    below = [each for target, each in top.items() if target.startswith(f"{where}/")]
    # On cgroup v1 a runtime mounts each hierarchy below a tmpfs of its own: those are what counts.
    hierarchies = [each for each in below if each.fstype == "cgroup" and entry.get("type") == "cgroup"]
    readonly = all(each.readonly for each in hierarchies) if hierarchies else mount.readonly
    # The last of these options counts, as for mount(8).
    access = [each for each in entry.get("options", ()) if each in ("ro", "rw", "rro")]
    wanted = bool(access) and access[-1] != "rw"
    shown = f"{mount.fstype} {mount.root if mount.root != '/' else mount.source} "
    return Seen(path, shown + ("ro" if readonly else "rw"), wanted == readonly)


def _masked(mount: mounts.Mount | None) -> bool:
    """Covered by an empty directory that cannot be written, or by /dev/null."""
    return mount is not None and ((mount.fstype == "tmpfs" and mount.readonly) or mount.root == "/null")


def _readonly(mount: mounts.Mount | None) -> bool:
    return mount is not None and mount.readonly


def _exists(facts: ProcessFacts, path: str) -> bool:
    try:
        return os.path.lexists(f"{facts.root}/{path}")
    except OSError:
        return False


def _resources(given: Mapping[str, Json], facts: ProcessFacts) -> Iterator[Seen]:
    if "linux.cgroupsPath" in given:
        wanted = cgroups.location(given["linux.cgroupsPath"])
        # A runtime may put the process one level below.
        seen = sorted(
            {path for path in facts.cgroups.values() if path.startswith(wanted)} or facts.cgroups.values()
        )
        shown = seen[0] if seen else ""
        yield Seen("linux.cgroupsPath", shown or "/", shown.startswith(wanted))
    files = limits_of_cgroup(facts)
    for path, value, agrees in _limits(given, files):
        yield Seen(f"linux.resources.{path}", value, agrees)


def _limits(given: Mapping[str, Json], files: Mapping[str, str]) -> Iterator[tuple[str, Json, bool]]:
    """Only limits that were given: all others are the kernel's own."""

    def asked(path: str) -> Json:
        return given.get(f"linux.resources.{path}")

    for path, names in _FILES.items():
        for name in names:
            wanted = asked(path)
            if wanted is None or name not in files:
                continue
            seen = files[name]
            if name == "memory.swap.max" and asked("memory.limit"):
                wanted = wanted - asked("memory.limit") if wanted > 0 else wanted
            yield path, f"{name} {seen}", _same(wanted, seen)
    shares = asked("cpu.shares")
    if shares and "cpu.weight" in files:
        weight = files["cpu.weight"]
        yield "cpu.shares", f"cpu.weight {weight}", int(weight) in _weights(shares)
    if "cpu.max" in files:
        for place, path in enumerate(("cpu.quota", "cpu.period")):
            if asked(path):
                seen = files["cpu.max"].split()[place]
                yield path, f"cpu.max {files['cpu.max']}", _same(asked(path), seen)


_FILES = {
    "cpu.shares": ("cpu.shares",),
    "cpu.quota": ("cpu.cfs_quota_us",),
    "cpu.period": ("cpu.cfs_period_us",),
    "cpu.cpus": ("cpuset.cpus",),
    "cpu.mems": ("cpuset.mems",),
    "memory.limit": ("memory.limit_in_bytes", "memory.max"),
    "memory.swap": ("memory.memsw.limit_in_bytes", "memory.swap.max"),
    "memory.reservation": ("memory.soft_limit_in_bytes", "memory.low"),
    "pids.limit": ("pids.max",),
}


def _same(wanted: Json, seen: str) -> bool:
    """No limit is -1, "max", or (v1) the largest number of whole pages; memory is counted in whole pages."""
    if not isinstance(wanted, int):
        return str(wanted) == seen
    if wanted < 0:
        return seen in ("max", "-1") or int(seen) >= 2**62
    if not seen.lstrip("-").isdecimal():
        return False
    page = os.sysconf("SC_PAGESIZE")
    return int(seen) == wanted or int(seen) == wanted // page * page


def _weights(shares: int) -> set[int]:
    """What runtimes make of cpu.shares on cgroup v2: the straight conversion of the runtime-spec, or the
    curve through 1024 = 100 of newer ones; rounded either way."""
    straight = 1 + (shares - 2) * 9999 // 262142
    power = math.log2(max(shares, 2))
    curve = int(10 ** ((power * power + 125 * power) / 612 - 7 / 34))
    return {weight + step for weight in (straight, curve) for step in (0, 1)}
