"""A create request in the words of a runtime spec: what Docker makes of it, as far as the request decides it,
to be compared with what engines give that write specs themselves. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence

from podwright.engines.base import Container, Explanation, Json
from podwright.engines.docker.features import Features
from podwright.spec.linux.capabilities import DEFAULT, KNOWN

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What dockerd sets where nobody does."""
_MADE_OF = {
    "process.args": ("Entrypoint", "Cmd"),
    "process.env": ("Env",),
    "process.cwd": ("WorkingDir",),
    "process.terminal": ("Tty",),
    "process.user": ("User",),
    "process.capabilities": ("HostConfig.Privileged", "HostConfig.CapAdd", "HostConfig.CapDrop"),
    "process.noNewPrivileges": ("HostConfig.SecurityOpt",),
    "process.apparmorProfile": ("HostConfig.SecurityOpt",),
    "process.oomScoreAdj": ("HostConfig.OomScoreAdj",),
    "process.rlimits": ("HostConfig.Ulimits",),
    "root.readonly": ("HostConfig.ReadonlyRootfs",),
    "mounts": ("HostConfig.Mounts", "HostConfig.Binds"),
    "linux.seccomp": ("HostConfig.SecurityOpt",),
    "linux.maskedPaths": ("HostConfig.MaskedPaths",),
    "linux.readonlyPaths": ("HostConfig.ReadonlyPaths",),
    "linux.cgroupsPath": ("HostConfig.CgroupParent",),
    "linux.resources.cpu.shares": ("HostConfig.CpuShares",),
    "linux.resources.cpu.quota": ("HostConfig.CpuQuota",),
    "linux.resources.cpu.period": ("HostConfig.CpuPeriod",),
    "linux.resources.cpu.cpus": ("HostConfig.CpusetCpus",),
    "linux.resources.cpu.mems": ("HostConfig.CpusetMems",),
    "linux.resources.memory.limit": ("HostConfig.Memory",),
    "linux.resources.memory.swap": ("HostConfig.MemorySwap",),
    "linux.resources.pids.limit": ("HostConfig.PidsLimit",),
    "linux.resources.unified": (),
}
"""Each place, and the members of the request that decide it."""


def of_container(
    document: Mapping[str, Json],
    origins: Mapping[str, str],
    container: Container,
    features: Features,
    held: Sequence[str],
) -> Explanation:
    """`held` are the capabilities that this host can give. The origins name every place that is told at all:
    mounts and variables that Docker adds for itself are not, nor is what it looks up on the host."""
    host, image = document["HostConfig"], container.image.config
    uid, _, gid = str(document["User"]).partition(":")
    options = [str(each) for each in host.get("SecurityOpt") or ()]
    process: dict[str, Json] = {
        "args": _args(document, image),
        "env": _env(document, image),
        "cwd": posixpath.join("/", document.get("WorkingDir") or image.get("WorkingDir") or "/"),
        "user": {
            "uid": int(uid),
            "gid": int(gid),
            "additionalGids": sorted({int(gid), *map(int, host.get("GroupAdd") or ())}),
        },
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _capabilities(host, held)),
    }
    if "OomScoreAdj" in host or container.config.linux.HasField("resources"):
        process["oomScoreAdj"] = host.get("OomScoreAdj", 0)
    if document.get("Tty"):
        process["terminal"] = True
    if "no-new-privileges" in options:
        process["noNewPrivileges"] = True
    if profile := _apparmor(options, host, features):
        process["apparmorProfile"] = profile
    if limits := host.get("Ulimits"):
        process["rlimits"] = [
            {"type": f"RLIMIT_{each['Name'].upper()}", "hard": each["Hard"], "soft": each["Soft"]}
            for each in limits
        ]
    mounts = _mounts(host)
    linux: dict[str, Json] = {
        "resources": _resources(host, container),
        "cgroupsPath": f"{host.get('CgroupParent') or '/docker'}/{container.id}",
    }
    for place, member in (("maskedPaths", "MaskedPaths"), ("readonlyPaths", "ReadonlyPaths")):
        if host.get(member):
            linux[place] = host[member]
    if not any(each.startswith("seccomp=") for each in options):
        linux["seccomp"] = "Docker's own profile"
    told = {
        place: next((origins[each] for each in members if each in origins), "default: Docker's own")
        for place, members in _MADE_OF.items()
        # A profile that is sent along is the same everywhere.
        if place != "linux.seccomp" or not any(each.startswith("seccomp={") for each in options)
    }
    for whole, names in (
        ("process.env", (entry.partition("=")[0] for entry in process["env"])),
        ("mounts", (entry["destination"] for entry in mounts)),
    ):
        reason = told.pop(whole)
        told |= {f"{whole}[{name}]": reason for name in names}
    spec: dict[str, Json] = {"process": process, "mounts": mounts, "linux": linux}
    if host.get("ReadonlyRootfs"):
        spec["root"] = {"readonly": True}
    return Explanation(spec, told)


