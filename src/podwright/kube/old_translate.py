"""Pod → CRI messages: what the kubelet would ask its runtime for the same manifest. Pure.

Files (volumes, hosts, termination messages) come in as finished mounts; facts of the host as `Host`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podwright.errors import FailedPrecondition
from podwright.kube import id_ranges
from podwright.kube import old_env as env
from podwright.kube import old_resources as resources
from podwright.kube.manifest import Manifest
from podwright.kube.models import Container, ContainerPort, PodSpec, SeccompProfile, VolumeMount
from podwright.wire import cri_pb2 as cri

CLUSTER_DOMAIN = "cluster.local"
MAX_NAMESERVERS = 3
"""libc reads no more."""

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PROPAGATION = {
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}


@dataclass(frozen=True, slots=True)
class Host:
    """What the translation must know of the machine."""

    node_name: str = "localhost"
    ips: tuple[str, ...] = ("127.0.0.1",)
    cpus: int = 1
    memory: int = 1 << 30
    """Bytes."""
    resolver: cri.DNSConfig = field(default_factory=cri.DNSConfig)
    """/etc/resolv.conf."""
    recursive_read_only: bool = False
    """Whether the runtime handler can make mounts read-only all the way down."""
    seccomp_root: str = "/var/lib/podwright/seccomp"
    """Where relative names of Localhost seccomp profiles begin."""
    user_ids: int | None = None
    """The first of the host's ids that the pod's users have, `id_ranges.LENGTH` of them; None: its users are
    the host's."""


def sandbox_config(
    manifest: Manifest, host: Host, log_directory: str, attempt: int = 0
) -> cri.PodSandboxConfig:
    spec, context = manifest.spec, manifest.spec.securityContext
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=manifest.name, namespace=manifest.namespace, uid=manifest.uid, attempt=attempt
        ),
        hostname="" if spec.hostNetwork else hostname(manifest),
        log_directory=log_directory,
        dns_config=dns(manifest, host.resolver),
        port_mappings=[
            _port(port) for container in manifest.containers for port in container.ports or []
            if not spec.hostNetwork
        ],
        labels={**_strings(manifest, "labels"), **_identity(manifest)},
        annotations=_strings(manifest, "annotations"),
        linux=cri.LinuxPodSandboxConfig(
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(spec, host),
                privileged=any(_privileged(one) for one in [*manifest.init_containers, *manifest.containers]),
                seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
                supplemental_groups=_groups(spec),
                supplemental_groups_policy=_groups_policy(spec),
            ),
            resources=resources.pod_resources(spec),
        ),
    )  # fmt: skip
    if context is not None:
        security = config.linux.security_context
        if context.runAsUser is not None:
            security.run_as_user.value = context.runAsUser
        # The CRI knows no group without a user.
        if context.runAsGroup is not None and context.runAsUser is not None:
            security.run_as_group.value = context.runAsGroup
        for sysctl in context.sysctls or []:
            config.linux.sysctls[sysctl.name.replace("/", ".")] = sysctl.value
    return config


def container_config(
    manifest: Manifest,
    container: Container,
    image: cri.Image,
    *,
    host: Host,
    pod_ips: Sequence[str] = (),
    mounts: Iterable[cri.Mount] = (),
    attempt: int = 0,
) -> cri.ContainerConfig:
    """The configuration of one container, `attempt` starting with 0.

    `mounts` come as they are, in order. Raises FailedPrecondition where the image's user breaks runAsNonRoot.
    """
    variables = environment(manifest, container, host, pod_ips)
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=attempt),
        image=cri.ImageSpec(image=image.id, user_specified_image=container.image or ""),
        command=[env.expand(one, variables) for one in container.command or []],
        args=[env.expand(one, variables) for one in container.args or []],
        working_dir=container.workingDir or "",
        envs=[cri.KeyValue(key=key, value=value.encode()) for key, value in variables.items()],
        mounts=mounts,
        labels={"io.kubernetes.container.name": container.name, **_identity(manifest)},
        annotations=_annotations(manifest, container, attempt),
        log_path=f"{container.name}/{attempt}.log",
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdinOnce),
        tty=bool(container.tty),
        stop_signal=_stop_signal(container),
        linux=cri.LinuxContainerConfig(
            resources=resources.container_resources(manifest.spec, container, host.memory),
            security_context=_security(manifest, container, image, host),
        ),
    )


def environment(
    manifest: Manifest, container: Container, host: Host, pod_ips: Sequence[str]
) -> dict[str, str]:
    ips = host.ips if manifest.spec.hostNetwork else tuple(pod_ips)
    facts = env.Facts(host.node_name, host.ips, ips, host.cpus, host.memory)
    return env.environment(manifest.pod, container, facts)


