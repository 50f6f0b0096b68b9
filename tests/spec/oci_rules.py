"""The OCI runtime specification's rules for a Linux config.json, checked on what the builder makes.

`problems` reads a spec and says what breaks a rule: types, required members, enumerations, absolute paths,
names, ranges, order of mounts. Sources: runtime-spec config.md and config-linux.md, proc(5), capabilities(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from podwright.spec.cdi import HOOK_STAGES
from podwright.spec.linux.capabilities import KNOWN
from podwright.spec.linux.paths import clean
from podwright.spec.rlimits import NAMES

Json = Any


class _Span:
    """Whole numbers from `first` up to `end`; unlike in a range, looking for None takes no time."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.first <= value < self.end


U32, U64, I64 = _Span(0, 2**32), _Span(0, 2**64), _Span(-(2**63), 2**63)
NAMESPACES = {"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"}
PROPAGATIONS = {"shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"}
ARCHITECTURE = re.compile(r"SCMP_ARCH_[A-Z0-9_]+")
ACTIONS = {
    f"SCMP_ACT_{name}"
    for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
}
OPERATORS = {f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")}
SETS = {"bounding", "effective", "permitted", "inheritable", "ambient"}

Members = Mapping[str, type]

TOP: Members = {
    "ociVersion": str,
    "process": dict,
    "root": dict,
    "hostname": str,
    "mounts": list,
    "hooks": dict,
    "annotations": dict,
    "linux": dict,
}
PROCESS: Members = {
    "terminal": bool,
    "user": dict,
    "args": list,
    "env": list,
    "cwd": str,
    "capabilities": dict,
    "rlimits": list,
    "noNewPrivileges": bool,
    "apparmorProfile": str,
    "oomScoreAdj": int,
    "selinuxLabel": str,
}
MOUNT: Members = {
    "destination": str,
    "source": str,
    "type": str,
    "options": list,
    "uidMappings": list,
    "gidMappings": list,
}
HOOK: Members = {"path": str, "args": list, "env": list, "timeout": int}
LINUX: Members = {
    "uidMappings": list,
    "gidMappings": list,
    "sysctl": dict,
    "resources": dict,
    "cgroupsPath": str,
    "namespaces": list,
    "devices": list,
    "seccomp": dict,
    "rootfsPropagation": str,
    "maskedPaths": list,
    "readonlyPaths": list,
    "mountLabel": str,
    "intelRdt": dict,
    "personality": dict,
    "timeOffsets": dict,
}
RESOURCES: Members = {
    "devices": list,
    "memory": dict,
    "cpu": dict,
    "pids": dict,
    "blockIO": dict,
    "hugepageLimits": list,
    "unified": dict,
}


def problems(spec: Mapping[str, Json]) -> list[str]:
    """What breaks a rule, each with its place; [] for a valid spec."""
    found = list(_members("spec", spec, TOP))
    for section in ("ociVersion", "process", "root", "mounts", "linux"):
        if section not in spec:
            found.append(f"{section}: is missing")
    if found:
        return found
    linux = spec["linux"]
    return [
        *_top(spec),
        *_process(spec["process"]),
        *_mounts(spec["mounts"]),
        *_hooks(spec.get("hooks", {})),
        *_linux(linux),
        *_resources(linux.get("resources", {})),
        *_seccomp(linux.get("seccomp")),
    ]


def _members(place: str, given: Mapping[str, Json], known: Members) -> Iterator[str]:
    for name, value in given.items():
        if name not in known:
            yield f"{place}.{name}: is unknown"
        elif not isinstance(value, known[name]) or (known[name] is int and isinstance(value, bool)):
            yield f"{place}.{name}: {value!r} is no {known[name].__name__}"


def _top(spec: Mapping[str, Json]) -> Iterator[str]:
    if not re.fullmatch(r"1\.\d+\.\d+", spec["ociVersion"]):
        yield f"ociVersion: {spec['ociVersion']!r} is no version"
    if not spec["root"].get("path") or spec["root"].keys() - {"path", "readonly"}:
        yield "root: needs a path, and knows readonly"
    for key, value in spec.get("annotations", {}).items():
        if not key or not isinstance(value, str):
            yield f"annotations[{key}]: needs a key and a string"


def _process(process: Mapping[str, Json]) -> Iterator[str]:
    yield from _members("process", process, PROCESS)
    if not process.get("args") or not all(isinstance(each, str) for each in process["args"]):
        yield "process.args: needs at least one string"
    if not process.get("cwd", "").startswith("/"):
        yield "process.cwd: is not absolute"
    for variable in process.get("env", ()):
        if "=" not in variable:
            yield f"process.env: {variable!r} is not NAME=VALUE"
    user = process.get("user", {})
    for name in ("uid", "gid"):
        if user.get(name) not in U32:
            yield f"process.user.{name}: {user.get(name)!r} is out of range"
    if not all(gid in U32 for gid in user.get("additionalGids", ())):
        yield "process.user.additionalGids: out of range"
    if user.get("umask", 0) not in range(0o1000):
        yield "process.user.umask: out of range"
    if process.get("oomScoreAdj", 0) not in range(-1000, 1001):
        yield "process.oomScoreAdj: out of range"
    yield from _capabilities(process.get("capabilities", {}))
    types = [limit["type"] for limit in process.get("rlimits", ())]
    if set(types) - NAMES or len(set(types)) != len(types):
        yield f"process.rlimits: {types} has unknown or double names"
    for limit in process.get("rlimits", ()):
        if limit["soft"] not in U64 or limit["hard"] not in U64 or limit["soft"] > limit["hard"]:
            yield f"process.rlimits: {limit} is no pair of limits"


def _capabilities(sets: Mapping[str, list[str]]) -> Iterator[str]:
    for name, given in sets.items():
        if name not in SETS or set(given) - KNOWN or len(set(given)) != len(given):
            yield f"process.capabilities.{name}: {sorted(given)} has unknown or double names"
    permitted = set(sets.get("permitted", ()))
    # The kernel gives no ambient capability that is not permitted and inheritable (capabilities(7)).
    if set(sets.get("ambient", ())) - (permitted & set(sets.get("inheritable", ()))):
        yield "process.capabilities.ambient: more than is permitted and inheritable"
    if set(sets.get("effective", ())) - permitted or permitted - set(sets.get("bounding", ())):
        yield "process.capabilities.effective: more than is permitted, or that more than is bounding"


def _mounts(mounts: list[Json]) -> Iterator[str]:
    before: list[str] = []
    for mount in mounts:
        place = f"mounts[{mount.get('destination')}]"
        yield from _members(place, mount, MOUNT)
        if not mount.get("destination", "").startswith("/"):
            yield f"{place}: is not absolute"
            continue
        options = set(mount.get("options", ()))
        source = mount.get("source", "")
        if (mount.get("type") == "bind" or {"bind", "rbind"} & options) and not source.startswith(("/", "$")):
            yield f"{place}: source {source!r} is not absolute"
        if ("uidMappings" in mount) != ("gidMappings" in mount):
            yield f"{place}: only one kind of id mappings"
        for kinds in (PROPAGATIONS, {"ro", "rw", "rro"}):
            if len(kinds & options) > 1:
                yield f"{place}: contradictory options {mount['options']}"
        path = clean(mount["destination"])
        hidden = [other for other in before if other.startswith(f"{path.rstrip('/')}/")]
        # A mount over / or /sys is asked for to hide what is there, and comes after the defaults.
        if hidden and path not in ("/", "/sys"):
            yield f"{place}: covers {hidden}, which are mounted before"
        before.append(path)


def _hooks(hooks: Mapping[str, Json]) -> Iterator[str]:
    for stage, entries in hooks.items():
        if stage not in HOOK_STAGES:
            yield f"hooks.{stage}: is unknown"
        for entry in entries:
            yield from _members(f"hooks.{stage}", entry, HOOK)
            if not entry.get("path", "").startswith("/") or entry.get("timeout", 1) <= 0:
                yield f"hooks.{stage}: {entry} needs an absolute path and a timeout above 0"


def _linux(linux: Mapping[str, Json]) -> Iterator[str]:
    yield from _members("linux", linux, LINUX)
    kinds = [entry["type"] for entry in linux.get("namespaces", ())]
    if set(kinds) - NAMESPACES or len(set(kinds)) != len(kinds):
        yield f"linux.namespaces: {kinds} has unknown or double kinds"
    for entry in linux.get("namespaces", ()):
        if not entry.get("path", "/").startswith(("/", "$")):
            yield f"linux.namespaces: {entry} has no absolute path"
    for member in ("uidMappings", "gidMappings"):
        if linux.get(member) and "user" not in kinds:
            yield f"linux.{member}: without a user namespace"
        for entry in linux.get(member, ()):
            if entry.keys() != {"containerID", "hostID", "size"} or not all(v in U32 for v in entry.values()):
                yield f"linux.{member}: {entry} is no mapping"
    for node in linux.get("devices", ()):
        yield from _device(node)
    for member in ("maskedPaths", "readonlyPaths"):
        if not all(isinstance(path, str) for path in linux.get(member, ())):
            yield f"linux.{member}: has what is no path"
    if linux.get("rootfsPropagation", "private") not in PROPAGATIONS:
        yield f"linux.rootfsPropagation: {linux['rootfsPropagation']!r} is unknown"
    if "intelRdt" in linux and not linux["intelRdt"]:
        yield "linux.intelRdt: says nothing"


def _device(node: Mapping[str, Json]) -> Iterator[str]:
    if not node.get("path", "").startswith("/") or node.get("type") not in ("c", "b", "u", "p"):
        yield f"linux.devices: {node} needs an absolute path and a type"
    if node.get("type") != "p" and not (node.get("major") in I64 and node.get("minor") in I64):
        yield f"linux.devices: {node} has no numbers"
    for name in ("fileMode", "uid", "gid"):
        if node.get(name, 0) not in U32:
            yield f"linux.devices: {node}: {name} is out of range"


def _resources(resources: Mapping[str, Json]) -> Iterator[str]:
    place = "linux.resources"
    yield from _members(place, resources, RESOURCES)
    for rule in resources.get("devices", ()):
        known = rule.get("type", "a") in ("a", "c", "b") and not set(rule.get("access", "")) - set("rwm")
        if not isinstance(rule.get("allow"), bool) or not known:
            yield f"{place}.devices: {rule} is no rule"
    for name, value in resources.get("memory", {}).items():
        if name not in ("limit", "swap", "reservation", "kernel", "swappiness") or not -1 <= value < 2**63:
            yield f"{place}.memory.{name}: {value!r}"
    numbers = {"shares": U64, "quota": I64, "period": U64}
    for name, value in resources.get("cpu", {}).items():
        text = name in ("cpus", "mems") and isinstance(value, str)
        if not (value in numbers[name] if name in numbers else text):
            yield f"{place}.cpu.{name}: {value!r}"
    for limit in resources.get("hugepageLimits", ()):
        if not isinstance(limit["pageSize"], str) or limit["limit"] not in U64:
            yield f"{place}.hugepageLimits: {limit}"
    if not -1 <= resources.get("pids", {}).get("limit", 0) < 2**63:
        yield f"{place}.pids.limit: out of range"
    for name, given in resources.get("blockIO", {}).items():
        value = "weight" if name == "weightDevice" else "rate"
        if name == "weight":
            fine = given in range(10, 1001)
        else:
            fine = all(entry.keys() == {"major", "minor", value} for entry in given)
        if not fine:
            yield f"{place}.blockIO.{name}: {given}"


def _seccomp(profile: Mapping[str, Json] | None) -> Iterator[str]:
    if profile is None:
        return
    if profile.get("defaultAction") not in ACTIONS:
        yield f"linux.seccomp.defaultAction: {profile.get('defaultAction')!r}"
    for name in profile.get("architectures", ()):
        if not ARCHITECTURE.fullmatch(name):
            yield f"linux.seccomp.architectures: {name!r}"
    for rule in profile.get("syscalls", ()):
        if not rule.get("names") or rule.get("action") not in ACTIONS:
            yield f"linux.seccomp.syscalls: {rule} needs names and an action"
        for argument in rule.get("args", ()):
            if argument.get("op") not in OPERATORS or argument.get("index") not in range(6):
                yield f"linux.seccomp.syscalls: {argument} is no comparison"