def _args(document: Mapping[str, Json], image: Mapping[str, Json]) -> list[str]:
    entrypoint, command = document.get("Entrypoint"), document.get("Cmd")
    if not entrypoint:
        entrypoint = image.get("Entrypoint") or []
        command = command or image.get("Cmd") or []
    return [*entrypoint, *(command or [])]


def _env(document: Mapping[str, Json], image: Mapping[str, Json]) -> list[str]:
    """Of what the request has twice both stay."""
    asked = [str(each) for each in document.get("Env") or ()]
    named = {each.partition("=")[0] for each in asked}
    usual = [f"PATH={_PATH}", *(["TERM=xterm"] if document.get("Tty") else [])]
    first = {each.partition("=")[0]: each for each in (*usual, *(image.get("Env") or ()))}
    return [*(entry for name, entry in first.items() if name not in named), *asked]


def _capabilities(host: Mapping[str, Json], held: Sequence[str]) -> list[str]:
    if host.get("Privileged"):
        return list(held)
    added, dropped = host.get("CapAdd") or [], host.get("CapDrop") or []
    if "ALL" in added:
        return [each for each in held if each not in dropped]
    first = [] if "ALL" in dropped else [each for each in DEFAULT if each in held and each not in dropped]
    return [*first, *(each for each in added if each not in first and each in KNOWN)]


def _apparmor(options: Iterable[str], host: Mapping[str, Json], features: Features) -> str:
    for each in options:
        if each.startswith("apparmor="):
            return each.removeprefix("apparmor=").replace("unconfined", "")
    return "docker-default" if features.apparmor and not host.get("Privileged") else ""


def _mounts(host: Mapping[str, Json]) -> list[dict[str, Json]]:
    found = []
    for each in host.get("Mounts") or ():
        options = each.get("BindOptions") or {}
        access = "rro" if options.get("ReadOnlyForceRecursive") else "ro" if each.get("ReadOnly") else "rw"
        found.append(_bind(each["Target"], each["Source"], options.get("Propagation", ""), access))
    for each in host.get("Binds") or ():
        source, target, words = each.split(":", 2)
        named = words.split(",")
        spread = next((word for word in named if word in ("rslave", "rshared")), "")
        found.append(_bind(target, source, spread, "ro" if "ro" in named else "rw"))
    return found


def _bind(target: str, source: str, spread: str, access: str) -> dict[str, Json]:
    options = ["rbind", spread or "rprivate", access]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _resources(host: Mapping[str, Json], container: Container) -> dict[str, Json]:
    made: dict[str, Json] = {}
    for place, (member,) in ((place, members) for place, members in _MADE_OF.items() if len(members) == 1):
        _, _, rest = place.partition("linux.resources.")
        value = host.get(member.partition(".")[2])
        if rest and value:
            group, _, name = rest.partition(".")
            made.setdefault(group, {})[name] = value
    if unified := dict(container.config.linux.resources.unified):
        made["unified"] = unified
    return made
