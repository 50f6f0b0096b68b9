"""Rules of a container's spec that the recorded cases do not reach, and what holds for any request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError, Unimplemented
from podwright.spec.encode import encode
from podwright.spec.inputs import (
    ContainerInput,
    DeviceNode,
    HandlerOptions,
    HostFacts,
    ImageConfig,
    MountSource,
    NamespacePaths,
    Policy,
    SandboxInput,
    SystemFiles,
)
from podwright.spec.linux import devices, mounts, security
from podwright.spec.linux.build import Built, build_container, build_sandbox
from podwright.spec.linux.capabilities import DEFAULT, KNOWN
from podwright.spec.linux.paths import clean
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.wire import cri_pb2 as cri

Mode = cri.NamespaceMode
HOST = HostFacts(
    hostname="node",
    capabilities=sorted(KNOWN),
    kernel=(6, 1),
    default_seccomp=SeccompProfile({"defaultAction": "SCMP_ACT_ERRNO"}, "default"),
)
PINNED = NamespacePaths(net="/pins/net", ipc="/pins/ipc", uts="/pins/uts")


def container(
    security: cri.LinuxContainerSecurityContext | None = None, **fields: Any
) -> cri.ContainerConfig:
    linux = cri.LinuxContainerConfig(security_context=security)
    return cri.ContainerConfig(command=["/c"], linux=linux, **fields)


def sandbox(options: cri.NamespaceOption | None = None, **fields: Any) -> cri.PodSandboxConfig:
    security = cri.LinuxSandboxSecurityContext(namespace_options=options, **fields)
    return cri.PodSandboxConfig(linux=cri.LinuxPodSandboxConfig(security_context=security))


def build(config: cri.ContainerConfig, host: HostFacts = HOST, **given: Any) -> Built:
    values: dict[str, Any] = {
        "id": "c",
        "config": config,
        "sandbox_id": "s",
        "sandbox": sandbox(),
        "image": ImageConfig(),
        "cgroups_path": "/pod/c",
        "namespaces": PINNED,
        "system": SystemFiles(
            hostname="/s/hostname", hosts="/s/hosts", resolv_conf="/s/resolv", shm="/s/shm"
        ),
    }
    return build_container(ContainerInput(**{**values, **given}), host)


# Namespaces


@pytest.mark.parametrize(
    ("mode", "pod_mode", "paths", "entry"),
    [
        (Mode.CONTAINER, Mode.POD, {"pid": "/p"}, {"type": "pid"}),
        (Mode.POD, Mode.POD, {"pid": "/p"}, {"type": "pid", "path": "/p"}),
        (Mode.NODE, Mode.NODE, {}, None),
        (Mode.POD, Mode.NODE, {}, None),
        (Mode.TARGET, Mode.CONTAINER, {"target_pid": "/t"}, {"type": "pid", "path": "/t"}),
        # A container cannot leave its pod: without a namespace to share it gets its own.
        (Mode.NODE, Mode.CONTAINER, {}, {"type": "pid"}),
        (Mode.POD, Mode.CONTAINER, {}, {"type": "pid"}),
        (77, Mode.POD, {"pid": "/p"}, {"type": "pid", "path": "/p"}),
    ],
)
def test_pid_namespace(mode: int, pod_mode: int, paths: dict[str, str], entry: dict[str, str] | None) -> None:
    options = cri.NamespaceOption(pid=mode)  # type: ignore[arg-type]
    built = build(
        container(cri.LinuxContainerSecurityContext(namespace_options=options)),
        sandbox=sandbox(cri.NamespaceOption(pid=pod_mode)),  # type: ignore[arg-type]
        namespaces=NamespacePaths(net="/pins/net", **paths),
    )
    found = [item for item in built.spec["linux"]["namespaces"] if item["type"] == "pid"]
    assert found == ([entry] if entry else [])


def test_a_container_that_gets_no_shared_pid_namespace_is_warned_about() -> None:
    built = build(container(), sandbox=sandbox(cri.NamespaceOption(pid=Mode.CONTAINER)))
    assert any("PID" in warning for warning in built.warnings)


def test_host_namespaces_are_left_out() -> None:
    built = build(container(), namespaces=NamespacePaths(pid="/p"))
    kinds = [item["type"] for item in built.spec["linux"]["namespaces"]]
    assert kinds == ["pid", "mount", "cgroup"]


def test_user_namespaces_need_an_engine_that_made_one() -> None:
    mapping = [cri.IDMapping(host_id=100000, length=65536)]
    options = cri.NamespaceOption(userns_options=cri.UserNamespace(uids=mapping, gids=mapping))
    with pytest.raises(Unimplemented):
        build(
            container(cri.LinuxContainerSecurityContext(namespace_options=options)), sandbox=sandbox(options)
        )


@pytest.mark.parametrize(
    "userns",
    [
        cri.UserNamespace(mode=Mode.NODE, uids=[cri.IDMapping(length=1)]),
        cri.UserNamespace(uids=[cri.IDMapping(length=1)]),
        cri.UserNamespace(uids=[cri.IDMapping()], gids=[cri.IDMapping(length=1)]),
        cri.UserNamespace(uids=[cri.IDMapping(length=1)] * 2, gids=[cri.IDMapping(length=1)]),
        cri.UserNamespace(mode=Mode.TARGET),
    ],
)
def test_unsound_user_namespaces_are_refused(userns: cri.UserNamespace) -> None:
    options = cri.NamespaceOption(userns_options=userns)
    with pytest.raises(InvalidArgument, match="userns_options"):
        build(
            container(cri.LinuxContainerSecurityContext(namespace_options=options)),
            sandbox=sandbox(options),
            namespaces=NamespacePaths(user="/pins/user"),
        )


# Capabilities


def test_nothing_beyond_the_daemons_bounding_set_is_given() -> None:
    host = HostFacts(hostname="h", capabilities=["CAP_CHOWN", "CAP_KILL", "CAP_SYS_TIME"])
    plain = build(container(), host).spec["process"]["capabilities"]
    assert plain == {key: ["CAP_CHOWN", "CAP_KILL"] for key in ("bounding", "effective", "permitted")}
    asked = cri.Capability(add_capabilities=["all", "SYS_ADMIN"], drop_capabilities=["cap_kill"])
    built = build(container(cri.LinuxContainerSecurityContext(capabilities=asked)), host)
    assert built.spec["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_SYS_TIME"]
    assert any("CAP_SYS_ADMIN" in warning for warning in built.warnings)


def test_a_kernel_of_its_own_has_a_hostname_and_fewer_capabilities() -> None:
    gvisor = HandlerOptions(own_kernel=True)
    named = cri.PodSandboxConfig(hostname="pod")
    assert build(container(), sandbox=named, handler=gvisor).spec["hostname"] == "pod"
    assert build(container(), handler=gvisor).spec["hostname"] == "node"
    assert "hostname" not in build(container(), sandbox=named).spec
    asked = cri.Capability(add_capabilities=["ALL", "BPF"])
    built = build(container(cri.LinuxContainerSecurityContext(capabilities=asked)), handler=gvisor)
    given = set(built.spec["process"]["capabilities"]["bounding"])
    assert KNOWN - given == {"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}
    assert any("CAP_BPF" in warning for warning in built.warnings)


@pytest.mark.parametrize("name", ["NOT_A_CAP", "", "CAP_", "ALLE"])
def test_adding_what_is_no_capability_is_refused(name: str) -> None:
    asked = cri.Capability(add_capabilities=[name])
    with pytest.raises(InvalidArgument, match="add_capabilities"):
        build(container(cri.LinuxContainerSecurityContext(capabilities=asked)))


names = st.sampled_from([*sorted(KNOWN), "ALL"]).flatmap(
    lambda name: st.sampled_from([name, name.lower(), name.removeprefix("CAP_")])
)


@given(st.lists(names, max_size=6), st.lists(names, max_size=6))
def test_capabilities_follow_the_order_all_then_adds_then_drops(add: list[str], drop: list[str]) -> None:
    def full(name: str) -> str:
        upper = name.upper()
        return upper if upper == "ALL" or upper.startswith("CAP_") else "CAP_" + upper

    added, dropped = {full(name) for name in add}, {full(name) for name in drop}
    expected = set(KNOWN) if "ALL" in added else set(DEFAULT)
    if "ALL" in dropped:
        expected = set()
    expected = (expected | (added - {"ALL"})) - dropped
    asked = cri.Capability(add_capabilities=add, drop_capabilities=drop)
    found = build(container(cri.LinuxContainerSecurityContext(capabilities=asked))).spec
    bounding = found["process"]["capabilities"]["bounding"]
    assert set(bounding) == expected
    assert len(bounding) == len(expected)


# Environment


def test_a_variable_without_a_value_in_the_image_removes_it() -> None:
    built = build(container(), image=ImageConfig(env=("PATH", "HOSTNAME", "NEW")))
    assert built.spec["process"]["env"] == []


def test_environment_values_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"config\.envs\[BAD\]"):
        build(container(envs=[cri.KeyValue(key="BAD", value=b"\xff")]))


variables = st.lists(st.tuples(st.sampled_from("ABC"), st.text(alphabet="xy=", max_size=3)), max_size=5)


@given(variables, variables)
def test_the_last_value_of_the_request_is_what_a_program_reads(
    image: list[tuple[str, str]], request: list[tuple[str, str]]
) -> None:
    config = container(envs=[cri.KeyValue(key=key, value=value.encode()) for key, value in request])
    built = build(config, image=ImageConfig(env=tuple(f"{key}={value}" for key, value in image)))
    # Runtimes put the list into the environment in order, so the last one stays.
    found = dict(item.split("=", 1) for item in built.spec["process"]["env"])
    assert {key: found[key] for key in dict(request)} == dict(request)
    assert {key: found[key] for key in dict(image) if key not in dict(request)} == {
        key: value for key, value in dict(image).items() if key not in dict(request)
    }


# Mounts


@pytest.mark.parametrize(
    ("mount", "error"),
    [
        (cri.Mount(container_path="", host_path="/x"), InvalidArgument),
        (cri.Mount(container_path="/x", host_path=""), InvalidArgument),
        (cri.Mount(container_path="/x", host_path="/x", propagation=9), InvalidArgument),  # type: ignore[arg-type]
        (cri.Mount(container_path="/x", host_path="/x", recursive_read_only=True), InvalidArgument),
        (
            cri.Mount(container_path="/x", host_path="/x", recursive_read_only=True, readonly=True),
            FailedPrecondition,
        ),
        (
            cri.Mount(
                container_path="/x",
                host_path="/y",
                uidMappings=[cri.IDMapping(length=1)],
                gidMappings=[cri.IDMapping(length=1)],
            ),
            FailedPrecondition,
        ),
        (
            cri.Mount(container_path="/x", host_path="/y", uidMappings=[cri.IDMapping(length=1)]),
            InvalidArgument,
        ),
        (cri.Mount(container_path="/", host_path="/y", readonly=True), InvalidArgument),
        (cri.Mount(container_path="//x/..", host_path="/"), InvalidArgument),
        (cri.Mount(container_path="/x", image=cri.ImageSpec(image="i")), InvalidArgument),
        (
            cri.Mount(container_path="/x", host_path="/y", readonly=True, image=cri.ImageSpec(image="i")),
            InvalidArgument,
        ),
        (cri.Mount(container_path="/x", readonly=True, image=cri.ImageSpec(image="i")), Unimplemented),
    ],
)
def test_mounts_that_cannot_be_are_refused(mount: cri.Mount, error: type[PodwrightError]) -> None:
    with pytest.raises(error):
        build(container(mounts=[mount]))


def test_lookups_refuse_a_bad_mount_before_anything_is_made_for_it() -> None:
    config = container(
        mounts=[cri.Mount(container_path="/a", host_path="/a"), cri.Mount(container_path="/x")]
    )
    with pytest.raises(InvalidArgument, match=r"config\.mounts\[1\]"):
        mounts.lookups(config)


def test_a_source_that_the_node_wants_to_be_there_is_not_made() -> None:
    config = container(
        mounts=[cri.Mount(container_path="/a", host_path=path) for path in ("/etc//hostname/", "/etc/hosts")]
    )
    policy = Policy(absent_mount_sources_to_reject=["/etc/hostname"])
    assert [each.make for each in mounts.lookups(config, policy)] == [False, True]
    assert [each.make for each in mounts.lookups(config)] == [True, True]
    assert "absent_mount_sources_to_reject" in str(mounts.absent(mounts.lookups(config, policy)[0], 0))


@pytest.mark.parametrize(
    ("propagation", "shared", "slave", "fine"),
    [
        (cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER, False, False, False),
        (cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER, False, True, True),
        (cri.MountPropagation.PROPAGATION_BIDIRECTIONAL, False, True, False),
        (cri.MountPropagation.PROPAGATION_BIDIRECTIONAL, True, False, True),
    ],
)
def test_the_source_must_propagate_as_far_as_the_mount(
    propagation: Any, shared: bool, slave: bool, fine: bool
) -> None:
    config = container(mounts=[cri.Mount(container_path="/x", host_path="/y", propagation=propagation)])
    source = MountSource(path="/y", mountpoint="/", shared=shared, slave=slave)
    if fine:
        assert build(config, mount_sources=[source]).spec["linux"]["rootfsPropagation"]
    else:
        with pytest.raises(FailedPrecondition, match="make-rshared"):
            build(config, mount_sources=[source])


@pytest.mark.parametrize(("directory", "access"), [(True, "rro"), (False, "ro")])
def test_only_a_directory_is_made_read_only_with_what_lies_below(directory: bool, access: str) -> None:
    mount = cri.Mount(container_path="/x", host_path="/y", readonly=True, recursive_read_only=True)
    source = MountSource(path="/y", directory=directory)
    handler = HandlerOptions(recursive_read_only=True)
    built = build(container(mounts=[mount]), mount_sources=[source], handler=handler)
    entry = next(entry for entry in built.spec["mounts"] if entry["destination"] == "/x")
    assert entry["options"] == ["rbind", "rprivate", access]


paths = st.lists(
    st.sampled_from(["a", "b", "dev", "shm", "etc", "hosts", "..", ".", ""]), min_size=1, max_size=4
).map(lambda parts: "/" + "/".join(parts))


@given(
    st.lists(paths.filter(lambda path: clean(path) != "/"), max_size=6),
    st.lists(paths, max_size=3, unique=True),
)
def test_parents_are_mounted_before_children_and_the_request_wins(
    asked: list[str], volumes: list[str]
) -> None:
    config = container(mounts=[cri.Mount(container_path=path, host_path="/host") for path in asked])
    image = ImageConfig(volumes=tuple(volumes))
    needed = mounts.volumes_needed(config, image, Policy())
    built = build(config, image=image, volumes=dict.fromkeys(needed, "/volume"))
    taken = {clean(path) for path in asked}
    entries = [entry for entry in built.spec["mounts"] if entry["type"] == "bind"]
    assert [entry["source"] for entry in entries].count("/host") == len(asked)
    for entry in entries:
        if entry["source"] != "/host":
            assert clean(entry["destination"]) not in taken
    depths = [len([part for part in clean(entry["destination"]).split("/") if part]) for entry in entries]
    assert depths == sorted(depths)


# Devices


def test_lookups_name_each_path_once_and_all_of_dev_for_privileged_containers() -> None:
    device = cri.Device(host_path="/dev/x", permissions="r")
    config = container(cri.LinuxContainerSecurityContext(privileged=True), devices=[device, device])
    assert devices.lookups(config, HandlerOptions()) == (("/dev/x",), True)
    without = HandlerOptions(privileged_without_host_devices=True)
    assert devices.lookups(config, without) == (("/dev/x",), False)


@pytest.mark.parametrize(
    ("found", "permissions"), [({}, "r"), ({"/dev/x": []}, "r"), ({"/dev/x": [object]}, "rx")]
)
def test_devices_that_cannot_be_are_refused(found: dict[str, list[Any]], permissions: str) -> None:
    nodes = {
        key: [DeviceNode(path=key, type="c", major=1, minor=3) for _ in value] for key, value in found.items()
    }
    with pytest.raises(InvalidArgument, match=r"config\.devices\[0\]"):
        build(container(devices=[cri.Device(host_path="/dev/x", permissions=permissions)]), devices=nodes)


def test_a_device_asked_for_replaces_the_hosts_own_at_the_same_path() -> None:
    config = container(
        cri.LinuxContainerSecurityContext(privileged=True),
        devices=[cri.Device(host_path="/dev/other", container_path="/dev/x", permissions="rwm")],
    )
    built = build(
        config,
        sandbox=sandbox(privileged=True),
        host_devices=[DeviceNode(path="/dev/x", type="c", major=1, minor=3)],
        devices={"/dev/other": [DeviceNode(path="/dev/other", type="b", major=7, minor=0)]},
    )
    assert [(node["path"], node["type"]) for node in built.spec["linux"]["devices"]] == [("/dev/x", "b")]


# Seccomp


@pytest.mark.parametrize(
    ("context", "path"),
    [
        (cri.LinuxContainerSecurityContext(), ""),
        (cri.LinuxContainerSecurityContext(seccomp_profile_path="localhost//p"), "/p"),
        (
            cri.LinuxContainerSecurityContext(
                seccomp=cri.SecurityProfile(profile_type="Localhost", localhost_ref="/p")
            ),
            "/p",
        ),
        (cri.LinuxContainerSecurityContext(seccomp=cri.SecurityProfile()), ""),
        (cri.LinuxContainerSecurityContext(privileged=True, seccomp_profile_path="localhost//p"), ""),
    ],
)
def test_the_profile_file_to_read(context: cri.LinuxContainerSecurityContext, path: str) -> None:
    assert security.localhost_path(context, Policy()) == path


def test_a_profile_needs_a_kernel_with_seccomp_and_an_installed_default() -> None:
    config = container(cri.LinuxContainerSecurityContext(seccomp=cri.SecurityProfile()))
    with pytest.raises(FailedPrecondition, match="no seccomp"):
        build(config, HostFacts(hostname="h", seccomp=False))
    with pytest.raises(FailedPrecondition, match="no default profile"):
        build(config, HostFacts(hostname="h"))


def test_an_apparmor_default_that_is_asked_for_must_exist() -> None:
    context = cri.LinuxContainerSecurityContext(apparmor=cri.SecurityProfile())
    without = HostFacts(hostname="h", apparmor=True)
    with pytest.raises(FailedPrecondition, match="no default profile"):
        build(container(context), without)
    assert "apparmorProfile" not in build(container(), without).spec["process"]


# Annotations


@pytest.mark.parametrize(
    ("pattern", "key", "passes"),
    [
        ("*", "plain", True),
        ("*", "a/b", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a.?", "a.b", True),
        ("a.?", "axb", False),
        ("[ab]/x", "b/x", True),
        ("[!ab]/x", "b/x", False),
        ("[", "[", True),
    ],
)
def test_annotation_patterns(pattern: str, key: str, passes: bool) -> None:
    config = container(annotations={key: "v"})
    built = build(config, handler=HandlerOptions(container_annotations=[pattern]))
    assert built.spec["annotations"].get(key) == ("v" if passes else None)


def test_a_runtime_without_sandbox_containers_is_not_told_of_one() -> None:
    built = build(container(), handler=HandlerOptions(type_annotations=False))
    assert (
        not {"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"}
        & built.spec["annotations"].keys()
    )


# Sysctls


@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [
        (None, {}, {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}),
        (cri.NamespaceOption(network=Mode.NODE), {"kernel.shmmax": "1"}, {"kernel.shmmax": "1"}),
        (
            None,
            {"net/ipv4/ip_unprivileged_port_start": "7", "net/ipv4/conf/eth0.1/forwarding": "1"},
            {
                "net.ipv4.ip_unprivileged_port_start": "7",
                "net.ipv4.ping_group_range": "0 2147483647",
                "net.ipv4.conf.eth0/1.forwarding": "1",
            },
        ),
    ],
)
def test_sysctls_of_a_pod(
    options: cri.NamespaceOption | None, asked: dict[str, str], expected: dict[str, str]
) -> None:
    config = sandbox(options)
    config.linux.sysctls.update(asked)
    assert sandbox_sysctls(config, Policy()) == expected


# The pause process


def test_the_pause_process_has_no_rights_and_writes_nothing() -> None:
    request = SandboxInput(
        id="s", config=sandbox(), cgroups_path="/pod/s", rootfs_path="/pause", namespaces=PINNED
    )
    spec = build_sandbox(request, HOST).spec
    assert spec["process"]["args"] == ["/catatonit", "-P"]
    assert spec["process"]["noNewPrivileges"]
    assert spec["process"]["capabilities"] == {"bounding": [], "effective": [], "permitted": []}
    assert spec["process"]["oomScoreAdj"] == -998
    assert spec["process"]["user"]["uid"] == 65535
    assert spec["root"] == {"path": "/pause", "readonly": True}
    assert spec["linux"]["resources"]["cpu"] == {"shares": 2}
    assert {"type": "pid"} in spec["linux"]["namespaces"]
    assert {"type": "network", "path": "/pins/net"} in spec["linux"]["namespaces"]


# Any request


@pytest.mark.parametrize("explain", [False, True])
def test_origins_are_recorded_only_when_asked_for(explain: bool) -> None:
    request = ContainerInput(
        id="c",
        config=container(),
        sandbox_id="s",
        sandbox=sandbox(),
        image=ImageConfig(),
        cgroups_path="",
    )
    assert bool(build_container(request, HOST, explain=explain).origins) == explain


@given(
    st.builds(
        cri.LinuxContainerSecurityContext,
        privileged=st.booleans(),
        readonly_rootfs=st.booleans(),
        no_new_privs=st.booleans(),
        run_as_username=st.sampled_from(["", "root", "5"]),
        supplemental_groups=st.lists(st.integers(-1, 9), max_size=2),
        supplemental_groups_policy=st.integers(0, 2),
        seccomp_profile_path=st.sampled_from(["", "runtime/default", "unconfined", "localhost/x", "bad"]),
        apparmor_profile=st.sampled_from(["", "unconfined", "localhost/x"]),
        masked_paths=st.lists(st.text(max_size=3), max_size=2),
    ),
    st.text(max_size=5),
)
def test_any_request_gives_a_spec_or_one_of_our_errors(
    context: cri.LinuxContainerSecurityContext, text: str
) -> None:
    config = container(context, working_dir=text, tty=bool(text))
    try:
        encode(build(config).spec)
    except PodwrightError:
        pass
