"""What the node's configuration, and annotations that its handlers allow, make of a Linux spec."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.spec.allowed import is_allowed
from podwright.spec.inputs import DeviceNode, HandlerOptions, Policy, SandboxInput
from podwright.spec.linux.build import build_sandbox
from podwright.spec.linux.devices import lookups
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host, pod


def mounts(**given: Any) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in build(**given).spec["mounts"]}


# Which annotations mean something


@pytest.mark.parametrize(
    ("allowed", "key", "expected"),
    [
        ([], "umask.crio.io", False),
        (["umask.crio.io"], "umask.crio.io", True),
        (["umask.crio.io"], "umask.crio.io.more", False),
        (["seccomp-profile.crio.io"], "seccomp-profile.crio.io/POD", True),
        (["io.kubernetes.cri-o.*"], "io.kubernetes.cri-o.umask", True),
        (["*"], "anything/at.all", True),
    ],
)
def test_allowed_annotations(allowed: list[str], key: str, expected: bool) -> None:
    assert is_allowed(key, HandlerOptions(allowed_annotations=allowed)) == expected


def test_the_older_spelling_of_an_annotation_counts_where_the_newer_is_absent() -> None:
    handler = HandlerOptions(allowed_annotations=["*"])
    older, newer = {"io.kubernetes.cri-o.umask": "077"}, {"umask.crio.io": "027"}
    for given, expected in ((older, 0o077), (newer, 0o027), ({**older, **newer}, 0o027)):
        built = build(handler=handler, sandbox=pod(annotations=given))
        assert built.spec["process"]["user"]["umask"] == expected


# Devices

FUSE = DeviceNode(path="/dev/fuse", type="c", major=10, minor=229)
DEVICES = HandlerOptions(allowed_annotations=["devices.crio.io"])


@pytest.mark.parametrize(
    ("text", "path", "access"),
    [
        ("/dev/fuse", "/dev/fuse", "rwm"),
        ("/dev/fuse:/dev/x", "/dev/x", "rwm"),
        ("/dev/fuse:/dev/x:r", "/dev/x", "r"),
        ("/dev/fuse:rw", "/dev/fuse", "rw"),
    ],
)
def test_devices_of_the_node_and_of_annotations(text: str, path: str, access: str) -> None:
    sandbox = cri.PodSandboxConfig(annotations={"devices.crio.io": text})
    by_node, by_pod = Policy(additional_devices=[text]), Policy()
    for policy, handler, origin in ((by_node, HandlerOptions(), "node"), (by_pod, DEVICES, "request")):
        assert lookups(container(), handler, sandbox, policy).paths == ("/dev/fuse",)
        built = build(facts=host(policy), handler=handler, sandbox=sandbox, devices={"/dev/fuse": [FUSE]})
        assert [node["path"] for node in built.spec["linux"]["devices"]] == [path]
        assert built.spec["linux"]["resources"]["devices"][1]["access"] == access
        assert built.origins[f"linux.devices[{path}]"].startswith(origin)
    assert lookups(container(), HandlerOptions(), sandbox, by_pod).paths == ()


@pytest.mark.parametrize(
    "text", ["/dev/mem", "", "dev/fuse", "/dev/fuse:x", "/dev/fuse:/x:y", "/dev/fuse,/dev/sda"]
)
def test_other_devices_are_not_for_annotations(text: str) -> None:
    sandbox = cri.PodSandboxConfig(annotations={"devices.crio.io": text})
    nodes = {path: [DeviceNode(path=path, type="c", major=1, minor=1)] for path in ("/dev/mem", "/dev/sda")}
    with pytest.raises(InvalidArgument, match=r"annotations\[devices\.crio\.io\]"):
        build(sandbox=sandbox, handler=DEVICES, devices={"/dev/fuse": [FUSE], **nodes})


def test_a_device_that_is_asked_for_wins_over_the_nodes() -> None:
    other = DeviceNode(path="/dev/other", type="b", major=1, minor=1)
    built = build(
        container(devices=[cri.Device(host_path="/dev/other", container_path="/dev/fuse", permissions="r")]),
        host(Policy(additional_devices=["/dev/fuse"])),
        devices={"/dev/fuse": [FUSE], "/dev/other": [other]},
    )
    assert [(node["path"], node["type"]) for node in built.spec["linux"]["devices"]] == [("/dev/fuse", "b")]


def test_devices_belong_to_the_user_only_where_the_node_says_so() -> None:
    security = cri.LinuxContainerSecurityContext(
        run_as_user=cri.Int64Value(value=7), run_as_group=cri.Int64Value(value=8)
    )
    config = container(security, devices=[cri.Device(host_path="/dev/fuse", permissions="r")])
    for policy, owner in ((Policy(), (0, 0)), (Policy(device_ownership_from_security_context=True), (7, 8))):
        (node,) = build(config, host(policy), devices={"/dev/fuse": [FUSE]}).spec["linux"]["devices"]
        assert (node["uid"], node["gid"]) == owner


# Mounts


def test_the_time_zone_is_a_file_that_requests_may_replace() -> None:
    facts = host(localtime="/usr/share/zoneinfo/Europe/Berlin")
    found = mounts(facts=facts)["/etc/localtime"]
    assert found["source"].endswith("Berlin") and "ro" in found["options"]
    own = container(mounts=[cri.Mount(container_path="/etc/localtime", host_path="/own")])
    assert mounts(config=own, facts=facts)["/etc/localtime"]["source"] == "/own"
    assert "/etc/localtime" not in mounts()


def test_read_only_everywhere_leaves_room_to_write() -> None:
    facts = host(Policy(read_only_rootfs=True))
    built = build(facts=facts)
    assert built.spec["root"]["readonly"] and built.origins["root.readonly"] == "node: read_only_rootfs"
    found = mounts(facts=facts)
    assert {place for place in found if found[place].get("type") == "tmpfs"} == {
        "/dev",
        "/run",
        "/tmp",
        "/var/tmp",
    }
    assert "ro" in found["/etc/hosts"]["options"]
    asked = container(cri.LinuxContainerSecurityContext(readonly_rootfs=True))
    assert "/tmp" not in mounts(config=asked, facts=facts)


@pytest.mark.parametrize(
    ("program", "prepared"),
    [("/sbin/init", True), ("/usr/sbin/init", True), ("/lib/systemd/systemd", True), ("/bin/init", False)],
)
def test_systemd_finds_what_it_needs(program: str, prepared: bool) -> None:
    config = container(command=[program])
    built = build(config, host(Policy(systemd=True)))
    found = {mount["destination"]: mount for mount in built.spec["mounts"]}
    assert ("/run/lock" in found) == prepared
    assert ("rw" in found["/sys/fs/cgroup"]["options"]) == prepared
    assert ("container=podwright" in built.spec["process"]["env"]) == prepared
    assert "/run/lock" not in mounts(config=config)


@pytest.mark.parametrize(
    ("version", "annotation", "allowed", "access"),
    [
        (2, "true", True, "rw"),
        (2, "true", False, "ro"),
        (2, "false", True, "ro"),
        (1, "true", True, "ro"),
    ],
)
def test_the_cgroup_is_writable_by_annotation_on_v2(
    version: int, annotation: str, allowed: bool, access: str
) -> None:
    key = "cgroup2-mount-hierarchy-rw.crio.io"
    found = mounts(
        facts=host(cgroup_version=version),
        sandbox=cri.PodSandboxConfig(annotations={key: annotation}),
        handler=HandlerOptions(allowed_annotations=[key] if allowed else []),
    )
    assert found["/sys/fs/cgroup"]["options"][-1] == access


def test_a_mount_of_the_hosts_cgroup_keeps_its_options() -> None:
    facts = host(cgroup_mount_options=frozenset({"rw", "nsdelegate", "memory_recursiveprot"}))
    privileged = container(cri.LinuxContainerSecurityContext(privileged=True))
    shared = pod(cri.LinuxSandboxSecurityContext(privileged=True))
    options = mounts(config=privileged, sandbox=shared, facts=facts)["/sys/fs/cgroup"]["options"]
    assert options[-3:] == ["rw", "nsdelegate", "memory_recursiveprot"]
    # In a cgroup namespace of its own the mount has no say.
    assert "nsdelegate" not in mounts(facts=facts)["/sys/fs/cgroup"]["options"]
    old = host(cgroup_version=1, cgroup_mount_options=frozenset({"nsdelegate"}))
    assert mounts(config=privileged, sandbox=shared, facts=old)["/sys/fs/cgroup"]["options"][-1] == "rw"


# The pause process


@pytest.mark.parametrize(("cpuset", "expected"), [("", {"shares": 2}), ("0-1", {"shares": 2, "cpus": "0-1"})])
def test_pause_processes_have_processors_of_their_own(cpuset: str, expected: dict[str, Any]) -> None:
    request = SandboxInput(id="s", config=pod(), cgroups_path="/p", rootfs_path="/r")
    spec = build_sandbox(request, host(Policy(pause_cpuset=cpuset))).spec
    assert spec["linux"]["resources"]["cpu"] == expected


# Id mappings


@pytest.mark.parametrize(("first", "length", "fine"), [(0, 2**32 - 1, True), (1, 2**32 - 1, False)])
def test_mappings_end_with_the_last_id(first: int, length: int, fine: bool) -> None:
    mapping = [cri.IDMapping(host_id=first, length=length)]
    mount = cri.Mount(container_path="/x", host_path="/y", uidMappings=mapping, gidMappings=mapping)
    handler = HandlerOptions(idmapped_mounts=True)
    if fine:
        assert mounts(config=container(mounts=[mount]), handler=handler)["/x"]["uidMappings"]
    else:
        with pytest.raises(InvalidArgument, match=r"config\.mounts\[0\]\.uidMappings"):
            mounts(config=container(mounts=[mount]), handler=handler)
