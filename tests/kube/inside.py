"""A running container seen from inside, beside what was asked of the runtime for it: its process, its user
and rights, namespaces, limits and streams. `inside_files` has its files. Every check yields what is wrong.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podwright.linux import caps, cgroups
from podwright.wire import cri_pb2 as cri

SCRIPT = """
say() { echo "--- $1"; }
say hostname; hostname
say cwd; pwd
say hosts; cat /etc/hosts
say resolv; cat /etc/resolv.conf
say status; cat /proc/self/status
for name; do say "$name"; cat "/proc/sys/$(echo "$name" | tr . /)"; done
"""
"""Run in the container with the names of its sysctls."""
DEFAULT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
    "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
)  # fmt: skip
"""Those that containerd and CRI-O of old give, and Docker."""
RIGHTS = ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
BY_RUNTIMES = {"HOSTNAME", "HOME", "PATH", "TERM"}
"""Variables that runtimes add."""
BY_SHELLS = {"PWD", "OLDPWD", "SHLVL", "_"}
"""… and shells, to what they become."""
UNLIMITED = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Inside:
    """A running container."""

    name: str
    pid: int
    asked: cri.ContainerConfig
    resources: cri.LinuxContainerResources
    """After all updates."""
    sandbox: cri.PodSandboxConfig
    ips: tuple[str, ...]
    image: Mapping[str, Any]
    """The configuration of its image."""
    user: Mapping[str, Any]
    """The user that a kubelet was told it has: uid, gid, supplementalGroups."""
    ids: int
    """The host's id of its user 0."""
    siblings: Mapping[str, int]
    """Processes of the pod's other containers, by their containers' ids."""
    guests: frozenset[str]
    """Of these containers, those that were asked to join this one."""
    said: Mapping[str, str]
    """What the script said, by section."""
    status: cri.ContainerStatus

    @property
    def security(self) -> cri.LinuxContainerSecurityContext:
        return self.asked.linux.security_context

    @property
    def namespaces(self) -> cri.NamespaceOption:
        return self.security.namespace_options

    def proc(self, name: str) -> Path:
        return Path(f"/proc/{self.pid}/{name}")


def sections(text: str) -> dict[str, str]:
    """What the script said."""
    found = {}
    for part in text.split("--- ")[1:]:
        title, _, rest = part.partition("\n")
        found[title] = rest
    return found


