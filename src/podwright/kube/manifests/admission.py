"""What is done to a Pod before a kubelet sees it, by the API server's plugins: its priority, the overhead of
its runtime class, its service account; and what the node itself refuses. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from podwright.kube import models
from podwright.kube.failures import Refused
from podwright.kube.manifests.fields import Finding
from podwright.kube.manifests.objects import TOKEN_SECRET, ConfigMap, Objects, PriorityClass
from podwright.kube.requests.sandbox import dotted

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.node import Node

SYSTEM_CLASSES = {
    "system-cluster-critical": PriorityClass("system-cluster-critical", 2_000_000_000),
    "system-node-critical": PriorityClass("system-node-critical", 2_000_001_000),
}
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_VOLUME = "kube-api-access-"
"""How the name of a token's volume begins."""
TOKEN_SECONDS = 3607
ROOT_CA = "kube-root-ca.crt"
"""The ConfigMap with the certificate of the API server's authority."""

SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
)  # fmt: skip
"""What pods may set on any node."""
IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
"""How the names of sysctls begin that belong to an IPC namespace."""


def admit(pod: models.Pod, objects: Objects) -> Iterator[Finding]:
    """Do to `pod` what the API server's plugins do; yields what they would refuse, and what has no effect."""
    spec = pod.spec
    assert spec is not None
    yield from _prioritise(spec, objects)
    yield from _charge(spec, objects)
    yield from _identify(pod, objects)


def with_root_ca(pod: models.Pod, objects: Objects) -> Objects:
    """`objects` with the ConfigMap that a token's volume shows, made of the token's Secret where it lacks."""
    assert pod.metadata is not None and pod.spec is not None
    namespace = pod.metadata.namespace or ""
    token = objects.token(namespace, pod.spec.serviceAccountName or "")
    if token is None or "ca.crt" not in token.data or objects.config_map(namespace, ROOT_CA) is not None:
        return objects
    text = token.data["ca.crt"].decode(errors="replace")
    return objects.adding(ConfigMap(namespace, ROOT_CA, {"ca.crt": text}))


