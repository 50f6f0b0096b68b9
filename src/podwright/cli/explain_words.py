"""Values of a spec as people read them: one line each, what counts first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

Json = Any
ABSENT = "-"
USUAL = ("bounding", "effective", "permitted")
"""A capability in all of these is simply had."""


def words(path: str, value: Json) -> str:
    """The value at `path` on one line."""
    if value is None:
        return ABSENT
    if isinstance(value, Mapping):
        shown = _object(path, value)
        if shown:
            return shown
    if isinstance(value, Sequence) and not isinstance(value, str):
        if (
            all(isinstance(each, str) and each and " " not in each for each in value)
            and path != "process.args"
        ):
            return " ".join(value)
        if path == "linux.resources.devices":
            return ", ".join(map(_rule, value))
        if path.startswith("HostConfig.PortBindings["):
            return " ".join(f"{each.get('HostIp', '')}:{each.get('HostPort', '')}" for each in value)
    if isinstance(value, str) and value and value.isprintable():
        return value
    return msgspec.json.encode(value).decode()


def apart(path: str, before: Json, after: Json) -> tuple[str, str]:
    """Two values in words, of long ones only what the other does not have."""
    old, new = _members(path, before), _members(path, after)
    if old is None or new is None:
        return words(path, before), words(path, after)
    return (
        " ".join(each for each in old if each not in new) or _rest(old),
        " ".join(each for each in new if each not in old) or _rest(new),
    )


def _members(path: str, value: Json) -> list[str] | None:
    if path == "process.capabilities" and isinstance(value, Mapping):
        return _capabilities(value)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if is_list and path != "process.args" and all(isinstance(each, str) for each in value):
        return list(value)
    if path.startswith("mounts[") and isinstance(value, Mapping):
        what, _, options = words(path, value).rpartition(" ")
        return [what, *options.split(",")]
    if path == "linux.resources.devices" and is_list:
        return [_rule(each) for each in value]
    return None


def _rest(members: Sequence[str]) -> str:
    return f"(all {len(members)} of these)" if members else "(none)"


def _object(path: str, value: Mapping[str, Json]) -> str:
    if path == "process.user":
        shown = {**value, "groups": ",".join(map(str, value.get("additionalGids", ())))}
        shown.pop("additionalGids", None)
        return " ".join(f"{key}={each}" for key, each in shown.items() if each != "")
    if path == "process.capabilities":
        return " ".join(_capabilities(value)) or "none"
    if path == "linux.seccomp":
        rules = value.get("syscalls") or ()
        return f"{value.get('defaultAction', '')}, {len(rules)} rules"
    if path.startswith("mounts["):
        source, kind = value.get("source", ""), value.get("type", "")
        what = kind if source in (kind, "") else source if kind == "bind" else f"{kind} {source}"
        return f"{what} {','.join(value.get('options') or ())}".strip()
    if path.startswith("linux.namespaces["):
        return str(value.get("path") or "a new one")
    if path.startswith("process.rlimits["):
        return f"{_limit(value.get('soft'))}:{_limit(value.get('hard'))}"
    if path.startswith("HostConfig.Mounts["):
        options = [
            key if value is True else str(value) for key, value in (value.get("BindOptions") or {}).items()
        ]
        more = ["ReadOnly"] if value.get("ReadOnly") else []
        return f"{value.get('Source', '')} {','.join([*more, *options])}".strip()
    if path.startswith("HostConfig.Devices["):
        return f"{value.get('PathOnHost', '')} {value.get('CgroupPermissions', '')}".strip()
    if path.startswith("linux.devices["):
        mode = value.get("fileMode")
        numbers = f"{value.get('type')} {value.get('major')}:{value.get('minor')}"
        return f"{numbers} {mode:04o}" if isinstance(mode, int) else numbers
    return ""


def _capabilities(sets: Mapping[str, Sequence[str]]) -> list[str]:
    """The names without CAP_. Those that are in other sets than the usual three say in which."""
    found = []
    for name in dict.fromkeys(each for names in sets.values() for each in names):
        inside = [kind for kind, names in sets.items() if name in names]
        more = [kind for kind in inside if kind not in USUAL]
        short = name.removeprefix("CAP_")
        if not all(kind in inside for kind in USUAL):
            short += f"({','.join(inside)} only)"
        elif more:
            short += f"(+{','.join(more)})"
        found.append(short)
    return found


def _rule(rule: Mapping[str, Json]) -> str:
    numbers = (str(rule[key]) if key in rule else "*" for key in ("major", "minor"))
    verb = "allow" if rule.get("allow") else "deny"
    return f"{verb} {rule.get('type', 'a')} {':'.join(numbers)} {rule.get('access', '')}".strip()


def _limit(value: Json) -> str:
    return "unlimited" if isinstance(value, int) and (value < 0 or value >= 2**63) else str(value)