def volume_mount(mount: VolumeMount, source: str, host: Host) -> cri.Mount:
    """The CRI mount of `source`, a path on the host, as `mount` wants it.

    Raises FailedPrecondition where recursive read-only is demanded and cannot be had.
    """
    recursive = mount.recursiveReadOnly == "Enabled" or (
        mount.recursiveReadOnly == "IfPossible" and host.recursive_read_only
    )
    if recursive and not host.recursive_read_only:
        raise FailedPrecondition(
            f"volume mount {mount.mountPath}: this runtime cannot make mounts read-only all the way down; "
            "recursiveReadOnly: IfPossible would do without"
        )
    return cri.Mount(
        container_path=mount.mountPath if mount.mountPath.startswith("/") else "/" + mount.mountPath,
        host_path=source,
        readonly=bool(mount.readOnly),
        recursive_read_only=recursive,
        propagation=_PROPAGATION[mount.mountPropagation or "None"],
        uidMappings=_ids(host),
        gidMappings=_ids(host),
    )


def hostname(manifest: Manifest) -> str:
    """The pod's host name: the kernel takes 64 bytes, a DNS label 63."""
    spec = manifest.spec
    if spec.hostnameOverride:
        return spec.hostnameOverride
    short = spec.hostname or manifest.name[:63].rstrip("-.")
    return full_name(manifest) or short if spec.setHostnameAsFQDN else short


def full_name(manifest: Manifest) -> str:
    """The name that a cluster's DNS would give a pod with a subdomain, else ""."""
    spec = manifest.spec
    if not spec.subdomain or spec.hostnameOverride:
        return ""
    short = spec.hostname or manifest.name[:63].rstrip("-.")
    return f"{short}.{spec.subdomain}.{manifest.namespace}.svc.{CLUSTER_DOMAIN}"


def dns(manifest: Manifest, resolver: cri.DNSConfig) -> cri.DNSConfig:
    """The host's resolver (ClusterFirst too: there is no cluster) and dnsConfig's additions."""
    config = cri.DNSConfig()
    if manifest.spec.dnsPolicy != "None":
        config.CopyFrom(resolver)
    own = manifest.spec.dnsConfig
    if own is not None:
        options = {option.partition(":")[0]: option for option in config.options}
        for option in own.options or []:
            name = option.name or ""
            options[name] = f"{name}:{option.value}" if option.value else name
        servers = dict.fromkeys([*config.servers, *(own.nameservers or [])])
        searches = dict.fromkeys([*config.searches, *(own.searches or [])])
        config = cri.DNSConfig(servers=list(servers), searches=list(searches), options=list(options.values()))
    del config.servers[MAX_NAMESERVERS:]
    return config


def parse_resolver(text: str) -> cri.DNSConfig:
    """A resolv.conf as a DNSConfig; see resolv.conf(5): the last search or domain line counts."""
    config = cri.DNSConfig()
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["nameserver", server, *_]:
                config.servers.append(server)
            case ["search" | "domain", *searches]:
                del config.searches[:]
                config.searches.extend(searches)
            case ["options", *options]:
                config.options.extend(options)
    return config


def run_as_user(manifest: Manifest, container: Container) -> int | None:
    """The uid the manifest asks for; None leaves it to the image."""
    user: int | None = _effective(manifest, container, "runAsUser")
    return user


def _security(
    manifest: Manifest, container: Container, image: cri.Image, host: Host
) -> cri.LinuxContainerSecurityContext:
    context = container.securityContext
    capabilities = context.capabilities if context is not None else None
    unmasked = context is not None and context.procMount == "Unmasked"
    security = cri.LinuxContainerSecurityContext(
        namespace_options=_namespaces(manifest.spec, host),
        privileged=_privileged(container),
        readonly_rootfs=bool(context and context.readOnlyRootFilesystem),
        no_new_privs=bool(context and context.allowPrivilegeEscalation is False),
        masked_paths=() if unmasked else MASKED_PATHS,
        readonly_paths=() if unmasked else READONLY_PATHS,
        seccomp=_profile(_effective(manifest, container, "seccompProfile"), host.seccomp_root),
        supplemental_groups=_groups(manifest.spec),
        supplemental_groups_policy=_groups_policy(manifest.spec),
    )
    if capabilities is not None:
        security.capabilities.add_capabilities.extend(capabilities.add or [])
        security.capabilities.drop_capabilities.extend(capabilities.drop or [])
    armor = _effective(manifest, container, "appArmorProfile")
    if armor is not None:
        security.apparmor.CopyFrom(_profile(armor, ""))
    _set_user(manifest, container, image, security)
    return security


