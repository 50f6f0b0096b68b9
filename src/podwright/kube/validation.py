"""What the API server would refuse in a Pod: names, ranges, combinations, references. Pure.

Each check yields (path, text) for everything it finds, so that all faults are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from podwright.errors import InvalidArgument
from podwright.kube import env, resources
from podwright.kube.models import Container, Pod, PodSpec, VolumeMount

RESTART_POLICIES = ("Always", "OnFailure", "Never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
HOST_PATH_TYPES = (
    "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
)  # fmt: skip

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ENV_NAME = re.compile(r"[ -<>-~]+")
_SIGNAL = re.compile(r"SIG[A-Z0-9+-]+")


def faults(pod: Pod) -> list[str]:
    """All that is wrong with a Pod whose defaults are filled in: "path: what"."""
    return [f"{path}: {text}" for check in _CHECKS for path, text in check(pod)]


Faults = Iterator[tuple[str, str]]


def _check_names(pod: Pod) -> Faults:
    metadata, spec = pod.metadata, pod.spec
    assert metadata is not None and spec is not None
    if not _SUBDOMAIN.fullmatch(metadata.name or ""):
        yield "metadata.name", f"{metadata.name!r} is not a DNS name (lower-case letters, digits, - and .)"
    for field in ("namespace", "uid"):
        if not re.fullmatch(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?", getattr(metadata, field)):
            yield f"metadata.{field}", f"{getattr(metadata, field)!r} must be letters, digits and -"
    for field in ("labels", "annotations"):
        for key, value in (getattr(metadata, field) or {}).items():
            if not isinstance(value, str):
                yield f"metadata.{field}[{key}]", f"{value!r} is not a string: put it in quotes"
    for field in ("hostname", "subdomain"):
        value = getattr(spec, field)
        if value and not _LABEL.fullmatch(value):
            yield f"spec.{field}", f"{value!r} is not a DNS label"


def _check_pod(pod: Pod) -> Faults:
    spec = pod.spec
    assert spec is not None
    if not spec.containers:
        yield "spec.containers", "at least one container is needed"
    if spec.os is not None and spec.os.name != "linux":
        yield "spec.os.name", f"{spec.os.name!r} cannot run here"
    yield from _one_of("spec.restartPolicy", spec.restartPolicy, RESTART_POLICIES)
    yield from _one_of(
        "spec.dnsPolicy", spec.dnsPolicy, ("Default", "ClusterFirst", "ClusterFirstWithHostNet", "None")
    )
    if spec.dnsPolicy == "None" and not (spec.dnsConfig and spec.dnsConfig.nameservers):
        yield "spec.dnsConfig.nameservers", "dnsPolicy None needs at least one"
    if (spec.terminationGracePeriodSeconds or 0) < 0:
        yield "spec.terminationGracePeriodSeconds", "is negative"
    if spec.activeDeadlineSeconds is not None and spec.activeDeadlineSeconds < 1:
        yield "spec.activeDeadlineSeconds", "must be at least 1"
    if spec.hostPID and spec.shareProcessNamespace:
        yield "spec.shareProcessNamespace", "cannot be combined with hostPID"
    if spec.hostUsers is False:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if getattr(spec, name):
                yield f"spec.{name}", "cannot be combined with hostUsers: false"
    if spec.hostNetwork and spec.hostnameOverride:
        yield "spec.hostnameOverride", "cannot be combined with hostNetwork"
    context = spec.securityContext
    if context is not None:
        yield from _check_ids("spec.securityContext", context.runAsUser, context.runAsGroup, context.fsGroup,
                              *(context.supplementalGroups or []))  # fmt: skip
        yield from _one_of("spec.securityContext.supplementalGroupsPolicy",
                           context.supplementalGroupsPolicy, (None, "Merge", "Strict"))  # fmt: skip
        yield from _check_profiles("spec.securityContext", context)


def _check_containers(pod: Pod) -> Faults:
    spec = pod.spec
    assert spec is not None
    seen: set[str] = set()
    for place, container in containers(spec):
        if not _LABEL.fullmatch(container.name):
            yield f"{place}.name", f"{container.name!r} is not a DNS label"
        if container.name in seen:
            yield f"{place}.name", f"{container.name!r} is taken by another container"
        seen.add(container.name)
        if not container.image or container.image != container.image.strip():
            yield f"{place}.image", "an image reference is needed"
        yield from _one_of(f"{place}.imagePullPolicy", container.imagePullPolicy, PULL_POLICIES)
        yield from _one_of(f"{place}.terminationMessagePolicy", container.terminationMessagePolicy,
                           ("File", "FallbackToLogsOnError"))  # fmt: skip
        if (
            container.lifecycle
            and container.lifecycle.stopSignal
            and not _SIGNAL.fullmatch(container.lifecycle.stopSignal)
        ):
            yield f"{place}.lifecycle.stopSignal", f"{container.lifecycle.stopSignal!r} is not a signal"
        for index, port in enumerate(container.ports or []):
            where = f"{place}.ports[{index}]"
            yield from _one_of(f"{where}.protocol", port.protocol, ("TCP", "UDP", "SCTP"))
            for field, least in (("containerPort", 1), ("hostPort", 0)):
                number = getattr(port, field)
                if number is not None and not least <= number <= 65535:
                    yield f"{where}.{field}", f"{number} is not a port"
        yield from _check_env(pod, container, place)
        yield from _check_resources(container, place)
        yield from _check_security(container, place)


def _check_env(pod: Pod, container: Container, place: str) -> Faults:
    for index, variable in enumerate(container.env or []):
        if not _ENV_NAME.fullmatch(variable.name):
            yield (
                f"{place}.env[{index}].name",
                f"{variable.name!r} is not a name of printable ASCII without =",
            )
        if variable.value and variable.valueFrom is not None:
            yield f"{place}.env[{index}].valueFrom", "cannot be combined with value"
    for index, source in enumerate(container.envFrom or []):
        reference = source.configMapRef or source.secretRef
        if reference is None or not reference.optional:
            yield f"{place}.envFrom[{index}]", "ConfigMap and Secret objects are not supported yet"
    try:
        env.check_references(pod, container)
    except InvalidArgument as error:
        yield "spec", str(error)


def _check_resources(container: Container, place: str) -> Faults:
    if container.resources is None:
        return
    amounts = {}
    for side in ("limits", "requests"):
        for name, value in (getattr(container.resources, side) or {}).items():
            where = f"{place}.resources.{side}[{name}]"
            if name not in ("cpu", "memory", "ephemeral-storage"):
                yield where, "is not supported yet"
            try:
                amounts[side, name] = resources.parse_quantity(value)
            except InvalidArgument as error:
                yield where, str(error)
                continue
            limit = amounts.get(("limits", name))
            if amounts[side, name] < 0:
                yield where, f"{value} is negative"
            if limit is not None and amounts[side, name] > limit:
                yield where, f"{value} is more than the limit"


def _check_security(container: Container, place: str) -> Faults:
    context = container.securityContext
    if context is None:
        return
    where = f"{place}.securityContext"
    yield from _check_ids(where, context.runAsUser, context.runAsGroup)
    yield from _one_of(f"{where}.procMount", context.procMount, (None, "Default", "Unmasked"))
    added = [
        name.upper().removeprefix("CAP_")
        for name in (context.capabilities and context.capabilities.add) or []
    ]
    if context.allowPrivilegeEscalation is False and (context.privileged or "SYS_ADMIN" in added):
        yield f"{where}.allowPrivilegeEscalation", "false cannot be combined with privileged or CAP_SYS_ADMIN"
    yield from _check_profiles(where, context)


def _check_ids(place: str, *ids: int | None) -> Faults:
    for number in ids:
        if number is not None and not 0 <= number < 1 << 31:
            yield place, f"{number} is not a user or group id"


def _check_profiles(place: str, context: Any) -> Faults:
    for field in ("seccompProfile", "appArmorProfile"):
        profile = getattr(context, field)
        if profile is None:
            continue
        yield from _one_of(
            f"{place}.{field}.type", profile.type, ("RuntimeDefault", "Unconfined", "Localhost")
        )
        if (profile.type == "Localhost") != bool(profile.localhostProfile):
            yield f"{place}.{field}.localhostProfile", "belongs to the type Localhost, and only to it"


def _check_volumes(pod: Pod) -> Faults:
    spec = pod.spec
    assert spec is not None
    names: set[str] = set()
    for index, volume in enumerate(spec.volumes or []):
        place = f"spec.volumes[{index}]"
        if not _LABEL.fullmatch(volume.name):
            yield f"{place}.name", f"{volume.name!r} is not a DNS label"
        if volume.name in names:
            yield f"{place}.name", f"{volume.name!r} is taken by another volume"
        names.add(volume.name)
        sources = [
            one for one in volume.__struct_fields__ if one != "name" and getattr(volume, one) is not None
        ]
        if len(sources) > 1:
            yield place, f"has more than one source: {', '.join(sources)}"
        if volume.emptyDir is not None:
            yield from _one_of(f"{place}.emptyDir.medium", volume.emptyDir.medium or "", ("", "Memory"))
            if volume.emptyDir.sizeLimit:
                try:
                    resources.parse_quantity(volume.emptyDir.sizeLimit)
                except InvalidArgument as error:
                    yield f"{place}.emptyDir.sizeLimit", str(error)
        if volume.hostPath is not None:
            yield from _one_of(f"{place}.hostPath.type", volume.hostPath.type or "", HOST_PATH_TYPES)
            if ".." in PurePosixPath(volume.hostPath.path).parts or not volume.hostPath.path.startswith("/"):
                yield f"{place}.hostPath.path", "must be absolute and without .."
    for place, container in containers(spec):
        paths: set[str] = set()
        for index, mount in enumerate(container.volumeMounts or []):
            yield from _check_mount(spec, container, mount, f"{place}.volumeMounts[{index}]", names, paths)


def _check_mount(
    spec: PodSpec, container: Container, mount: VolumeMount, place: str, names: set[str], paths: set[str]
) -> Faults:
    if mount.name not in names:
        yield f"{place}.name", f"there is no volume {mount.name!r}"
    if not mount.mountPath or ":" in mount.mountPath:
        yield f"{place}.mountPath", "a path without : is needed"
    if mount.mountPath in paths:
        yield f"{place}.mountPath", f"{mount.mountPath} is mounted twice"
    paths.add(mount.mountPath)
    for field in ("subPath", "subPathExpr"):
        value = getattr(mount, field)
        if value and (value.startswith("/") or ".." in value.split("/")):
            yield f"{place}.{field}", f"{value!r} must be relative and without .."
    if mount.subPath and mount.subPathExpr:
        yield f"{place}.subPathExpr", "cannot be combined with subPath"
    yield from _one_of(f"{place}.mountPropagation", mount.mountPropagation,
                       (None, "None", "HostToContainer", "Bidirectional"))  # fmt: skip
    context = container.securityContext
    if mount.mountPropagation == "Bidirectional" and not (context and context.privileged):
        yield f"{place}.mountPropagation", "Bidirectional needs a privileged container"
    yield from _one_of(f"{place}.recursiveReadOnly", mount.recursiveReadOnly,
                       (None, "Disabled", "IfPossible", "Enabled"))  # fmt: skip
    if mount.recursiveReadOnly in ("IfPossible", "Enabled") and (
        not mount.readOnly or mount.mountPropagation not in (None, "None")
    ):
        yield f"{place}.recursiveReadOnly", "needs readOnly: true and no mountPropagation"


_CHECKS: tuple[Callable[[Pod], Faults], ...] = (_check_names, _check_pod, _check_containers, _check_volumes)


def containers(spec: PodSpec) -> Iterator[tuple[str, Container]]:
    for group in ("initContainers", "containers"):
        for index, container in enumerate(getattr(spec, group) or []):
            yield f"spec.{group}[{index}]", container


def _one_of(path: str, value: str | None, allowed: tuple[str | None, ...]) -> Faults:
    if value not in allowed:
        yield path, f"{value!r} is none of {', '.join(one for one in allowed if one)}"
