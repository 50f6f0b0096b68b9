"""Seccomp profiles: conditions of containers-common's format, and plain OCI profiles."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.spec.linux.seccomp import SeccompProfile, convert

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}},
        {"name": "old", "action": "SCMP_ACT_ALLOW", "args": None},
        {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["admin"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "errno": "EPERM",
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["x86"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["notarm"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["before"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
        {
            "names": ["args"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
        },
    ],
}


def _names(arch: str, caps: list[str], kernel: tuple[int, int]) -> list[str]:
    converted = convert(PROFILE, arch, caps, kernel)
    return [f"{name}{rule.get('errnoRet', '')}" for rule in converted["syscalls"] for name in rule["names"]]


@pytest.mark.parametrize(
    ("arch", "caps", "kernel", "names"),
    [
        ("amd64", [], (4, 7), ["read", "old", "admin1", "x86", "notarm", "before", "args"]),
        ("amd64", ["CAP_SYS_ADMIN"], (4, 8), ["read", "old", "admin", "x86", "notarm", "new", "args"]),
        ("arm64", [], (6, 1), ["read", "old", "admin1", "new", "args"]),
    ],
)
def test_rules_apply_under_their_conditions(
    arch: str, caps: list[str], kernel: tuple[int, int], names: list[str]
) -> None:
    assert _names(arch, caps, kernel) == names


@pytest.mark.parametrize(
    ("arch", "architectures"),
    [
        ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        ("riscv64", None),
    ],
)
def test_the_arch_map_gives_the_architectures(arch: str, architectures: list[str] | None) -> None:
    assert convert(PROFILE, arch, [], (6, 1)).get("architectures") == architectures


def test_nothing_but_oci_members_is_left() -> None:
    converted = convert(PROFILE, "amd64", [], (6, 1))
    assert converted.keys() <= {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert converted["defaultErrnoRet"] == 38
    for rule in converted["syscalls"]:
        assert rule.keys() <= {"names", "action", "errnoRet", "args"}


def test_a_plain_oci_profile_passes_through() -> None:
    plain: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "x",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    assert convert(plain, "arm64", [], (6, 1)) == plain


def test_conversions_are_remembered_by_what_they_depend_on() -> None:
    profile = SeccompProfile(PROFILE, "default")
    first = profile.convert("amd64", ["CAP_CHOWN", "CAP_KILL"], (6, 1))
    assert profile.convert("amd64", ["CAP_KILL", "CAP_CHOWN"], (6, 1)) is first
    assert profile.convert("amd64", ["CAP_SYS_ADMIN"], (6, 1)) != first


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"defaultAction": ""}'])
def test_a_file_that_is_no_profile_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match="/some/file"):
        SeccompProfile.parse(content, "/some/file")
