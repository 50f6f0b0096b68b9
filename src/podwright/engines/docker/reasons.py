"""Why each part of a create request is so, in the words of `spec.draft`, and what the oci engine would
do otherwise. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from podwright.engines.base import Json
from podwright.engines.docker import labels
from podwright.engines.docker.features import Features
from podwright.wire import cri_pb2 as cri

_SECURITY = "config.linux.security_context"

_LABELS = {
    f"Labels[{labels.ID}]": "rule: found again by it after a crash at any instruction",
    f"Labels[{labels.OWNER}]": "node: root; several podwrights may use one Docker Engine",
}
_CONTAINER = {
    "Image": "request: config.image",
    "Labels": "request: config.labels; annotations have the prefix annotation.",
    **_LABELS,
    f"Labels[{labels.TYPE}]": "rule: tells containers from sandboxes, as dockershim did",
    f"Labels[{labels.LOG_PATH}]": "request: config.log_path in the pod's log_directory",
    f"Labels[{labels.SANDBOX_ID}]": "rule: whose container it is",
    "Env": "request: config.envs; Docker puts the image's before them",
    "Healthcheck": "rule: the kubelet probes; the image's HEALTHCHECK does not run",
    "User": "default: root",
    "Entrypoint": "request: config.command",
    "Cmd": "request: config.args",
    "WorkingDir": "request: config.working_dir",
    "OpenStdin": "request: config.stdin",
    "StdinOnce": "request: config.stdin_once",
    "Tty": "request: config.tty",
    "StopSignal": "request: config.stop_signal",
    "HostConfig.RestartPolicy": "rule: who starts containers again is the kubelet",
    "HostConfig.LogConfig": "rule: the CRI log is made of Docker's json-file",
    "HostConfig.SecurityOpt": f"request: {_SECURITY}; without a seccomp profile it is unconfined",
    "HostConfig.NetworkMode": "rule: a pod has one network, its sandbox's",
    "HostConfig.IpcMode": "rule: a pod shares IPC and /dev/shm",
    "HostConfig.PidMode": f"request: {_SECURITY}.namespace_options.pid",
    "HostConfig.UTSMode": "rule: the host's network has the host's name",
    "HostConfig.Privileged": f"request: {_SECURITY}.privileged",
    "HostConfig.CapAdd": f"request: {_SECURITY}.capabilities",
    "HostConfig.CapDrop": f"request: {_SECURITY}.capabilities",
    "HostConfig.MaskedPaths": f"request: {_SECURITY}.masked_paths",
    "HostConfig.ReadonlyPaths": f"request: {_SECURITY}.readonly_paths",
    "HostConfig.GroupAdd": f"request: {_SECURITY}.supplemental_groups; the image's /etc/group",
    "HostConfig.Mounts": "request: config.mounts",
    "HostConfig.Binds": "request: config.mounts; relabelled for SELinux",
    "HostConfig.Devices": "request: config.devices",
    "HostConfig.DeviceRequests": "request: config.CDI_devices",
    "HostConfig.ReadonlyRootfs": f"request: {_SECURITY}.readonly_rootfs",
    "HostConfig.Tmpfs": "node: read_only_rootfs",
    "HostConfig.PidsLimit": "node: pids_limit",
    "HostConfig.Ulimits": "node: default_ulimits",
    "HostConfig.CgroupParent": "request: the pod's cgroup_parent, else node: cgroup_parent",
    "HostConfig.Runtime": "request: the pod's runtime handler, else node: docker.default_runtime",
    "HostConfig.MemorySwap": "request: config.linux.resources; no swap unless it is asked for",
}
_RESOURCES = ("CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "CpusetMems", "Memory", "OomScoreAdj")

_SANDBOX = {
    "Image": "node: docker.sandbox_image, else one made of the host's catatonit",
    "Labels": "request: config.labels; annotations have the prefix annotation.",
    **_LABELS,
    f"Labels[{labels.TYPE}]": "rule: tells sandboxes from containers, as dockershim did",
    f"Labels[{labels.CONTAINER_NAME}]": "rule: names a sandbox, as dockershim did",
    "Hostname": "request: config.hostname, else host: its name",
    "User": f"request: {_SECURITY}.run_as_user",
    "ExposedPorts": "request: config.port_mappings",
    "HostConfig.PortBindings": "request: config.port_mappings; with CNI its portmap plugin opens them",
    "HostConfig.NetworkMode": "node: docker.network; with CNI Docker makes none",
    "HostConfig.IpcMode": "rule: the pod's containers join it",
    "HostConfig.PidMode": f"request: {_SECURITY}.namespace_options.pid",
    "HostConfig.OomScoreAdj": "rule: the pod's last process to be killed",
    "HostConfig.CpuShares": "rule: the pause process does nothing",
    "HostConfig.ShmSize": "node: spec.shm_size",
    "HostConfig.SecurityOpt": f"request: {_SECURITY}; the pause process never gains rights",
    "HostConfig.LogConfig": "rule: the pause process writes nothing",
    "HostConfig.Sysctls": "request: config.linux.sysctls; node: enable_unprivileged_ports and _icmp",
    "HostConfig.GroupAdd": f"request: {_SECURITY}.supplemental_groups",
    "HostConfig.ReadonlyRootfs": f"request: {_SECURITY}.readonly_rootfs",
    "HostConfig.CpusetCpus": "node: pause_cpuset",
    "HostConfig.CgroupParent": "request: config.linux.cgroup_parent, else node: cgroup_parent",
    "HostConfig.Runtime": "request: runtime_handler, else node: docker.default_runtime",
}


def of_container(document: Mapping[str, Json], config: cri.ContainerConfig) -> dict[str, str]:
    origins = _present(document, _CONTAINER)
    for member in _RESOURCES:
        if member in document["HostConfig"]:
            origins[f"HostConfig.{member}"] = "request: config.linux.resources"
    security = config.linux.security_context
    if security.run_as_username:
        origins["User"] = f"request: {_SECURITY}.run_as_username"
    elif security.HasField("run_as_user"):
        origins["User"] = f"request: {_SECURITY}.run_as_user"
    elif document["User"] != "0:0":
        origins["User"] = "image: User"
    if "Tmpfs" in document["HostConfig"]:
        origins["HostConfig.ReadonlyRootfs"] = "node: read_only_rootfs"
    return origins


def of_sandbox(document: Mapping[str, Json], config: cri.PodSandboxConfig) -> dict[str, str]:
    origins = _present(document, _SANDBOX)
    if "User" in origins and not config.linux.security_context.HasField("run_as_user"):
        origins["User"] = "default: a user without rights"
    return origins


def differences(config: cri.ContainerConfig, features: Features) -> list[str]:
    """What the oci engine would do otherwise with this container."""
    security = config.linux.security_context
    found = []
    if security.seccomp.profile_type == cri.SecurityProfile.RuntimeDefault and security.HasField("seccomp"):
        found.append("seccomp RuntimeDefault is Docker's own profile, not the node's seccomp_profile")
    if features.policy.umask is not None:
        found.append("spec.umask has no effect: Docker's API has no umask")
    if not features.policy.image_volumes:
        found.append("spec.ignore_image_defined_volumes has no effect: Docker makes volumes of the image's")
    if config.linux.resources.oom_score_adj < features.least_oom_score:
        found.append(
            f"config.linux.resources.oom_score_adj: {config.linux.resources.oom_score_adj} becomes"
            f" {features.least_oom_score}, the least that Docker's processes can have here"
        )
    if any(mount.readonly for mount in config.mounts) and not features.recursive_read_only:
        found.append("read-only mounts stay writable where something is mounted below them")
    return found


def _present(document: Mapping[str, Json], reasons: Mapping[str, str]) -> dict[str, str]:
    return {
        place: words
        for place, words in reasons.items()
        if place in document
        or (place.startswith("Labels[") and place[len("Labels[") : -1] in document["Labels"])
        or (place.startswith("HostConfig.") and place.partition(".")[2] in document["HostConfig"])
    }
