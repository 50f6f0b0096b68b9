"""The create request of the container that holds a pod together, from its configuration. Pure."""

from __future__ import annotations

from podwright.engines.base import Json, Sandbox
from podwright.engines.docker import labels, refused, security
from podwright.engines.docker.features import Features
from podwright.errors import InvalidArgument
from podwright.linux import cgroups
from podwright.spec.inputs import Policy
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.spec.linux.user import group_without_user, number
from podwright.wire import cri_pb2 as cri

OOM_SCORE = -998
"""The last process of a pod to be killed: with it all others go."""
CPU_SHARES = 2

_SECURITY = "config.linux.security_context"
_NODE = cri.NamespaceMode.NODE
_PROTOCOLS = {cri.Protocol.TCP: "tcp", cri.Protocol.UDP: "udp", cri.Protocol.SCTP: "sctp"}
_OWN_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": ("unprivileged_ports", "1024"),
    "net.ipv4.ping_group_range": ("unprivileged_icmp", "1 0"),
}
"""Docker opens these to everybody: the policy that allows it, and the kernel's value."""


def create_request(
    sandbox: Sandbox, features: Features, owner: str, *, profile: bytes | None = None
) -> dict[str, Json]:
    """The body of POST /containers/create. `profile` is the content of `security.profile_path`'s file.

    Raises InvalidArgument, FailedPrecondition, Unimplemented for what cannot be.
    """
    config = sandbox.config
    refused.of_sandbox(config)
    asked = config.linux.security_context
    options = asked.namespace_options
    body: dict[str, Json] = {
        "Image": features.sandbox_image,
        "Labels": labels.of_sandbox(config, sandbox.id, owner),
    }
    host: dict[str, Json] = {
        "NetworkMode": "host" if options.network == _NODE else features.network,
        "IpcMode": "host" if options.ipc == _NODE else "shareable",
        "OomScoreAdj": max(OOM_SCORE, features.least_oom_score),
        "CpuShares": CPU_SHARES,
        "ShmSize": features.policy.shm_size,
        "SecurityOpt": security.of_sandbox(config, features, profile),
        # Nothing of it is kept, whatever the daemon does with logs.
        "LogConfig": {"Type": "none"},
    }
    if options.pid == _NODE:
        host["PidMode"] = "host"
    # The host's network has the host's name; Docker gives it that by itself.
    if name := config.hostname or (features.hostname if options.network != _NODE else ""):
        body["Hostname"] = name
    body.update(_ports(config))
    if bindings := _bindings(config):
        host["PortBindings"] = bindings
    if sysctls := sysctls_of(config, features.policy):
        host["Sysctls"] = sysctls
    if asked.HasField("run_as_user"):
        body["User"] = str(number(asked.run_as_user.value, f"{_SECURITY}.run_as_user"))
        if asked.HasField("run_as_group"):
            body["User"] += f":{number(asked.run_as_group.value, f'{_SECURITY}.run_as_group')}"
    elif asked.HasField("run_as_group"):
        raise group_without_user(asked.run_as_group.value)
    elif features.sandbox_user:
        body["User"] = features.sandbox_user
    if asked.supplemental_groups:
        field = f"{_SECURITY}.supplemental_groups"
        host["GroupAdd"] = [str(number(each, field)) for each in asked.supplemental_groups]
    if asked.readonly_rootfs:
        host["ReadonlyRootfs"] = True
    if features.policy.pause_cpuset:
        host["CpusetCpus"] = features.policy.pause_cpuset
    if parent := cgroup_parent(config, features):
        host["CgroupParent"] = parent
    if runtime := runtime_of(sandbox.handler, features):
        host["Runtime"] = runtime
    body["HostConfig"] = host
    return body


def runtime_of(handler: str, features: Features) -> str:
    """HostConfig.Runtime; "" leaves it to Docker. InvalidArgument for a handler that Docker does not have."""
    if handler in ("", "docker"):
        return features.chosen_runtime
    if handler not in features.runtimes:
        raise InvalidArgument(
            "runtime_handler",
            f"no runtime handler {handler!r}: Docker has {', '.join(features.runtimes) or 'none'};"
            " others are registered in its daemon.json",
        )
    return handler


def cgroup_parent(config: cri.PodSandboxConfig, features: Features) -> str:
    """With the systemd driver Docker wants the slice's own name. InvalidArgument for what is no slice there,
    and for what leaves the hierarchy."""
    parent: str = config.linux.cgroup_parent
    if features.cgroup_driver != "systemd":
        cgroups.container_path("cgroupfs", parent, "")
        return parent or features.cgroup_parent
    slice = parent.rstrip("/").rpartition("/")[2]
    if not slice:
        return ""
    if not slice.endswith(".slice"):
        raise InvalidArgument(
            "config.linux.cgroup_parent",
            f"{parent!r} must end in .slice, such as {cgroups.DEFAULT_SLICE}:"
            " Docker's cgroup driver is systemd",
        )
    return slice


def cgroup(config: cri.PodSandboxConfig, features: Features, docker_id: str) -> str:
    """Where the kernel has the container with this id of Docker's."""
    parent = cgroup_parent(config, features)
    if features.cgroup_driver != "systemd":
        return cgroups.container_path("cgroupfs", parent or "docker", docker_id)
    return f"{cgroups.slice_location(parent or 'system.slice')}/docker-{docker_id}.scope"


def sysctls_of(config: cri.PodSandboxConfig, policy: Policy) -> dict[str, str]:
    """Docker sets what pods are allowed anyway; where the node's policy says no, that is taken back."""
    wanted = sandbox_sysctls(config, policy)
    options = config.linux.security_context.namespace_options
    for name, (allowed, kernels) in _OWN_SYSCTLS.items():
        if name in config.linux.sysctls:
            continue
        wanted.pop(name, None)
        if not getattr(policy, allowed) and options.network != _NODE:
            wanted[name] = kernels
    return wanted


def _port(mapping: cri.PortMapping, place: int) -> str:
    if mapping.protocol not in _PROTOCOLS:
        raise InvalidArgument(f"config.port_mappings[{place}].protocol", f"{mapping.protocol} is no Protocol")
    return f"{mapping.container_port}/{_PROTOCOLS[mapping.protocol]}"


def _ports(config: cri.PodSandboxConfig) -> dict[str, Json]:
    exposed: dict[str, Json] = {
        _port(mapping, place): {}
        for place, mapping in enumerate(config.port_mappings)
        if mapping.host_port > 0
    }
    return {"ExposedPorts": exposed} if exposed else {}


def _bindings(config: cri.PodSandboxConfig) -> dict[str, Json]:
    bindings: dict[str, Json] = {}
    for place, mapping in enumerate(config.port_mappings):
        if mapping.host_port > 0:
            bound = {"HostIp": mapping.host_ip, "HostPort": str(mapping.host_port)}
            bindings.setdefault(_port(mapping, place), []).append(bound)
    return bindings
