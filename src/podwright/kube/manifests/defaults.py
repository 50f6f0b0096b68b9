"""What the API server fills in where a Pod says nothing. The Pod is changed in place."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from podwright.errors import InvalidArgument
from podwright.images import references
from podwright.kube import models
from podwright.kube.models import AnyContainer, Container, Lifecycle, Pod, PodSpec, Probe, Volume
from podwright.kube.requests import quantities, resources

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_MODE = 0o644
TOKEN_SECONDS = 3600
ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
"""How the annotations begin that were a container's AppArmor profile before there was a field."""


def fill(pod: Pod) -> None:
    metadata, spec = pod.metadata, pod.spec
    assert metadata is not None and spec is not None
    metadata.namespace = metadata.namespace or "default"
    metadata.uid = metadata.uid or str(uuid.uuid4())
    _fill_spec(spec)
    for volume in spec.volumes or []:
        _fill_volume(volume)
    every: list[AnyContainer] = [*(spec.initContainers or []), *spec.containers]
    for container in [*every, *(spec.ephemeralContainers or [])]:
        _fill_container(spec, container)
        _fill_armor(container, metadata.annotations or {})
    _fill_pod_resources(spec)


def pull_policy(image: str) -> str:
    """Always for what may change behind its name: the tag latest, also beside a digest, or neither tag nor
    digest. IfNotPresent for the rest, also for what is no reference."""
    try:
        references.parse(image)
    except InvalidArgument:
        return "IfNotPresent"
    name, digest, _ = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2] or ("" if digest else "latest")
    return "Always" if tag == "latest" else "IfNotPresent"


def _fill_spec(spec: PodSpec) -> None:
    spec.restartPolicy = spec.restartPolicy or "Always"
    spec.dnsPolicy = spec.dnsPolicy or "ClusterFirst"
    if spec.terminationGracePeriodSeconds is None:
        spec.terminationGracePeriodSeconds = 30
    spec.serviceAccountName = spec.serviceAccountName or spec.serviceAccount
    if spec.enableServiceLinks is None:
        spec.enableServiceLinks = True


def _fill_container(spec: PodSpec, container: AnyContainer) -> None:
    container.imagePullPolicy = container.imagePullPolicy or pull_policy(container.image or "")
    container.terminationMessagePath = container.terminationMessagePath or "/dev/termination-log"
    container.terminationMessagePolicy = container.terminationMessagePolicy or "File"
    for variable in container.env or []:
        if variable.valueFrom is not None and variable.valueFrom.fieldRef is not None:
            _fill_field(variable.valueFrom.fieldRef)
    for port in container.ports or []:
        port.protocol = port.protocol or "TCP"
        if spec.hostNetwork and not port.hostPort:
            port.hostPort = port.containerPort
    if container.resources is not None and container.resources.limits:
        container.resources.requests = {
            **container.resources.limits, **(container.resources.requests or {})
        }  # fmt: skip
    for probe in (container.livenessProbe, container.readinessProbe, container.startupProbe):
        if probe is not None:
            _fill_probe(probe)
    if container.lifecycle is not None:
        _fill_lifecycle(container.lifecycle)


def _fill_probe(probe: Probe) -> None:
    for name, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not getattr(probe, name):
            setattr(probe, name, value)
    if probe.httpGet is not None:
        _fill_http(probe.httpGet)
    if probe.grpc is not None and probe.grpc.service is None:
        probe.grpc.service = ""


def _fill_lifecycle(lifecycle: Lifecycle) -> None:
    for handler in (lifecycle.postStart, lifecycle.preStop):
        if handler is not None and handler.httpGet is not None:
            _fill_http(handler.httpGet)


def _fill_http(action: models.HTTPGetAction) -> None:
    action.path = action.path or "/"
    action.scheme = action.scheme or "HTTP"


def _fill_armor(container: AnyContainer, annotations: dict[str, str]) -> None:
    said = annotations.get(ARMOR_ANNOTATION + container.name)
    context = container.securityContext
    if not isinstance(said, str) or (context is not None and context.appArmorProfile is not None):
        return
    profile = {
        "runtime/default": models.AppArmorProfile(type="RuntimeDefault"),
        "unconfined": models.AppArmorProfile(type="Unconfined"),
    }.get(said)
    if profile is None and said.startswith("localhost/"):
        profile = models.AppArmorProfile(type="Localhost", localhostProfile=said.removeprefix("localhost/"))
    if profile is not None:
        container.securityContext = context or models.SecurityContext()
        container.securityContext.appArmorProfile = profile


def _fill_volume(volume: Volume) -> None:
    if all(getattr(volume, name) is None for name in volume.__struct_fields__ if name != "name"):
        volume.emptyDir = models.EmptyDirVolumeSource()
    if volume.image is not None and not volume.image.pullPolicy:
        volume.image.pullPolicy = pull_policy(volume.image.reference or "")
    if volume.hostPath is not None and volume.hostPath.type is None:
        volume.hostPath.type = ""
    for source in (volume.configMap, volume.secret, volume.downwardAPI, volume.projected):
        if source is not None and source.defaultMode is None:
            source.defaultMode = FILE_MODE
    if volume.downwardAPI is not None:
        _fill_files(volume.downwardAPI.items or [])
    for projection in (volume.projected.sources if volume.projected is not None else None) or []:
        token = projection.serviceAccountToken
        if token is not None and token.expirationSeconds is None:
            token.expirationSeconds = TOKEN_SECONDS
        if projection.downwardAPI is not None:
            _fill_files(projection.downwardAPI.items or [])


def _fill_files(items: Iterable[models.DownwardAPIVolumeFile]) -> None:
    for item in items:
        if item.fieldRef is not None:
            _fill_field(item.fieldRef)


def _fill_field(selector: models.ObjectFieldSelector) -> None:
    selector.apiVersion = selector.apiVersion or "v1"


def _fill_pod_resources(spec: PodSpec) -> None:
    """A pod as a whole with a word about its resources has room for the huge pages of its containers; with a
    limit it requests what they do, or else what it is limited to."""
    own = spec.resources
    if own is None or not (own.requests or own.limits):
        return
    requests, limits = dict(own.requests or {}), dict(own.limits or {})
    for name in _names(spec, "limits"):
        if name.startswith(resources.HUGE_PAGES) and name not in requests and name not in limits:
            limits[name] = quantities.of_containers(spec, "limits", name)
    if limits:
        for name in _names(spec, "requests") & set(resources.OF_PODS) - requests.keys():
            requests[name] = quantities.of_containers(spec, "requests", name)
        of_limits = {name: limit for name, limit in limits.items() if resources.is_of_pods(name)}
        requests = {**of_limits, **requests}
    own.requests, own.limits = requests or None, limits or None


def _names(spec: PodSpec, side: str) -> set[str]:
    """Of the resources that containers speak of."""
    every: list[Container] = [*(spec.initContainers or []), *spec.containers]
    return {name for one in every for name in getattr(one.resources, side, None) or {}}
