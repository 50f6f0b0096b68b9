"""The typed Kubernetes models of lightkube-models, loadable without the lightkube client.

The models ask the package `lightkube` for three names (their base class and two decorators). That package is
a whole API client with an HTTP stack; a pod runner needs none of it. Where it is not installed, the three
names are provided here on msgspec; where it is, the models use it.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

T = TypeVar("T")


def _dataclass(cls: type[T]) -> type[T]:
    """msgspec builds the class when it is defined; the decorator has nothing left to do."""
    return cls


def _field(metadata: dict[str, str] | None = None, default: Any = msgspec.NODEFAULT, **options: Any) -> Any:
    if metadata and "json" in metadata:
        options["name"] = metadata["json"]
    return msgspec.field(default=default, **options)


class _Model(msgspec.Struct, omit_defaults=True):
    pass


def _provide_schema() -> None:
    spec = importlib.util.find_spec("lightkube")
    if spec is not None and spec.origin is not None:
        return  # the client is installed and brings its own
    core, schema = ModuleType("lightkube.core"), ModuleType("lightkube.core.schema")
    schema.__dict__.update(DictMixin=_Model, dataclass=_dataclass, field=_field)
    core.__dict__.update(schema=schema)
    sys.modules.update({"lightkube.core": core, "lightkube.core.schema": schema})


if not TYPE_CHECKING:
    _provide_schema()

from lightkube.models.apps_v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet  # noqa: E402
from lightkube.models.batch_v1 import Job  # noqa: E402
from lightkube.models.core_v1 import (  # noqa: E402
    AppArmorProfile,
    ConfigMap,
    ConfigMapProjection,
    ConfigMapVolumeSource,
    Container,
    ContainerPort,
    ContainerResizePolicy,
    ContainerRestartRule,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    ContainerUser,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EmptyDirVolumeSource,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    EphemeralContainer,
    ExecAction,
    FileKeySelector,
    GRPCAction,
    HostIP,
    HostPathVolumeSource,
    HTTPGetAction,
    HTTPHeader,
    ImageVolumeSource,
    ImageVolumeStatus,
    KeyToPath,
    Lifecycle,
    LifecycleHandler,
    LinuxContainerUser,
    LocalObjectReference,
    ObjectFieldSelector,
    Pod,
    PodCondition,
    PodIP,
    PodSecurityContext,
    PodSpec,
    PodStatus,
    PodTemplateSpec,
    Probe,
    ProjectedVolumeSource,
    ReplicationController,
    ResourceFieldSelector,
    ResourceRequirements,
    SeccompProfile,
    Secret,
    SecretProjection,
    SecretVolumeSource,
    SecurityContext,
    SELinuxOptions,
    Service,
    ServiceAccount,
    ServiceAccountTokenProjection,
    SleepAction,
    Sysctl,
    TCPSocketAction,
    Volume,
    VolumeMount,
    VolumeMountStatus,
    VolumeProjection,
)
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference  # noqa: E402
from lightkube.models.node_v1 import RuntimeClass  # noqa: E402
from lightkube.models.scheduling_v1 import PriorityClass  # noqa: E402

AnyContainer = Container | EphemeralContainer
"""They have the same fields, but for `targetContainerName`."""

__all__ = [
    "AnyContainer",
    "AppArmorProfile",
    "ConfigMap",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "Container",
    "ContainerPort",
    "ContainerResizePolicy",
    "ContainerRestartRule",
    "ContainerState",
    "ContainerStateRunning",
    "ContainerStateTerminated",
    "ContainerStateWaiting",
    "ContainerStatus",
    "ContainerUser",
    "DaemonSet",
    "Deployment",
    "DownwardAPIProjection",
    "DownwardAPIVolumeFile",
    "DownwardAPIVolumeSource",
    "EmptyDirVolumeSource",
    "EnvFromSource",
    "EnvVar",
    "EnvVarSource",
    "EphemeralContainer",
    "ExecAction",
    "FileKeySelector",
    "GRPCAction",
    "HTTPGetAction",
    "HTTPHeader",
    "HostIP",
    "HostPathVolumeSource",
    "ImageVolumeSource",
    "ImageVolumeStatus",
    "Job",
    "KeyToPath",
    "Lifecycle",
    "LifecycleHandler",
    "LinuxContainerUser",
    "LocalObjectReference",
    "ObjectFieldSelector",
    "ObjectMeta",
    "OwnerReference",
    "Pod",
    "PodCondition",
    "PodIP",
    "PodSecurityContext",
    "PodSpec",
    "PodStatus",
    "PodTemplateSpec",
    "PriorityClass",
    "Probe",
    "ProjectedVolumeSource",
    "ReplicaSet",
    "ReplicationController",
    "ResourceFieldSelector",
    "ResourceRequirements",
    "RuntimeClass",
    "SELinuxOptions",
    "SeccompProfile",
    "Secret",
    "SecretProjection",
    "SecretVolumeSource",
    "SecurityContext",
    "Service",
    "ServiceAccount",
    "ServiceAccountTokenProjection",
    "SleepAction",
    "StatefulSet",
    "Sysctl",
    "TCPSocketAction",
    "Volume",
    "VolumeMount",
    "VolumeMountStatus",
    "VolumeProjection",
]
