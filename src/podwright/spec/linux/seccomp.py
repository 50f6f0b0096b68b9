"""Seccomp profiles in containers-common's format, converted to what the OCI runtime reads.

The format (containers-common, seccomp.json(5)) is the OCI one plus conditions: `archMap` instead of a fixed
architecture list, and `includes`/`excludes` (capabilities, architectures, minimal kernel) on each rule. A
plain OCI profile is a profile without conditions and passes through.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.spec.draft import Json

_ARCHITECTURES = {
    "386": "SCMP_ARCH_X86",
    "amd64": "SCMP_ARCH_X86_64",
    "arm": "SCMP_ARCH_ARM",
    "arm64": "SCMP_ARCH_AARCH64",
    "loong64": "SCMP_ARCH_LOONGARCH64",
    "mips": "SCMP_ARCH_MIPS",
    "mips64": "SCMP_ARCH_MIPS64",
    "mips64le": "SCMP_ARCH_MIPSEL64",
    "mipsle": "SCMP_ARCH_MIPSEL",
    "ppc64": "SCMP_ARCH_PPC64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}


class _Condition(msgspec.Struct, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Rule(msgspec.Struct, rename="camel"):
    action: str
    names: list[str] | None = None
    name: str | None = None
    args: list[dict[str, Json]] | None = None
    errno_ret: int | None = None
    errno: str | None = None
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _ArchMap(msgspec.Struct, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Shape(msgspec.Struct, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    default_errno: str | None = None
    architectures: list[str] | None = None
    arch_map: list[_ArchMap] | None = None
    syscalls: list[_Rule] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None


class SeccompProfile:
    """A parsed profile that remembers its conversions: a host has few capability sets in use."""

    __slots__ = ("_converted", "name", "profile")

    def __init__(self, profile: Mapping[str, Json], name: str) -> None:
        self.profile = profile
        self.name = name
        """Path of the file, for messages."""
        self._converted: dict[tuple[str, frozenset[str], tuple[int, int]], dict[str, Json]] = {}

    @classmethod
    def parse(cls, content: bytes, name: str) -> SeccompProfile:
        """InvalidArgument when the content is no JSON, or has not the form of a profile."""
        try:
            profile = msgspec.json.decode(content)
            shape = structs.convert(profile, _Shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument("seccomp", f"the profile {name} is none: {error}") from error
        rules = shape.syscalls or []
        for action in (shape.default_action, *(rule.action for rule in rules)):
            if not action.startswith("SCMP_ACT_"):
                raise InvalidArgument("seccomp", f"the profile {name}: {action!r} is no action")
        for rule in rules:
            for condition in (rule.includes, rule.excludes):
                if condition and condition.min_kernel:
                    _version(condition.min_kernel)
            if rule.errno:
                _number(rule.errno)
        if shape.default_errno:
            _number(shape.default_errno)
        return cls(profile, name)

    def convert(self, arch: str, caps: Collection[str], kernel: tuple[int, int]) -> dict[str, Json]:
        """As `convert()`; the result is shared between builds and must not be changed."""
        key = (arch, frozenset(caps), kernel)
        found = self._converted.get(key)
        if found is None:
            found = self._converted[key] = convert(self.profile, arch, caps, kernel)
        return found


def convert(
    profile: Mapping[str, Json], arch: str, caps: Collection[str], kernel: tuple[int, int]
) -> dict[str, Json]:
    """The OCI `linux.seccomp` of `profile` for an architecture (Go's name), the capabilities that the
    process will have ("CAP_…") and the running kernel's (major, minor)."""
    result: dict[str, Json] = {"defaultAction": profile["defaultAction"]}
    for member in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(member) is not None:
            result[member] = profile[member]
    if profile.get("defaultErrno") and "defaultErrnoRet" not in result:
        result["defaultErrnoRet"] = _number(profile["defaultErrno"])
    architectures = _architectures(profile, arch)
    if architectures:
        result["architectures"] = architectures
    result["syscalls"] = [
        _rule(rule) for rule in profile.get("syscalls") or () if _applies(rule, arch, caps, kernel)
    ]
    return result


def _architectures(profile: Mapping[str, Json], arch: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    own = _ARCHITECTURES.get(arch, "")
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == own:
            return [own, *(entry.get("subArchitectures") or ())]
    return []


def _applies(rule: Mapping[str, Json], arch: str, caps: Collection[str], kernel: tuple[int, int]) -> bool:
    includes = rule.get("includes") or {}
    excludes = rule.get("excludes") or {}
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if not all(cap in caps for cap in includes.get("caps") or ()):
        return False
    if any(cap in caps for cap in excludes.get("caps") or ()):
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    try:
        major, minor = text.split(".")[:2]
        return int(major), int(minor)
    except ValueError as error:
        raise InvalidArgument("seccomp", f"minKernel {text!r} is not MAJOR.MINOR") from error


def _number(name: str) -> int:
    found = getattr(errno, name, None)
    if not isinstance(found, int):
        raise InvalidArgument("seccomp", f"{name!r} is no error number's name, such as EPERM")
    return found


def _rule(rule: Mapping[str, Json]) -> dict[str, Json]:
    # Old profiles have one `name` a rule; the OCI only knows `names`.
    names = list(rule.get("names") or ())
    if rule.get("name"):
        names.append(rule["name"])
    result: dict[str, Json] = {"names": names, "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        result["errnoRet"] = rule["errnoRet"]
    elif rule.get("errno"):
        result["errnoRet"] = _number(rule["errno"])
    if rule.get("args"):
        result["args"] = rule["args"]
    return result
