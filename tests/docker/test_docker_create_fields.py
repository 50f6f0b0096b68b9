"""Members of create requests that no recording shows, and what is refused, field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from podwright.engines.base import Container
from podwright.engines.docker import limits, refused
from podwright.engines.docker.container_config import Found, create_request
from podwright.engines.docker.features import Features
from podwright.engines.docker.sandbox_config import create_request as sandbox_request
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError, Unimplemented
from podwright.spec.inputs import Policy
from podwright.spec.rlimits import Rlimit
from podwright.wire import cri_pb2 as cri
from tests.docker import golden

Change = Callable[[Container], object]


def made(change: Change, features: Features = golden.FEATURES) -> dict[str, Any]:
    """The request of a container that was changed so."""
    container = golden.container_of("create-minimal")
    change(container)
    body: dict[str, Any] = create_request(
        container, features, golden.OWNER, Found(sandbox="s", target="t" * 64)
    )
    return body


def pod(
    change: Callable[[cri.PodSandboxConfig], object], features: Features = golden.FEATURES
) -> dict[str, Any]:
    sandbox = golden.sandbox_of("run-pod-minimal")
    change(sandbox.config)
    body: dict[str, Any] = sandbox_request(sandbox, features, golden.OWNER)
    return body


def _stop_signal(container: Container) -> None:
    container.config.stop_signal = cri.Signal.SIGUSR1


def _pods_ipc(container: Container) -> None:
    container.sandbox.config.linux.security_context.namespace_options.ipc = cri.NamespaceMode.NODE


def _pods_pid(container: Container) -> None:
    container.sandbox.config.linux.security_context.namespace_options.pid = cri.NamespaceMode.NODE
    container.config.linux.security_context.namespace_options.pid = cri.NamespaceMode.POD


def _privileged(container: Container) -> None:
    container.sandbox.config.linux.security_context.privileged = True
    container.config.linux.security_context.privileged = True
    container.config.linux.security_context.masked_paths.append("/proc/kcore")
    container.config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault


def _device(container: Container) -> None:
    container.config.devices.add(host_path="/dev/fuse", permissions="rw")


def nothing(container: Container) -> None: ...


def policy(**members: Any) -> Features:
    return replace(golden.FEATURES, policy=Policy(**members))


@pytest.mark.parametrize(
    ("change", "features", "member", "value"),
    [
        (_pods_ipc, golden.FEATURES, "IpcMode", "host"),
        (_pods_pid, golden.FEATURES, "PidMode", "host"),
        (_privileged, golden.FEATURES, "SecurityOpt", ["seccomp=unconfined"]),
        (_privileged, golden.FEATURES, "MaskedPaths", None),
        (
            _device,
            golden.FEATURES,
            "Devices",
            [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rw"}],
        ),
        (nothing, policy(pids_limit=7), "PidsLimit", 7),
        (
            nothing,
            policy(default_ulimits=(Rlimit("RLIMIT_NOFILE", 10, 20),)),
            "Ulimits",
            [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        ),
        (nothing, policy(read_only_rootfs=True), "Tmpfs", {"/run": "", "/tmp": "", "/var/tmp": ""}),
        (nothing, policy(read_only_rootfs=True), "ReadonlyRootfs", True),
        (nothing, replace(golden.FEATURES, chosen_runtime="crun"), "Runtime", "crun"),
        (
            nothing,
            replace(golden.FEATURES, policy_apparmor="mine"),
            "SecurityOpt",
            ["apparmor=mine", "seccomp=unconfined"],
        ),
    ],
)
def test_host_config(change: Change, features: Features, member: str, value: Any) -> None:
    assert made(change, features)["HostConfig"].get(member) == value


def test_the_stop_signal_is_the_requests() -> None:
    assert made(_stop_signal)["StopSignal"] == "10"
    assert "StopSignal" not in made(nothing)


def test_masks_are_the_nodes_where_the_request_has_no_say() -> None:
    def unmasked(container: Container) -> None:
        container.config.linux.security_context.masked_paths.append("/only")

    assert made(unmasked)["HostConfig"]["MaskedPaths"] == ["/only"]
    assert "/proc/kcore" in made(unmasked, policy(disable_proc_mount=True))["HostConfig"]["MaskedPaths"]


def test_apparmor_by_an_annotation_of_the_container_itself() -> None:
    def annotated(container: Container) -> None:
        container.config.annotations["container.apparmor.security.beta.kubernetes.io/c"] = "unconfined"

    assert "apparmor=unconfined" in made(annotated)["HostConfig"]["SecurityOpt"]


# Pods


def test_a_pod_without_a_hostname_has_the_hosts() -> None:
    features = replace(golden.FEATURES, hostname="node-1", sandbox_user="65535:65535")
    assert pod(lambda config: None, features)["Hostname"] == "node-1"
    assert pod(lambda config: None, features)["User"] == "65535:65535"

    def on_host(config: cri.PodSandboxConfig) -> None:
        config.linux.security_context.namespace_options.network = cri.NamespaceMode.NODE

    assert "Hostname" not in pod(on_host, features)


def test_the_pause_process_has_its_processors() -> None:
    assert pod(lambda config: None, policy(pause_cpuset="0"))["HostConfig"]["CpusetCpus"] == "0"


def test_a_privileged_pod_filters_its_pause_process_as_docker_does() -> None:
    def privileged(config: cri.PodSandboxConfig) -> None:
        config.linux.security_context.privileged = True
        config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.Unconfined

    assert pod(privileged)["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]


def test_ports_are_bound_with_their_protocol_and_address() -> None:
    def ports(config: cri.PodSandboxConfig) -> None:
        config.port_mappings.add(container_port=53, host_port=5353, protocol=cri.Protocol.UDP)
        config.port_mappings.add(container_port=53, host_port=5354, host_ip="127.0.0.1")
        config.port_mappings.add(container_port=53, host_port=5355, host_ip="::1")
        config.port_mappings.add(container_port=80)

    body = pod(ports)
    assert body["ExposedPorts"] == {"53/udp": {}, "53/tcp": {}}
    assert body["HostConfig"]["PortBindings"] == {
        "53/udp": [{"HostIp": "", "HostPort": "5353"}],
        "53/tcp": [{"HostIp": "127.0.0.1", "HostPort": "5354"}, {"HostIp": "::1", "HostPort": "5355"}],
    }


# What is refused


def _ambient(container: Container) -> None:
    container.config.linux.security_context.capabilities.add_ambient_capabilities.append("CHOWN")


def _user_namespace(container: Container) -> None:
    _map_users(container.config.linux.security_context.namespace_options.userns_options)


def _map_users(users: cri.UserNamespace) -> None:
    users.mode = cri.NamespaceMode.POD
    for mappings in (users.uids, users.gids):
        mappings.add(host_id=1 << 16, length=1 << 16)


def _image_mount(container: Container) -> None:
    container.config.mounts.add(container_path="/m").image.image = "x"


def _mapped_mount(container: Container) -> None:
    container.config.mounts.add(host_path="/", container_path="/m").uidMappings.add(length=1)


def _mapped_groups(container: Container) -> None:
    container.config.mounts.add(host_path="/", container_path="/m").gidMappings.add(length=1)


def _huge_pages(container: Container) -> None:
    container.config.linux.resources.hugepage_limits.add(page_size="2MB", limit=0)
    container.config.linux.resources.hugepage_limits.add(page_size="1GB", limit=1)


def _unified(container: Container) -> None:
    container.config.linux.resources.unified["memory.high"] = "1"


def _permissions(container: Container) -> None:
    container.config.devices.add(host_path="/dev/null", permissions="rx")


def _apparmor(container: Container) -> None:
    container.config.linux.security_context.apparmor_profile = "sideways"


def _swap_alone(container: Container) -> None:
    container.config.linux.resources.memory_swap_limit_in_bytes = 1 << 30


def _little_swap(container: Container) -> None:
    container.config.linux.resources.memory_limit_in_bytes = 2 << 30
    container.config.linux.resources.memory_swap_limit_in_bytes = 1 << 30


def _seccomp(container: Container) -> None:
    container.config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault


_SECURITY = r"config\.linux\.security_context"


@pytest.mark.parametrize(
    ("change", "features", "kind", "words"),
    [
        (_ambient, golden.FEATURES, Unimplemented, rf"{_SECURITY}\.capabilities\.add_ambient_capabilities"),
        (_user_namespace, golden.FEATURES, Unimplemented, rf"{_SECURITY}\.namespace_options\.userns_options"),
        (_image_mount, golden.FEATURES, Unimplemented, r"config\.mounts\[0\]\.image"),
        (_mapped_mount, golden.FEATURES, Unimplemented, r"config\.mounts\[0\]\.uidMappings"),
        (_mapped_groups, golden.FEATURES, Unimplemented, r"config\.mounts\[0\]\.uidMappings"),
        (_huge_pages, policy(hugepages=True), Unimplemented, r"resources\.hugepage_limits\[1\]"),
        (_unified, golden.FEATURES, Unimplemented, r"resources\.unified"),
        (_permissions, golden.FEATURES, InvalidArgument, r"config\.devices\[0\]\.permissions: 'rx'"),
        (_apparmor, golden.FEATURES, InvalidArgument, rf"{_SECURITY}\.apparmor_profile.*'sideways'"),
        (_swap_alone, golden.FEATURES, InvalidArgument, r"memory_swap_limit_in_bytes: needs memory_limit"),
        (_little_swap, golden.FEATURES, InvalidArgument, r"memory_swap_limit_in_bytes: \d+ is less"),
        (_seccomp, replace(golden.FEATURES, seccomp=False), FailedPrecondition, rf"{_SECURITY}\.seccomp"),
    ],
)
def test_a_container_that_docker_cannot_make(
    change: Change, features: Features, kind: type[PodwrightError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        made(change, features)


def test_values_of_cgroup_v2_and_small_pages_are_none_of_it() -> None:
    made(_unified, replace(golden.FEATURES, cgroup_version=2))
    made(_huge_pages, policy(hugepages=False))


def _pid_target(config: cri.PodSandboxConfig) -> None:
    config.linux.security_context.namespace_options.pid = cri.NamespaceMode.TARGET


def _pods_users(config: cri.PodSandboxConfig) -> None:
    _map_users(config.linux.security_context.namespace_options.userns_options)


def _protocol(config: cri.PodSandboxConfig) -> None:
    config.port_mappings.add(container_port=1, host_port=2, protocol=9)


def _group(config: cri.PodSandboxConfig) -> None:
    config.linux.security_context.run_as_group.value = 7


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (_pid_target, Unimplemented, r"namespace_options\.pid"),
        (_pods_users, Unimplemented, r"namespace_options\.userns_options"),
        (_protocol, InvalidArgument, r"config\.port_mappings\[0\]\.protocol: 9"),
        (_group, InvalidArgument, "run_as_group"),
    ],
)
def test_a_pod_that_docker_cannot_make(
    change: Callable[[cri.PodSandboxConfig], None], kind: type[PodwrightError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        pod(change)


def test_an_update_is_refused_by_the_names_of_its_own_fields() -> None:
    wanted = cri.LinuxContainerResources(unified={"memory.high": "1"})
    with pytest.raises(Unimplemented, match=r"^linux\.unified"):
        refused.of_resources(wanted, golden.FEATURES, "linux")
    with pytest.raises(InvalidArgument, match=r"linux\.memory_limit_in_bytes: 5 bytes"):
        limits.check(cri.LinuxContainerResources(memory_limit_in_bytes=5), "linux")
