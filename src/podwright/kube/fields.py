"""Which fields of a Pod podwright honours, which cannot matter here, and which it refuses. Pure.

An allow-list: a field of a newer Kubernetes is refused by name until somebody decides about it, never
silently ignored.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

SCHEDULING = "there is one machine to run on"
NO_API = "there is no API server"

HONOURED: dict[str, str] = {
    "Pod": "apiVersion kind metadata spec",
    "ObjectMeta": "name namespace uid labels annotations",
    "PodSpec": "activeDeadlineSeconds containers dnsConfig dnsPolicy hostAliases hostIPC hostNetwork hostPID "
    "hostUsers hostname hostnameOverride initContainers nodeName os priority priorityClassName restartPolicy "
    "runtimeClassName securityContext serviceAccount serviceAccountName setHostnameAsFQDN "
    "shareProcessNamespace subdomain terminationGracePeriodSeconds volumes",
    "PodOS": "name",
    "PodDNSConfig": "nameservers options searches",
    "PodDNSConfigOption": "name value",
    "HostAlias": "ip hostnames",
    "PodSecurityContext": "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser "
    "seccompProfile supplementalGroups supplementalGroupsPolicy sysctls",
    "SecurityContext": "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount "
    "readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seccompProfile",
    "Sysctl": "name value",
    "SeccompProfile": "type localhostProfile",
    "AppArmorProfile": "type localhostProfile",
    "Capabilities": "add drop",
    "Container": "args command env envFrom image imagePullPolicy lifecycle name ports resources "
    "securityContext stdin stdinOnce terminationMessagePath terminationMessagePolicy tty "
    "volumeMounts workingDir",
    "ContainerPort": "containerPort hostIP hostPort name protocol",
    "Lifecycle": "stopSignal",
    "ResourceRequirements": "limits requests",
    "EnvVar": "name value valueFrom",
    "EnvFromSource": "configMapRef prefix secretRef",
    "ConfigMapEnvSource": "name optional",
    "SecretEnvSource": "name optional",
    "EnvVarSource": "fieldRef resourceFieldRef",
    "ObjectFieldSelector": "apiVersion fieldPath",
    "ResourceFieldSelector": "resource containerName divisor",
    "VolumeMount": "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    "Volume": "name emptyDir hostPath",
    "EmptyDirVolumeSource": "medium mode sizeLimit",
    "HostPathVolumeSource": "path type",
}

_OBSERVED = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
    "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink",
)  # fmt: skip
_SCHEDULING = (
    "affinity", "evictionResponders", "nodeSelector", "overhead", "preemptionPolicy", "readinessGates",
    "schedulerName", "schedulingGates", "schedulingGroup", "tolerations", "topologySpreadConstraints",
)  # fmt: skip

NO_EFFECT: dict[str, dict[str, str]] = {
    "Pod": {"status": "it is what a cluster once observed"},
    "ObjectMeta": dict.fromkeys(_OBSERVED, NO_API),
    "PodSpec": {
        **dict.fromkeys(_SCHEDULING, SCHEDULING),
        "automountServiceAccountToken": NO_API,
        "enableServiceLinks": NO_API,
    },
    "Container": {"resizePolicy": NO_API},
}


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    """Where it stands: "spec.containers[0].livenessProbe"."""
    text: str
    refused: bool


def examine(value: object, path: str = "") -> Iterator[Finding]:
    """What has to be said about the fields that are set in a model: refusals and fields without effect."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from examine(element, f"{path}[{index}]")
    elif isinstance(value, msgspec.Struct):
        kind = type(value).__name__
        honoured = HONOURED[kind].split()
        for name in value.__struct_fields__:
            field, place = getattr(value, name), f"{path}.{name}" if path else name
            if field is None:
                continue
            if name in honoured:
                yield from examine(field, place)
            elif name in NO_EFFECT.get(kind, {}):
                yield Finding(place, f"has no effect here: {NO_EFFECT[kind][name]}", refused=False)
            elif not _nothing(kind, name, field):
                yield Finding(place, "is not supported yet", refused=True)


def unknown(tree: object, model: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Paths of the keys of `tree` that its `model`, read from it, does not have, each with the field that it
    looks like, "" when it looks like none."""
    if isinstance(tree, dict) and isinstance(model, msgspec.Struct):
        fields = dict(zip(model.__struct_encode_fields__, model.__struct_fields__, strict=True))
        for key, value in tree.items():
            place = f"{path}.{key}" if path else str(key)
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.75)
                yield place, near[0] if near else ""
            else:
                yield from unknown(value, getattr(model, fields[key]), place)
    elif isinstance(tree, list) and isinstance(model, list):
        for index, (value, element) in enumerate(zip(tree, model, strict=True)):
            yield from unknown(value, element, f"{path}[{index}]")


def _nothing(kind: str, name: str, field: object) -> bool:
    """Whether the value says what is the case anyway: nothing asked for, or a default spelled out."""
    if (kind, name) in {("EnvVarSource", "configMapKeyRef"), ("EnvVarSource", "secretKeyRef")}:
        return getattr(field, "optional", None) is True
    return not field or (
        isinstance(field, msgspec.Struct) and not any(getattr(field, one) for one in field.__struct_fields__)
    )
