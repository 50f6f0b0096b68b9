"""base_runtime_spec: what stays of it, and what rules replace."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.spec import base_spec
from podwright.spec.inputs import DeviceNode, HandlerOptions, HostFacts, Policy
from podwright.spec.rlimits import Rlimit
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host, pod

BASE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": 5, "gid": 5, "umask": 63},
        "args": ["base"],
        "cwd": "/base",
        "env": ["BASE=1", "PATH=/base"],
        "noNewPrivileges": True,
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_CHOWN"]},
        "oomScoreAdj": 5,
        "apparmorProfile": "of-base",
        "selinuxLabel": "a:b:c:s0",
    },
    "root": {"path": "elsewhere", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/extra", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    ],
    "hooks": {"poststop": [{"path": "/base-hook"}]},
    "annotations": {"base": "1", "io.kubernetes.cri.container-name": "forged"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "time"}],
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "access": "r"}],
            "cpu": {"shares": 7, "cpus": "0"},
            "pids": {"limit": 9},
        },
        "maskedPaths": ["/proc/base"],
        "seccomp": {"defaultAction": "SCMP_ACT_LOG"},
        "devices": [{"path": "/dev/base", "type": "c", "major": 1, "minor": 3}],
        "rootfsPropagation": "rshared",
    },
}
PARSED = base_spec.parse(json.dumps(BASE).encode(), "/base.json")
HANDLER = HandlerOptions(name="kata", base_spec=PARSED)
DEVICE = cri.Device(host_path="/dev/x", permissions="r")
BASE_ORIGIN = "handler: kata base_runtime_spec"


def based(config: cri.ContainerConfig | None = None, facts: HostFacts | None = None, **given: Any) -> Any:
    return build(config, facts, **{"handler": HANDLER, **given})


def test_what_nobody_asks_for_is_the_base_specs() -> None:
    built = based()
    process, linux = built.spec["process"], built.spec["linux"]
    assert process["cwd"] == "/base" and process["oomScoreAdj"] == 5
    assert process["env"][0] == "BASE=1"
    assert process["apparmorProfile"] == "of-base"
    granted = ["CAP_CHOWN", "CAP_KILL"]
    assert process["capabilities"] == {"bounding": granted, "effective": granted, "permitted": granted}
    assert built.spec["root"]["readonly"]
    assert built.spec["hooks"] == BASE["hooks"]
    assert linux["seccomp"] == {"defaultAction": "SCMP_ACT_LOG"}
    assert linux["resources"]["pids"] == {"limit": 9}
    assert linux["resources"]["devices"] == BASE["linux"]["resources"]["devices"]
    assert linux["devices"] == BASE["linux"]["devices"]
    assert {"type": "time"} in linux["namespaces"]
    for place in ("process.cwd", "hooks.poststop", "linux.seccomp", "process.env[BASE]", "mounts[/extra]"):
        assert built.origins[place] == BASE_ORIGIN


def test_members_that_no_field_of_a_request_has_are_the_base_specs() -> None:
    more = {"personality": {"domain": "LINUX32"}, "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 0}}}
    tree = {**BASE, "linux": {**BASE["linux"], **more}}
    handler = HandlerOptions(base_spec=base_spec.parse(json.dumps(tree).encode(), "/base.json"))
    linux = build(handler=handler).spec["linux"]
    assert {name: linux[name] for name in more} == more


def test_what_the_runtime_decides_is_not_the_base_specs() -> None:
    spec = based().spec
    assert spec["process"]["args"] == ["/c"]
    assert spec["process"]["user"] == {"uid": 0, "gid": 0, "additionalGids": [0], "umask": 63}
    assert "noNewPrivileges" not in spec["process"] and "selinuxLabel" not in spec["process"]
    assert "maskedPaths" not in spec["linux"]
    assert spec["root"]["path"] == "rootfs"
    assert spec["linux"]["cgroupsPath"] == "/pod/c"
    assert [entry for entry in spec["linux"]["namespaces"] if entry["type"] == "network"] == [
        {"type": "network", "path": "/pins/net"}
    ]
    assert spec["annotations"]["base"] == "1"
    assert spec["annotations"]["io.kubernetes.cri.container-name"] == "main"


def test_mounts_are_the_base_specs_without_run_and_with_cgroups() -> None:
    places = [mount["destination"] for mount in based().spec["mounts"]]
    assert places[:4] == ["/proc", "/sys", "/extra", "/sys/fs/cgroup"]
    assert "/run" not in places


def test_a_base_spec_may_mount_cgroups_itself() -> None:
    own = {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": ["rw"]}
    base = base_spec.parse(json.dumps({**BASE, "mounts": [own]}).encode(), "/base.json")
    spec = based(handler=HandlerOptions(name="kata", base_spec=base)).spec
    assert [mount for mount in spec["mounts"] if mount["destination"] == "/sys/fs/cgroup"] == [own]


def test_a_request_adds_to_the_base_spec_or_replaces_it() -> None:
    limits = cri.LinuxContainerResources(cpu_shares=100, memory_limit_in_bytes=99, oom_score_adj=1)
    security = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["KILL"]),
        seccomp=cri.SecurityProfile(),
        no_new_privs=True,
        masked_paths=["/m"],
    )
    mount = cri.Mount(container_path="/extra", host_path="/host")
    spec = based(container(security, resources=limits, mounts=[mount], working_dir="/w")).spec
    assert spec["linux"]["resources"]["cpu"] == {"shares": 100, "cpus": "0"}
    assert spec["linux"]["resources"]["memory"] == {"limit": 99}
    assert spec["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_NET_ADMIN"]
    assert spec["process"]["noNewPrivileges"] and spec["process"]["cwd"] == "/w"
    assert spec["process"]["oomScoreAdj"] == 1
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert spec["linux"]["maskedPaths"] == ["/m"]
    assert [mount["source"] for mount in spec["mounts"] if mount["destination"] == "/extra"] == ["/host"]


def test_a_privileged_container_is_not_confined_by_the_base_spec() -> None:
    spec = based(
        container(cri.LinuxContainerSecurityContext(privileged=True)),
        sandbox=pod(cri.LinuxSandboxSecurityContext(privileged=True)),
    ).spec
    assert "seccomp" not in spec["linux"] and "apparmorProfile" not in spec["process"]
    assert "CAP_SYS_ADMIN" in spec["process"]["capabilities"]["bounding"]
    options = {mount["destination"]: mount.get("options") for mount in spec["mounts"]}
    assert options["/sys"] == ["rw"] and "rw" in options["/sys/fs/cgroup"]


def test_the_rootfs_propagates_no_less_than_in_the_base_spec() -> None:
    mount = cri.Mount(container_path="/x", host_path="/y", propagation="PROPAGATION_HOST_TO_CONTAINER")
    assert based(container(mounts=[mount])).spec["linux"]["rootfsPropagation"] == "rshared"


def test_builds_do_not_change_the_base_spec() -> None:
    before = json.dumps(PARSED.spec)
    based(
        container(resources=cri.LinuxContainerResources(cpu_shares=100), devices=[DEVICE]),
        host(Policy(default_ulimits=[Rlimit("RLIMIT_CORE", 0, 0)], pids_limit=5)),
        devices={"/dev/x": [DeviceNode(path="/dev/x", type="c", major=1, minor=1)]},
    )
    assert json.dumps(PARSED.spec) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no OCI runtime spec"),
        (b"[]", "no OCI runtime spec"),
        (b"{}", "ociVersion"),
        (b'{"ociVersion": "1", "mounts": [{}]}', "destination"),
        (b'{"ociVersion": "1", "mounts": [{"destination": "x"}]}', "not absolute"),
        (b'{"ociVersion": "1", "linux": {"resources": []}}', "resources"),
    ],
)
def test_files_that_are_no_spec_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        base_spec.parse(content, "/base.json")
    assert "/base.json" in str(caught.value)
