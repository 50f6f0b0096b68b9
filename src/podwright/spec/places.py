"""Places in a spec: every value by the path under which the rules note its origin, and what differs.

    process.cwd    process.env[PATH]    mounts[/etc/hosts]    linux.namespaces[pid]    annotations[KEY]

Requests to a Docker Engine are walked the same way: HostConfig.Mounts[/tmp], Labels[KEY]. A list whose
members have a name of their own is addressed by it; any other list is one value. An empty object is no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from podwright.spec.draft import Json

NAMED = {
    "HostConfig.Devices": "PathInContainer",
    "HostConfig.Mounts": "Target",
    "mounts": "destination",
    "linux.devices": "path",
    "linux.namespaces": "type",
    "linux.netDevices": "name",
    "linux.resources.hugepageLimits": "pageSize",
    "process.rlimits": "type",
}
"""Lists of objects, and the member that names each."""
OPEN = (
    *("annotations", "linux.resources.unified", "linux.sysctl"),
    *("Labels", "ExposedPorts", "HostConfig.PortBindings", "HostConfig.Sysctls", "HostConfig.Tmpfs"),
)
"""Maps whose keys are the client's: they may hold dots."""
WHOLE = ("linux.seccomp", "linux.resources.devices", "process.user", "process.capabilities")
"""Objects and lists that a reader compares at a glance, or not at all."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    path: str
    before: Json
    """None when it was not there."""
    after: Json


def places(spec: Mapping[str, Json]) -> dict[str, Json]:
    """Every value of `spec` by its place, in the order of the spec."""
    return dict(_walk("", spec))


def changes(before: Mapping[str, Json], after: Mapping[str, Json]) -> list[Change]:
    """What differs between two specs."""
    old, new = places(before), places(after)
    return [
        Change(path, old.get(path), new.get(path))
        for path in dict.fromkeys((*old, *new))
        if old.get(path, _ABSENT) != new.get(path, _ABSENT)
    ]


def origin(path: str, origins: Mapping[str, str]) -> str:
    """Why the value at `path` is there: what was noted for it, or for the nearest place around it."""
    around = path
    while around:
        if around in origins:
            return origins[around]
        around = _outer(around)
    return ""


def _outer(path: str) -> str:
    head, sign, number = path.rpartition("#")
    if sign and number.isdecimal() and head.endswith("]"):
        return head
    if path.endswith("]"):
        return path[: path.index("[")]
    return path.rpartition(".")[0]


def _walk(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    if path in WHOLE:
        yield path, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            if path in OPEN:
                yield f"{path}[{key}]", member
            else:
                yield from _walk(f"{path}.{key}" if path else key, member)
    elif path == "process.env" and _all(value, str):
        yield from _numbered(path, [(entry.partition("=")[0], entry.partition("=")[2]) for entry in value])
    elif (name := NAMED.get(path)) and _all(value, Mapping):
        yield from _numbered(path, [(str(entry.get(name, "")), entry) for entry in value])
    else:
        yield path, value


def _numbered(path: str, entries: Sequence[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    seen: dict[str, int] = {}
    for name, value in entries:
        seen[name] = seen.get(name, 0) + 1
        yield f"{path}[{name}]" + (f"#{seen[name]}" if seen[name] > 1 else ""), value


def _all(value: Json, kind: type) -> bool:
    return (
        isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, kind) for v in value)
    )