def fields(text: str) -> dict[str, str]:
    """/proc/PID/status."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: " ".join(value.split()) for name, _, value in pairs}


def program(one: Inside) -> Iterator[str]:
    asked = one.asked
    entry = list(asked.command or one.image.get("Entrypoint", []))
    rest = list(asked.args or ([] if asked.command else one.image.get("Cmd", [])))
    found = _command(one)
    if found != entry + rest and not _is_last(found, entry + rest):
        yield f"runs {shlex.join(found)}, not {shlex.join(entry + rest)}"
    cwd, wanted = str(one.proc("cwd").readlink()), asked.working_dir or one.image.get("WorkingDir", "/")
    if cwd != wanted or one.said["cwd"].strip() != wanted:
        yield f"is in {cwd}, exec in {one.said['cwd'].strip()}, not in {wanted}"


def _command(one: Inside) -> list[str]:
    return one.proc("cmdline").read_bytes().decode().split("\0")[:-1]


def _is_last(found: list[str], asked: list[str]) -> bool:
    """A shell becomes the last command of its script."""
    last = asked[-1].rpartition(";")[2].strip().removeprefix("exec ")
    return asked[:2] == ["sh", "-c"] and last == " ".join(found)


def variables(one: Inside) -> Iterator[str]:
    entries = one.proc("environ").read_bytes().decode().split("\0")
    found = dict(entry.split("=", 1) for entry in entries if entry)
    wanted = dict(entry.split("=", 1) for entry in one.image.get("Env", []))
    wanted |= {each.key: each.value.decode() for each in one.asked.envs}
    for name, value in wanted.items():
        if found.get(name) != value:
            yield f"variable {name} is {found.get(name)!r}, not {value!r}"
    extra = set(found) - set(wanted) - BY_RUNTIMES - (BY_SHELLS if _command(one)[1:2] != ["-c"] else set())
    if extra:
        yield f"variables that nobody asked for: {sorted(extra)}"


def rights(one: Inside) -> Iterator[str]:
    found, second = fields(one.proc("status").read_text()), fields(one.said["status"])
    uid, gid = one.user["uid"], one.user["gid"]
    groups = sorted(set(one.user.get("supplementalGroups", [])))
    bounds = capabilities(one) & int(fields(Path("/proc/self/status").read_text())["CapBnd"], 16)
    own = bounds if uid == 0 else 0
    seccomp = one.security.seccomp
    filtered = not one.security.privileged and (
        one.security.HasField("seccomp") and seccomp.profile_type != cri.SecurityProfile.Unconfined
    )
    wanted = {
        "Uid": " ".join([str(uid)] * 4),
        "Gid": " ".join([str(gid)] * 4),
        "Groups": " ".join(map(str, groups)),
        "CapPrm": f"{own:016x}",
        "CapEff": f"{own:016x}",
        "CapBnd": f"{bounds:016x}",
        "CapAmb": f"{0:016x}",
        "NoNewPrivs": str(int(one.security.no_new_privs)),
        "Seccomp": "2" if filtered else "0",
    }
    for name in RIGHTS:
        first = found[name]
        if name in ("Uid", "Gid", "Groups"):
            ids = [int(id) - one.ids for id in first.split()]
            first = " ".join(map(str, sorted(set(ids)) if name == "Groups" else ids))
        if first != wanted[name] or second[name] != wanted[name]:
            yield f"{name} is {first}, of exec {second[name]}, not {wanted[name]}"


def capabilities(one: Inside) -> int:
    """The set that was asked for, as bits."""
    if one.security.privileged:
        return (1 << len(caps.NAMES)) - 1
    added, dropped = ({_bare(name) for name in some} for some in _changes(one))
    everything = {_bare(name) for name in caps.NAMES}
    found = everything if "ALL" in added else set(DEFAULT_CAPABILITIES)
    if "ALL" in dropped:
        found = set()
    found = (found | (added - {"ALL"})) - dropped
    return sum(1 << number for number, name in enumerate(caps.NAMES) if _bare(name) in found)


def _changes(one: Inside) -> tuple[list[str], list[str]]:
    asked = one.security.capabilities
    return list(asked.add_capabilities), list(asked.drop_capabilities)


def _bare(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def score(one: Inside) -> Iterator[str]:
    # Only CAP_SYS_RESOURCE may lower it (proc_pid_oom_score_adj(5)).
    lowest = int(Path("/proc/self/oom_score_adj").read_text())
    asked = one.asked.linux.resources.oom_score_adj
    found = int(one.proc("oom_score_adj").read_text())
    if found not in (asked, max(asked, lowest)):
        yield f"oom_score_adj is {found}, not {asked}"


def node_names(one: Inside) -> Iterator[str]:
    """Host name, sysctls, resolver and hosts file."""
    wanted = os.uname().nodename if _of_host(one, "network") else one.sandbox.hostname
    if (found := one.said["hostname"].strip()) != wanted:
        yield f"host name is {found!r}, not {wanted!r}"
    for name, value in one.sandbox.linux.sysctls.items():
        if one.said[name].split() != value.split():
            yield f"sysctl {name} is {one.said[name]!r}, not {value!r}"
    dns = one.sandbox.dns_config
    lines = [f"nameserver {server}" for server in dns.servers]
    lines += [f"search {' '.join(dns.searches)}"] * bool(dns.searches)
    lines += [f"options {' '.join(sorted(dns.options))}"] * bool(dns.options)
    resolver = [
        " ".join(["options", *sorted(line.split()[1:])]) if line.startswith("options ") else line
        for line in one.said["resolv"].splitlines()
    ]
    if sorted(resolver) != sorted(lines):
        yield f"resolv.conf is {resolver}, not {lines}"
    if not _of_host(one, "network"):
        named = {address for line in one.said["hosts"].splitlines() for address in line.split()[:1]}
        if not set(one.ips) <= named:
            yield f"/etc/hosts does not know {one.ips}"


def _of_host(one: Inside, kind: str) -> bool:
    return bool(getattr(one.namespaces, kind) == cri.NODE)


def isolation(one: Inside) -> Iterator[str]:
    """Whose namespaces it has: the host's, the pod's, its own."""
    others = one.siblings
    for kind, name in (("net", "network"), ("ipc", "ipc"), ("uts", "network")):
        if (_namespace(one.pid, kind) == _namespace("self", kind)) != _of_host(one, name):
            yield f"its {kind} namespace {'is not' if _of_host(one, name) else 'is'} the host's"
        if {_namespace(pid, kind) for pid in others.values()} - {_namespace(one.pid, kind)}:
            yield f"its {kind} namespace is not that of the pod's other containers"
    if not _of_host(one, "network"):
        addresses = one.proc("net/fib_trie").read_text() + one.proc("net/if_inet6").read_text()
        if not all(_written(ip) in addresses for ip in one.ips) or not one.ips:
            yield f"its network does not have {one.ips}"
    shared = {id for id, pid in others.items() if _namespace(pid, "pid") == _namespace(one.pid, "pid")}
    host = _namespace(one.pid, "pid") == _namespace("self", "pid")
    match one.namespaces.pid:
        case cri.NODE if not host:
            yield "its pid namespace is not the host's"
        # The first process of the pod's is none of its containers'.
        case cri.POD if host or len(shared) != len(others) or _number_inside(one) == 1:
            yield "its pid namespace is not the pod's"
        case cri.TARGET if one.namespaces.target_id not in shared:
            yield "its pid namespace is not that of its target"
        case cri.CONTAINER if host or shared - one.guests or _number_inside(one) != 1:
            yield "its pid namespace is not its own"
    mapped = one.namespaces.userns_options
    if mapped.mode == cri.POD:
        for name, wanted in (("uid_map", mapped.uids), ("gid_map", mapped.gids)):
            rows = [line.split() for line in one.proc(name).read_text().splitlines()]
            lines = [[str(row.container_id), str(row.host_id), str(row.length)] for row in wanted]
            if rows != lines:
                yield f"{name} is {rows}, not {lines}"
        if {_namespace(pid, "user") for pid in others.values()} - {_namespace(one.pid, "user")}:
            yield "its users are not its pod's"
    elif _namespace(one.pid, "user") != _namespace("self", "user"):
        yield "its users are not the host's"
    if _namespace(one.pid, "mnt") in {_namespace(pid, "mnt") for pid in [os.getpid(), *others.values()]}:
        yield "its mount namespace is not its own"


def _number_inside(one: Inside) -> int:
    return int(fields(one.proc("status").read_text())["NSpid"].split()[-1])


def _written(ip: str) -> str:
    """As /proc/net has it."""
    address = ipaddress.ip_address(ip)
    return address.packed.hex() if address.version == 6 else ip


def _namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def limits(one: Inside) -> Iterator[str]:
    """Of the container's own cgroup."""
    asked = one.resources
    where = cgroups.layout()
    for controller in ("memory", "cpu"):
        path = _cgroup(one.pid, controller)
        if not path.startswith(one.sandbox.linux.cgroup_parent + "/"):
            yield f"its {controller} cgroup is {path}, not below {one.sandbox.linux.cgroup_parent}"
            return
    yield from differing_limits(
        f"cgroup of {one.name}", _cgroup(one.pid, "cpu"), asked.cpu_shares, asked.cpu_quota,
        asked.memory_limit_in_bytes, where,
    )  # fmt: skip