def refusal(manifest: Manifest, node: Node) -> Refused | None:
    """Why the node does not take the pod at all, in the kubelet's words; None where it does."""
    if manifest.refused:
        return Refused("Refused", manifest.refused)
    spec = manifest.spec
    for sysctl in (spec.securityContext.sysctls if spec.securityContext is not None else None) or []:
        if fault := _sysctl_fault(dotted(sysctl.name), spec, node):
            return Refused("SysctlForbidden", fault)
    if not node.apparmor and _wants_armor(manifest):
        return Refused("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
    if spec.os is not None and spec.os.name not in ("", "linux"):
        return Refused("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    return None


def _prioritise(spec: models.PodSpec, objects: Objects) -> Iterator[Finding]:
    name = spec.priorityClassName or ""
    known = {**objects.priority_classes, **SYSTEM_CLASSES}
    if not name:
        chosen = max(
            (one for one in known.values() if one.is_default), key=lambda one: one.value, default=None
        )
        if chosen is None:
            spec.priority = spec.priority or 0
            return
        spec.priorityClassName = chosen.name
    else:
        chosen = known.get(name)
    if chosen is None:
        text = f"has no effect here: no PriorityClass {name!r} is beside the Pod"
        yield Finding("spec.priorityClassName", text, refused=False)
        spec.priority = spec.priority or 0
    elif spec.priority not in (None, chosen.value):
        text = f"{spec.priority} is not the value of PriorityClass {chosen.name!r}, {chosen.value}"
        yield Finding("spec.priority", text, refused=True)
    else:
        spec.priority = chosen.value
        spec.preemptionPolicy = spec.preemptionPolicy or chosen.preemption_policy


def _charge(spec: models.PodSpec, objects: Objects) -> Iterator[Finding]:
    chosen = objects.runtime_classes.get(spec.runtimeClassName or "")
    if chosen is None:
        return
    if spec.overhead and dict(spec.overhead) != dict(chosen.overhead):
        yield Finding("spec.overhead", f"is not that of RuntimeClass {chosen.name!r}", refused=True)
    elif chosen.overhead:
        spec.overhead = dict(chosen.overhead)


def _identify(pod: models.Pod, objects: Objects) -> Iterator[Finding]:
    """The service account: its pull secrets, and its token where somebody gave us one."""
    metadata, spec = pod.metadata, pod.spec
    assert metadata is not None and spec is not None
    spec.serviceAccountName = spec.serviceAccountName or "default"
    account = objects.service_accounts.get((metadata.namespace or "", spec.serviceAccountName))
    if account is not None and not spec.imagePullSecrets and account.pull_secrets:
        spec.imagePullSecrets = [models.LocalObjectReference(name=one) for one in account.pull_secrets]
    said = spec.automountServiceAccountToken
    wanted = said if said is not None else (account.automount if account is not None else None)
    if objects.token(metadata.namespace or "", spec.serviceAccountName) is None:
        yield from _unmount_token(spec)
        if wanted:
            text = (
                "has no effect here: there is no API server to issue a token, and no Secret of type "
                f"{TOKEN_SECRET} for {spec.serviceAccountName!r} beside the Pod"
            )
            yield Finding("spec.automountServiceAccountToken", text, refused=False)
    elif wanted is not False:
        _mount_token(metadata.uid or "", spec)


def _unmount_token(spec: models.PodSpec) -> Iterator[Finding]:
    """A Pod that came out of a cluster has the volume of its token there; nobody can fill it here."""
    for index, volume in enumerate(spec.volumes or []):
        if volume.projected is None or not volume.name.startswith(TOKEN_VOLUME):
            continue
        assert spec.volumes is not None
        spec.volumes = [one for one in spec.volumes if one is not volume]
        every: list[models.AnyContainer] = [*(spec.initContainers or []), *spec.containers]
        for one in [*every, *(spec.ephemeralContainers or [])]:
            one.volumeMounts = [
                mount for mount in one.volumeMounts or [] if mount.name != volume.name
            ] or None
        text = "has no effect here: it is a cluster's volume for a service account's token"
        yield Finding(f"spec.volumes[{index}]", text, refused=False)


def _mount_token(uid: str, spec: models.PodSpec) -> None:
    containers = [*(spec.initContainers or []), *spec.containers]
    without = [
        one
        for one in containers
        if not any(mount.mountPath.rstrip("/") == TOKEN_PATH for mount in one.volumeMounts or [])
    ]
    if not without:
        return
    name = TOKEN_VOLUME + suffix(uid)
    files = [
        models.VolumeProjection(
            serviceAccountToken=models.ServiceAccountTokenProjection(
                path="token", expirationSeconds=TOKEN_SECONDS
            )
        ),
        models.VolumeProjection(
            configMap=models.ConfigMapProjection(
                name=ROOT_CA, items=[models.KeyToPath(key="ca.crt", path="ca.crt")]
            )
        ),
        models.VolumeProjection(
            downwardAPI=models.DownwardAPIProjection(
                items=[
                    models.DownwardAPIVolumeFile(
                        path="namespace",
                        fieldRef=models.ObjectFieldSelector(fieldPath="metadata.namespace", apiVersion="v1"),
                    )
                ]
            )
        ),
    ]
    projected = models.ProjectedVolumeSource(sources=files, defaultMode=0o644)
    spec.volumes = [*(spec.volumes or []), models.Volume(name=name, projected=projected)]
    for one in without:
        mount = models.VolumeMount(name=name, mountPath=TOKEN_PATH, readOnly=True)
        one.volumeMounts = [*(one.volumeMounts or []), mount]


def suffix(text: str, length: int = 5) -> str:
    """Letters and digits like those that Kubernetes draws for names, but the same for the same `text`."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    drawn = []
    for _ in range(length):
        number, digit = divmod(number, len(alphabet))
        drawn.append(alphabet[digit])
    return "".join(drawn)


def _sysctl_fault(name: str, spec: models.PodSpec, node: Node) -> str:
    allowed = [*SAFE_SYSCTLS, *(dotted(one) for one in node.allowed_unsafe_sysctls)]
    if not any(
        name == one or (one.endswith("*") and name.startswith(one.removesuffix("*"))) for one in allowed
    ):
        return f'forbidden sysctl: "{name}" not allowlisted'
    if name.startswith("net.") and spec.hostNetwork:
        return f'forbidden sysctl: "{name}" not allowed with host net enabled'
    if name.startswith(IPC_SYSCTLS) and spec.hostIPC:
        return f'forbidden sysctl: "{name}" not allowed with host ipc enabled'
    return ""


def _wants_armor(manifest: Manifest) -> bool:
    of_pod = manifest.spec.securityContext and manifest.spec.securityContext.appArmorProfile
    profiles = [
        (one.securityContext and one.securityContext.appArmorProfile) or of_pod
        for one in manifest.all_containers()
    ]
    return any(one is not None and one.type != "Unconfined" for one in profiles)
