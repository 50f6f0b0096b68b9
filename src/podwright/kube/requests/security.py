"""Security contexts: what a container may do, by its own word or else the pod's; and namespaces. Pure."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from podwright.kube.failures import ConfigError
from podwright.kube.files import id_ranges
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import (
        AnyContainer,
        AppArmorProfile,
        PodSpec,
        SeccompProfile,
        SELinuxOptions,
    )
    from podwright.kube.node import Node, PodFacts

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def of_container(
    manifest: Manifest,
    container: AnyContainer,
    image: cri.Image,
    node: Node,
    facts: PodFacts,
    *,
    target_id: str = "",
) -> cri.LinuxContainerSecurityContext:
    """`target_id`: the container whose processes an ephemeral container shares. Raises ConfigError where the
    user breaks runAsNonRoot."""
    context = container.securityContext
    capabilities = context.capabilities if context is not None else None
    unmasked = context is not None and context.procMount == "Unmasked"
    security = cri.LinuxContainerSecurityContext(
        namespace_options=namespaces(manifest.spec, facts, target_id=target_id),
        privileged=is_privileged(container),
        readonly_rootfs=bool(context and context.readOnlyRootFilesystem),
        no_new_privs=bool(context and context.allowPrivilegeEscalation is False),
        masked_paths=() if unmasked else MASKED_PATHS,
        readonly_paths=() if unmasked else READONLY_PATHS,
        seccomp=_seccomp(_effective(manifest, container, "seccompProfile"), node),
        supplemental_groups=groups(manifest.spec),
        supplemental_groups_policy=groups_policy(manifest.spec),
    )
    if capabilities is not None:
        security.capabilities.add_capabilities.extend(capabilities.add or [])
        security.capabilities.drop_capabilities.extend(capabilities.drop or [])
    if (labels := _effective(manifest, container, "seLinuxOptions")) is not None:
        security.selinux_options.CopyFrom(selinux(labels))
    if (armor := _effective(manifest, container, "appArmorProfile")) is not None:
        _confine(armor, security)
    _set_user(manifest, container, image, security)
    return security


def of_sandbox(manifest: Manifest, facts: PodFacts) -> cri.LinuxSandboxSecurityContext:
    spec, context = manifest.spec, manifest.spec.securityContext
    security = cri.LinuxSandboxSecurityContext(
        namespace_options=namespaces(spec, facts),
        privileged=any(is_privileged(one) for one in manifest.all_containers()),
        seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
        supplemental_groups=groups(spec),
        supplemental_groups_policy=groups_policy(spec),
    )
    if context is None:
        return security
    if context.runAsUser is not None:
        security.run_as_user.SetInParent()
        security.run_as_user.value = context.runAsUser
    if context.runAsGroup is not None:
        # Also without a user, which runtimes must refuse: so it is in a cluster.
        security.run_as_group.SetInParent()
        security.run_as_group.value = context.runAsGroup
    if context.seLinuxOptions is not None:
        security.selinux_options.CopyFrom(selinux(context.seLinuxOptions))
    return security


def namespaces(spec: PodSpec, facts: PodFacts, *, target_id: str = "") -> cri.NamespaceOption:
    pid = cri.NODE if spec.hostPID else cri.POD if spec.shareProcessNamespace else cri.CONTAINER
    return cri.NamespaceOption(
        network=cri.NODE if spec.hostNetwork else cri.POD,
        pid=cri.TARGET if target_id else pid,
        target_id=target_id,
        ipc=cri.NODE if spec.hostIPC else cri.POD,
        userns_options=cri.UserNamespace(
            mode=cri.NODE if facts.user_ids is None else cri.POD, uids=id_map(facts), gids=id_map(facts)
        ),
    )


def id_map(facts: PodFacts) -> list[cri.IDMapping]:
    """Users and groups have the same; [] where the pod has no users of its own."""
    if facts.user_ids is None:
        return []
    return [cri.IDMapping(host_id=facts.user_ids, container_id=0, length=id_ranges.LENGTH)]


def selinux(options: SELinuxOptions) -> cri.SELinuxOption:
    return cri.SELinuxOption(
        user=options.user or "", role=options.role or "", type=options.type or "", level=options.level or ""
    )


def is_privileged(container: AnyContainer) -> bool:
    return bool(container.securityContext and container.securityContext.privileged)


def run_as_user(manifest: Manifest, container: AnyContainer) -> int | None:
    """The uid the manifest asks for; None leaves it to the image."""
    user: int | None = _effective(manifest, container, "runAsUser")
    return user


def groups(spec: PodSpec) -> list[int]:
    """The kubelet's order: fsGroup first."""
    context = spec.securityContext
    if context is None:
        return []
    return [*([] if context.fsGroup is None else [context.fsGroup]), *(context.supplementalGroups or [])]


def groups_policy(spec: PodSpec) -> cri.SupplementalGroupsPolicy:
    context = spec.securityContext
    strict = context is not None and context.supplementalGroupsPolicy == "Strict"
    return cri.SupplementalGroupsPolicy.Strict if strict else cri.SupplementalGroupsPolicy.Merge


def _effective(manifest: Manifest, container: AnyContainer, name: str) -> Any:
    """A field that the container's security context may say, or else the pod's."""
    own = getattr(container.securityContext, name, None)
    return own if own is not None else getattr(manifest.spec.securityContext, name, None)


def _set_user(
    manifest: Manifest,
    container: AnyContainer,
    image: cri.Image,
    security: cri.LinuxContainerSecurityContext,
) -> None:
    user = run_as_user(manifest, container)
    group = _effective(manifest, container, "runAsGroup")
    if _effective(manifest, container, "runAsNonRoot"):
        where = f'(pod: "{manifest.name}_{manifest.namespace}({manifest.uid})", container: {container.name})'
        if user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        if user is None and image.username:
            raise ConfigError(
                f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
                f"cannot verify user is non-root {where}"
            )
        if user is None and image.uid.value == 0:
            raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if user is not None:
        security.run_as_user.SetInParent()
        security.run_as_user.value = user
    elif image.username:
        security.run_as_username = image.username
    else:
        # Said even when it is 0: a group alone would be refused.
        security.run_as_user.SetInParent()
        security.run_as_user.value = image.uid.value
    if group is not None:
        security.run_as_group.SetInParent()
        security.run_as_group.value = group


def _seccomp(profile: SeccompProfile | None, node: Node) -> cri.SecurityProfile:
    if profile is None:
        kind = cri.SecurityProfile.RuntimeDefault if node.seccomp_default else cri.SecurityProfile.Unconfined
        return cri.SecurityProfile(profile_type=kind)
    name = profile.localhostProfile or ""
    return cri.SecurityProfile(
        profile_type=profile.type, localhost_ref=posixpath.join(node.seccomp_root, name) if name else ""
    )


def _confine(armor: AppArmorProfile, security: cri.LinuxContainerSecurityContext) -> None:
    """AppArmor, in the field of today and in the one that older runtimes read."""
    name = armor.localhostProfile or ""
    security.apparmor.CopyFrom(cri.SecurityProfile(profile_type=armor.type, localhost_ref=name))
    old = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}
    security.apparmor_profile = old.get(armor.type, f"localhost/{name}")
