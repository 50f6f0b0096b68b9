"""What becomes of every field of a Pod: it works, it has no effect here, or it is refused. Pure.

The table is whole: a test holds it against the models, so that a field of a newer Kubernetes is decided about
before it can be read. `docs/pods.md` shows it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

SCHEDULING = "there is one machine to run on"
NO_API = "there is no API server"
WINDOWS = "containers run on Linux"
LATER = "it came with Kubernetes 1.37"
NO_DRIVER = "nothing here provides such volumes; bind a directory of this host to it (run --volume NAME=PATH)"
NO_DEVICES = "nothing here allocates devices to claims"

WORKS: dict[str, str] = {
    "Pod": "apiVersion kind metadata spec",
    "ObjectMeta": "name namespace uid labels annotations",
    "PodSpec": "activeDeadlineSeconds automountServiceAccountToken containers dnsConfig dnsPolicy "
    "enableServiceLinks ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname "
    "hostnameOverride imagePullSecrets initContainers nodeName os overhead priority priorityClassName "
    "readinessGates resources restartPolicy runtimeClassName securityContext serviceAccount "
    "serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds "
    "volumes",
    "PodOS": "name",
    "PodDNSConfig": "nameservers options searches",
    "PodDNSConfigOption": "name value",
    "PodReadinessGate": "conditionType",
    "HostAlias": "ip hostnames",
    "LocalObjectReference": "name",
    "PodSecurityContext": "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser "
    "seLinuxOptions seccompProfile supplementalGroups supplementalGroupsPolicy sysctls",
    "SecurityContext": "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount "
    "readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seLinuxOptions seccompProfile",
    "Sysctl": "name value",
    "SeccompProfile": "type localhostProfile",
    "AppArmorProfile": "type localhostProfile",
    "SELinuxOptions": "level role type user",
    "Capabilities": "add drop",
    "Container": "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports "
    "readinessProbe resizePolicy resources restartPolicy restartPolicyRules securityContext startupProbe "
    "stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeMounts workingDir",
    "EphemeralContainer": "args command env envFrom image imagePullPolicy name securityContext stdin "
    "stdinOnce targetContainerName terminationMessagePath terminationMessagePolicy tty volumeMounts "
    "workingDir",
    "ContainerPort": "containerPort hostIP hostPort name protocol",
    "ContainerResizePolicy": "resourceName restartPolicy",
    "ContainerRestartRule": "action exitCodes",
    "ContainerRestartRuleOnExitCodes": "operator values",
    "Probe": "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold "
    "tcpSocket terminationGracePeriodSeconds timeoutSeconds",
    "ExecAction": "command",
    "GRPCAction": "port service",
    "HTTPGetAction": "host httpHeaders path port scheme",
    "HTTPHeader": "name value",
    "TCPSocketAction": "host port",
    "SleepAction": "seconds",
    "Lifecycle": "postStart preStop stopSignal",
    "LifecycleHandler": "exec httpGet sleep tcpSocket",
    "ResourceRequirements": "limits requests",
    "EnvVar": "name value valueFrom",
    "EnvFromSource": "configMapRef prefix secretRef",
    "ConfigMapEnvSource": "name optional",
    "SecretEnvSource": "name optional",
    "EnvVarSource": "configMapKeyRef fieldRef fileKeyRef resourceFieldRef secretKeyRef",
    "ConfigMapKeySelector": "key name optional",
    "SecretKeySelector": "key name optional",
    "FileKeySelector": "key optional path volumeName",
    "ObjectFieldSelector": "apiVersion fieldPath",
    "ResourceFieldSelector": "resource containerName divisor",
    "VolumeMount": "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    "Volume": "configMap downwardAPI emptyDir hostPath image name projected secret",
    "EmptyDirVolumeSource": "medium mode sizeLimit",
    "HostPathVolumeSource": "path type",
    "ConfigMapVolumeSource": "defaultMode items name optional",
    "SecretVolumeSource": "defaultMode items optional secretName",
    "KeyToPath": "key mode path",
    "DownwardAPIVolumeSource": "defaultMode items",
    "DownwardAPIVolumeFile": "fieldRef mode path resourceFieldRef",
    "ImageVolumeSource": "pullPolicy reference",
    "ProjectedVolumeSource": "defaultMode sources",
    "VolumeProjection": "configMap downwardAPI secret serviceAccountToken",
    "ConfigMapProjection": "items name optional",
    "SecretProjection": "items name optional",
    "DownwardAPIProjection": "items",
    "ServiceAccountTokenProjection": "audience expirationSeconds path",
}

_OBSERVED = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
    "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink",
)  # fmt: skip
_SCHEDULING = (
    "affinity", "evictionResponders", "nodeSelector", "preemptionPolicy", "schedulerName", "schedulingGates",
    "schedulingGroup", "tolerations", "topologySpreadConstraints",
)  # fmt: skip

NO_EFFECT: dict[str, dict[str, str]] = {
    "Pod": {"status": "it is what a cluster once observed"},
    "ObjectMeta": dict.fromkeys(_OBSERVED, NO_API),
    "PodSpec": dict.fromkeys(_SCHEDULING, SCHEDULING),
    "PodSecurityContext": {"seLinuxChangePolicy": "volumes are relabelled by the runtime"},
}

_DRIVEN = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc",
    "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "iscsi", "nfs",
    "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO",
    "storageos", "vsphereVolume",
)  # fmt: skip
_NOT_EPHEMERAL = (
    "lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "resources", "restartPolicy",
    "restartPolicyRules", "startupProbe",
)  # fmt: skip

_USUAL = {"schedulerName": "default-scheduler", "preemptionPolicy": "PreemptLowerPriority"}
"""What every Pod says that came out of a cluster."""

REFUSED: dict[str, dict[str, str]] = {
    "PodSpec": {"resourceClaims": NO_DEVICES},
    "ResourceRequirements": {"claims": NO_DEVICES},
    "PodSecurityContext": {"windowsOptions": WINDOWS},
    "SecurityContext": {"windowsOptions": WINDOWS},
    "Container": {"volumeDevices": "nothing here provides block volumes"},
    "EphemeralContainer": {
        **dict.fromkeys(_NOT_EPHEMERAL, "an ephemeral container cannot have it"),
        "volumeDevices": "nothing here provides block volumes",
    },
    "GRPCAction": {"mode": LATER},
    "HTTPGetAction": {"protocol": LATER},
    "VolumeMount": {"bindMountOptions": LATER},
    "Volume": dict.fromkeys(_DRIVEN, NO_DRIVER),
    "ConfigMapVolumeSource": {"defaultUser": LATER},
    "SecretVolumeSource": {"defaultUser": LATER},
    "DownwardAPIVolumeSource": {"defaultUser": LATER},
    "ProjectedVolumeSource": {"defaultUser": LATER},
    "KeyToPath": {"user": LATER},
    "DownwardAPIVolumeFile": {"user": LATER},
    "ServiceAccountTokenProjection": {"user": LATER},
    "VolumeProjection": {
        "clusterTrustBundle": "there is no API server with trust bundles",
        "podCertificate": "there is no API server that signs certificates",
    },
}


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    """Where it stands: "spec.containers[0].livenessProbe"."""
    text: str
    refused: bool


def examine(value: object, path: str = "", *, bound: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """What has to be said about the fields that are set in a model: refusals and fields without effect.

    `bound`: volumes that the caller provides, whatever the manifest says they are.
    """
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from examine(element, f"{path}[{index}]", bound=bound)
    elif isinstance(value, msgspec.Struct):
        kind = type(value).__name__
        if kind == "Volume" and getattr(value, "name", None) in bound:
            return
        works = WORKS[kind].split()
        for name in value.__struct_fields__:
            field, place = getattr(value, name), f"{path}.{name}" if path else name
            if field is None:
                continue
            if name in works:
                yield from examine(field, place, bound=bound)
            elif name in NO_EFFECT.get(kind, {}):
                if _nothing(field) or field == _USUAL.get(name):
                    continue
                yield Finding(place, f"has no effect here: {NO_EFFECT[kind][name]}", refused=False)
            elif not _nothing(field) or kind == "Volume":
                reason = REFUSED.get(kind, {}).get(name)
                text = "is not supported" + (f": {reason}" if reason else " yet")
                yield Finding(place, text, refused=True)


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


def wanted(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what a cluster has observed of it: that may be of any version."""
    metadata = tree.get("metadata")
    kept = {key: value for key, value in tree.items() if key != "status"}
    if isinstance(metadata, dict):
        kept["metadata"] = {key: value for key, value in metadata.items() if key != "managedFields"}
    return kept


def numbers_as_text(tree: Any) -> Any:
    """The models want a quantity as a string; manifests may write plain numbers."""
    if isinstance(tree, list):
        return [numbers_as_text(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: str(value)
        if key in ("sizeLimit", "divisor") and isinstance(value, int | float) and not isinstance(value, bool)
        else numbers_as_text(value)
        for key, value in tree.items()
    }


def _nothing(field: object) -> bool:
    """Whether the value says what is the case anyway: nothing asked for."""
    return not field or (
        isinstance(field, msgspec.Struct) and not any(getattr(field, one) for one in field.__struct_fields__)
    )