def _set_user(
    manifest: Manifest, container: Container, image: cri.Image, security: cri.LinuxContainerSecurityContext
) -> None:
    user = run_as_user(manifest, container)
    group = _effective(manifest, container, "runAsGroup")
    if _effective(manifest, container, "runAsNonRoot"):
        where = f'(pod: "{manifest.name}_{manifest.namespace}({manifest.uid})", container: {container.name})'
        if user == 0:
            raise FailedPrecondition(f"container's runAsUser breaks non-root policy {where}")
        if user is None and image.username:
            raise FailedPrecondition(
                f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
                f"cannot verify user is non-root {where}"
            )
        if user is None and image.uid.value == 0:
            raise FailedPrecondition(f"container has runAsNonRoot and image will run as root {where}")
    if user is not None:
        security.run_as_user.value = user
    elif image.username:
        security.run_as_username = image.username
    else:
        # Said even when it is 0: a group alone would be refused.
        security.run_as_user.SetInParent()
        security.run_as_user.value = image.uid.value
    if group is not None:
        security.run_as_group.value = group


def _effective(manifest: Manifest, container: Container, name: str) -> Any:
    """A field that the container's security context may say, or else the pod's."""
    own = getattr(container.securityContext, name, None)
    return own if own is not None else getattr(manifest.spec.securityContext, name, None)


def _namespaces(spec: PodSpec, host: Host) -> cri.NamespaceOption:
    pid = cri.NODE if spec.hostPID else cri.POD if spec.shareProcessNamespace else cri.CONTAINER
    return cri.NamespaceOption(
        network=cri.NODE if spec.hostNetwork else cri.POD,
        pid=pid,
        ipc=cri.NODE if spec.hostIPC else cri.POD,
        userns_options=cri.UserNamespace(
            mode=cri.NODE if host.user_ids is None else cri.POD, uids=_ids(host), gids=_ids(host)
        ),
    )


def _ids(host: Host) -> list[cri.IDMapping]:
    """Users and groups have the same."""
    if host.user_ids is None:
        return []
    return [cri.IDMapping(host_id=host.user_ids, container_id=0, length=id_ranges.LENGTH)]


def own_mount(container_path: str, host_path: str, host: Host) -> cri.Mount:
    """A file of the pod's own; a pod with users of its own sees it as its root's."""
    return cri.Mount(
        container_path=container_path, host_path=host_path, uidMappings=_ids(host), gidMappings=_ids(host)
    )


def _privileged(container: Container) -> bool:
    return bool(container.securityContext and container.securityContext.privileged)


def _profile(profile: SeccompProfile | None, root: str) -> cri.SecurityProfile:
    """No profile is Unconfined, as on a node without seccompDefault."""
    if profile is None:
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)
    reference = profile.localhostProfile or ""
    return cri.SecurityProfile(
        profile_type=profile.type,
        localhost_ref=posixpath.join(root, reference) if reference else "",
    )


def _groups(spec: PodSpec) -> list[int]:
    """The kubelet's order: fsGroup first."""
    context = spec.securityContext
    if context is None:
        return []
    return [*([] if context.fsGroup is None else [context.fsGroup]), *(context.supplementalGroups or [])]


def _groups_policy(spec: PodSpec) -> cri.SupplementalGroupsPolicy:
    context = spec.securityContext
    strict = context is not None and context.supplementalGroupsPolicy == "Strict"
    return cri.SupplementalGroupsPolicy.Strict if strict else cri.SupplementalGroupsPolicy.Merge


def _stop_signal(container: Container) -> str:
    name = (container.lifecycle and container.lifecycle.stopSignal) or "RUNTIME_DEFAULT"
    if cri.Signal.DESCRIPTOR.values_by_name.get(name) is None:
        raise FailedPrecondition(f"container {container.name!r}: the CRI knows no stop signal {name}")
    return name


def _port(port: ContainerPort) -> cri.PortMapping:
    return cri.PortMapping(
        protocol=port.protocol or "TCP",
        container_port=port.containerPort,
        host_port=port.hostPort or 0,
        host_ip=port.hostIP or "",
    )


def _strings(manifest: Manifest, name: str) -> Mapping[str, str]:
    tree: Mapping[str, str] = getattr(manifest.pod.metadata, name) or {}
    return tree


def _identity(manifest: Manifest) -> dict[str, str]:
    return {
        "io.kubernetes.pod.name": manifest.name,
        "io.kubernetes.pod.namespace": manifest.namespace,
        "io.kubernetes.pod.uid": manifest.uid,
    }


def _annotations(manifest: Manifest, container: Container, attempt: int) -> dict[str, str]:
    annotations = {
        "io.kubernetes.container.restartCount": str(attempt),
        "io.kubernetes.container.terminationMessagePath": container.terminationMessagePath or "",
        "io.kubernetes.container.terminationMessagePolicy": container.terminationMessagePolicy or "",
        "io.kubernetes.pod.terminationGracePeriod": str(manifest.grace),
    }
    if container.ports:
        order = ("name", "hostPort", "containerPort", "protocol", "hostIP")
        ports = [{key: getattr(port, key) for key in order if getattr(port, key)} for port in container.ports]
        annotations["io.kubernetes.container.ports"] = msgspec.json.encode(ports).decode()
    return annotations
