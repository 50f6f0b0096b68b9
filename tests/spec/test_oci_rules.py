"""The check of the OCI's rules finds what breaks them: each rule is broken once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.spec import oci_rules

VALID: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "args": ["/c"],
        "cwd": "/",
        "env": ["A=1"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [0], "umask": 18},
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}],
        "oomScoreAdj": 0,
    },
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/x/y", "type": "bind", "source": "/h", "options": ["rbind", "ro"]},
    ],
    "hooks": {"prestart": [{"path": "/h"}]},
    "annotations": {"a": "b"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "user", "path": "/u"}],
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
        "intelRdt": {"closID": "x"},
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": 1},
            "cpu": {"shares": 2, "cpus": "0"},
            "pids": {"limit": 1},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 1, "minor": 1, "rate": 1}]},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["x"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
    },
}


def test_a_valid_spec_has_no_problems() -> None:
    assert oci_rules.problems(VALID) == []


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: Any) -> None:
        for step in path[:-1]:
            spec = spec[step]
        spec[path[-1]] = value

    return change


def without(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: Any) -> None:
        for step in path[:-1]:
            spec = spec[step]
        del spec[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (without("linux"), "linux"),
        (without("root"), "root"),
        (at("extra", value=1), "spec.extra"),
        (at("hostname", value=1), "spec.hostname"),
        (at("ociVersion", value="x"), "ociVersion"),
        (at("root", "path", value=""), "root"),
        (at("root", "more", value=1), "root"),
        (at("annotations", "a", value=1), "annotations[a]"),
        (at("process", "args", value=[]), "process.args"),
        (at("process", "args", value=[1]), "process.args"),
        (at("process", "cwd", value="x"), "process.cwd"),
        (at("process", "env", value=["A"]), "process.env"),
        (at("process", "terminal", value=1), "process.terminal"),
        (at("process", "oomScoreAdj", value=1001), "process.oomScoreAdj"),
        (at("process", "oomScoreAdj", value=True), "process.oomScoreAdj"),
        (at("process", "user", "uid", value=-1), "process.user.uid"),
        (without("process", "user", "gid"), "process.user.gid"),
        (at("process", "user", "additionalGids", value=[2**32]), "process.user.additionalGids"),
        (at("process", "user", "umask", value=512), "process.user.umask"),
        (at("process", "capabilities", "bounding", value=["KILL"]), "process.capabilities.bounding"),
        (at("process", "capabilities", "bounding", value=["CAP_KILL"] * 2), "process.capabilities.bounding"),
        (at("process", "capabilities", "other", value=[]), "process.capabilities.other"),
        (at("process", "capabilities", "ambient", value=["CAP_KILL"]), "process.capabilities.ambient"),
        (at("process", "capabilities", "permitted", value=[]), "process.capabilities.effective"),
        (at("process", "capabilities", "bounding", value=[]), "process.capabilities.effective"),
        (at("process", "rlimits", 0, "type", value="NOFILE"), "process.rlimits"),
        (at("process", "rlimits", 0, "soft", value=2), "process.rlimits"),
        (at("mounts", 1, "destination", value="x"), "mounts[x]"),
        (at("mounts", 1, "source", value="h"), "mounts[/x/y]"),
        (at("mounts", 1, "options", value=["ro", "rw"]), "mounts[/x/y]"),
        (at("mounts", 1, "options", value=["rslave", "rprivate"]), "mounts[/x/y]"),
        (at("mounts", 1, "uidMappings", value=[]), "mounts[/x/y]"),
        (lambda spec: spec["mounts"].append({"destination": "/x"}), "mounts[/x]"),
        (at("hooks", "later", value=[]), "hooks.later"),
        (at("hooks", "prestart", 0, "path", value="h"), "hooks.prestart"),
        (at("hooks", "prestart", 0, "timeout", value=0), "hooks.prestart"),
        (at("linux", "unknown", value=1), "linux.unknown"),
        (at("linux", "namespaces", 0, "type", value="net"), "linux.namespaces"),
        (at("linux", "namespaces", 0, "type", value="user"), "linux.namespaces"),
        (at("linux", "namespaces", 1, "path", value="u"), "linux.namespaces"),
        (at("linux", "namespaces", value=[]), "linux.uidMappings"),
        (at("linux", "gidMappings", 0, "size", value=-1), "linux.gidMappings"),
        (at("linux", "devices", 0, "type", value="x"), "linux.devices"),
        (at("linux", "devices", 0, "path", value="x"), "linux.devices"),
        (without("linux", "devices", 0, "minor"), "linux.devices"),
        (at("linux", "devices", 0, "uid", value=-1), "linux.devices"),
        (at("linux", "maskedPaths", value=[1]), "linux.maskedPaths"),
        (at("linux", "rootfsPropagation", value="x"), "linux.rootfsPropagation"),
        (at("linux", "intelRdt", value={}), "linux.intelRdt"),
        (at("linux", "resources", "devices", 0, "access", value="x"), "linux.resources.devices"),
        (at("linux", "resources", "devices", 0, "allow", value=1), "linux.resources.devices"),
        (at("linux", "resources", "memory", "limit", value=-2), "linux.resources.memory.limit"),
        (at("linux", "resources", "memory", "unknown", value=1), "linux.resources.memory.unknown"),
        (at("linux", "resources", "cpu", "shares", value=-1), "linux.resources.cpu.shares"),
        (at("linux", "resources", "cpu", "cpus", value=1), "linux.resources.cpu.cpus"),
        (at("linux", "resources", "pids", "limit", value=-2), "linux.resources.pids.limit"),
        (at("linux", "resources", "hugepageLimits", 0, "limit", value=-1), "linux.resources.hugepageLimits"),
        (at("linux", "resources", "blockIO", "weight", value=1), "linux.resources.blockIO.weight"),
        (at("linux", "resources", "blockIO", "x", value=[{}]), "linux.resources.blockIO.x"),
        (at("linux", "seccomp", "defaultAction", value="ALLOW"), "linux.seccomp.defaultAction"),
        (at("linux", "seccomp", "architectures", value=["x86"]), "linux.seccomp.architectures"),
        (at("linux", "seccomp", "syscalls", 0, "names", value=[]), "linux.seccomp.syscalls"),
        (at("linux", "seccomp", "syscalls", 0, "action", value="x"), "linux.seccomp.syscalls"),
        (at("linux", "seccomp", "syscalls", 0, "args", 0, "op", value="EQ"), "linux.seccomp.syscalls"),
    ],
)
def test_a_broken_rule_is_found(change: Callable[[dict[str, Any]], None], place: str) -> None:
    spec = copy.deepcopy(VALID)
    change(spec)
    found = oci_rules.problems(spec)
    assert [problem for problem in found if problem.startswith(f"{place}:")], found