def differing_limits(
    title: str, path: str, shares: int, quota: int, memory: int, where: cgroups.Layout
) -> Iterator[str]:
    """What of the limits the cgroup does not have; 0 is none."""
    cpu, ram = (cgroups.directory(path, controller, where) for controller in ("cpu", "memory"))
    if where.version == 2:
        found = (cpu / "cpu.max").read_text().split()[0], (ram / "memory.max").read_text().strip()
        wanted = str(quota) if quota > 0 else "max", str(_paged(memory)) if memory else "max"
        if found != wanted:
            yield f"{title}: cpu.max and memory.max are {found}, not {wanted}"
        return
    if shares and (kept := _number(cpu / "cpu.shares")) != shares:
        yield f"{title}: cpu.shares is {kept}, not {shares}"
    if (kept := _number(cpu / "cpu.cfs_quota_us")) != (quota if quota > 0 else -1):
        yield f"{title}: cpu.cfs_quota_us is {kept}, not {quota}"
    kept = _number(ram / "memory.limit_in_bytes")
    if (kept != _paged(memory)) if memory else (kept < UNLIMITED):
        yield f"{title}: memory.limit_in_bytes is {kept}, not {memory}"


def _cgroup(pid: int, controller: str) -> str:
    rows = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    v2 = cgroups.layout().version == 2
    return next(path for _, names, path in rows if (not names if v2 else controller in names.split(",")))


def _number(path: Path) -> int:
    return int(path.read_text())


def _paged(size: int) -> int:
    page = os.sysconf("SC_PAGESIZE")
    return size // page * page


def streams(one: Inside) -> Iterator[str]:
    """Its standard input and its log."""
    found = str(one.proc("fd/0").readlink())
    if one.asked.tty:
        good = found.startswith(("/dev/pts/", "/dev/console"))
    elif one.asked.stdin:
        good = found.startswith(("pipe:", "socket:")) or found.endswith("stdin")
    else:
        good = found == "/dev/null"
    if not good:
        yield f"its standard input is {found}"
    log = Path(one.sandbox.log_directory) / one.asked.log_path
    if str(log) != one.status.log_path or not log.is_file():
        yield f"its log is {one.status.log_path}, not {log}"


CHECKS = (program, variables, rights, score, node_names, isolation, limits, streams)
