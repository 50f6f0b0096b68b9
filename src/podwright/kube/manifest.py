"""Reading manifests: YAML text → validated Pods with the API server's defaults. No I/O but in `read`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from podwright.errors import InvalidArgument
from podwright.kube import fields, validation
from podwright.kube.models import (
    AnyContainer,
    Container,
    EmptyDirVolumeSource,
    EphemeralContainer,
    Pod,
    PodSpec,
    Volume,
)
from podwright.kube.objects import Objects


@dataclass(frozen=True, slots=True)
class Manifest:
    """One Pod, ready to run: name, namespace and uid are set and the defaults filled in."""

    pod: Pod
    source: str
    """Where it was read: "pod.yaml, document 1"."""
    notes: tuple[str, ...] = ()
    """Fields that have no effect here, with the reason; for people."""
    objects: Objects = field(default_factory=Objects)
    """What stood beside it in the stream, or was given with it."""
    static: bool = False
    """It came from a directory of static pods, not from an API."""
    refused: str = ""
    """Why a static pod is not taken at all: the kubelet's words."""

    @property
    def spec(self) -> PodSpec:
        assert self.pod.spec is not None
        return self.pod.spec

    @property
    def name(self) -> str:
        return self._metadata("name")

    @property
    def namespace(self) -> str:
        return self._metadata("namespace")

    @property
    def uid(self) -> str:
        return self._metadata("uid")

    @property
    def init_containers(self) -> Sequence[Container]:
        return self.spec.initContainers or []

    @property
    def containers(self) -> Sequence[Container]:
        return self.spec.containers

    @property
    def ephemeral_containers(self) -> Sequence[EphemeralContainer]:
        return self.spec.ephemeralContainers or []

    @property
    def sidecars(self) -> Sequence[Container]:
        """Init containers that keep running."""
        return [one for one in self.init_containers if self.is_sidecar(one)]

    def is_sidecar(self, container: AnyContainer) -> bool:
        return container.restartPolicy == "Always" and any(
            container.name == one.name for one in self.init_containers
        )

    def all_containers(self) -> Sequence[AnyContainer]:
        """Init containers, containers, ephemeral containers."""
        return [*self.init_containers, *self.containers, *self.ephemeral_containers]

    def container(self, name: str) -> AnyContainer | None:
        return next((one for one in self.all_containers() if one.name == name), None)

    def place(self, container: AnyContainer | str) -> str:
        """Where a container stands, as events name it: "spec.containers{main}"; "" when nowhere."""
        name = container if isinstance(container, str) else container.name
        for group in ("initContainers", "containers", "ephemeralContainers"):
            if any(one.name == name for one in getattr(self.spec, group) or []):
                return f"spec.{group}{{{name}}}"
        return ""

    @property
    def grace(self) -> int:
        """Seconds between the stop signal and SIGKILL."""
        grace = self.spec.terminationGracePeriodSeconds
        return 30 if grace is None else grace

    def volume(self, name: str) -> Volume:
        return next(volume for volume in self.spec.volumes or [] if volume.name == name)

    def _metadata(self, name: str) -> str:
        value: str = getattr(self.pod.metadata, name)
        return value


def read(path: str | Path) -> list[Manifest]:
    """The Pods of a YAML or JSON file, or ("-") of standard input. InvalidArgument names everything that is
    wrong with it at once."""
    return parse(read_text(path), str(path))


def parse(text: str, source: str = "manifest") -> list[Manifest]:
    """The Pods of one or more YAML documents; a List of Pods counts as its items."""
    manifests = [from_dict(tree, place) for tree, place in documents(text, source)]
    names = [(one.namespace, one.name) for one in manifests]
    for namespace, name in names:
        if names.count((namespace, name)) > 1:
            raise InvalidArgument(source, f"holds Pod {namespace}/{name} more than once")
    return manifests


def documents(text: str, source: str) -> list[tuple[Any, str]]:
    """The Kubernetes objects of one or more YAML documents as trees, each with the place it stands at; a List
    counts as its items. InvalidArgument for what is not YAML, or holds none."""
    try:
        trees = [one for one in yaml.load_all(text, _Loader) if one is not None]
    except yaml.YAMLError as error:
        raise InvalidArgument(source, f"is not YAML: {_fault(error)}") from error
    found = []
    for number, tree in enumerate(trees, 1):
        place = f"{source}, document {number}" if len(trees) > 1 else source
        is_list = isinstance(tree, dict) and tree.get("kind") == "List"
        found += [(item, place) for item in (tree.get("items") or [] if is_list else [tree])]
    if not found:
        raise InvalidArgument(source, "holds no Pod")
    return found


def read_text(path: str | Path) -> str:
    """The text of a file, or ("-") of standard input. InvalidArgument when there is none."""
    try:
        return Path("/dev/stdin" if str(path) == "-" else path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(str(path), f"is no text in UTF-8: {error}") from error


def _fault(error: yaml.YAMLError) -> str:
    """What PyYAML complains of and where, on one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    words = ": ".join(filter(None, (error.context, error.problem)))
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}"


def from_dict(tree: Any, source: str = "manifest") -> Manifest:
    """The Pod that `tree`, parsed YAML or JSON, describes. `tree` is left as it is."""
    if not isinstance(tree, dict):
        raise InvalidArgument(source, "is not a Kubernetes object")
    kind, version = tree.get("kind"), tree.get("apiVersion")
    if (kind, version) != ("Pod", "v1"):
        raise InvalidArgument(
            source, f"kind {kind!r} of apiVersion {version!r} is not supported: only Pod of v1 is, so far"
        )
    try:
        pod = msgspec.convert(_quantities_as_text(tree), Pod)
    except msgspec.ValidationError as error:
        raise InvalidArgument(source, str(error).replace("`$.", "`")) from error
    faults = [
        f"{path}: no such field" + (f"; is it {near}?" if near else "")
        for path, near in fields.unknown(tree, pod)
    ]
    if pod.metadata is None or pod.spec is None:
        raise InvalidArgument(source, "metadata and spec are needed")
    findings = list(fields.examine(pod))
    faults += [f"{one.path}: {one.text}" for one in findings if one.refused]
    _fill_defaults(pod)
    faults += validation.faults(pod)
    if faults:
        raise InvalidArgument(
            source, "\n  ".join(["this Pod cannot run:", *faults] if len(faults) > 1 else faults)
        )
    notes = [f"{one.path} {one.text}" for one in findings if not one.refused and one.path != "status"]
    notes += [f"{path} is not enforced" for path in _unenforced(pod)]
    return Manifest(pod, source, tuple(notes))


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: dates stay text, a key that comes twice is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a string", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} comes twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _quantities_as_text(tree: Any) -> Any:
    """The models want a quantity as a string; manifests may write plain numbers."""
    if isinstance(tree, list):
        return [_quantities_as_text(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: str(value)
        if key in ("sizeLimit", "divisor") and isinstance(value, int | float) and not isinstance(value, bool)
        else _quantities_as_text(value)
        for key, value in tree.items()
    }


# Defaults, as the API server fills them in


def _fill_defaults(pod: Pod) -> None:
    metadata, spec = pod.metadata, pod.spec
    assert metadata is not None and spec is not None
    metadata.namespace = metadata.namespace or "default"
    metadata.uid = metadata.uid or str(uuid.uuid4())
    spec.restartPolicy = spec.restartPolicy or "Always"
    spec.dnsPolicy = spec.dnsPolicy or "ClusterFirst"
    if spec.terminationGracePeriodSeconds is None:
        spec.terminationGracePeriodSeconds = 30
    spec.serviceAccountName = spec.serviceAccountName or spec.serviceAccount or "default"
    for volume in spec.volumes or []:
        if all(getattr(volume, field) is None for field in volume.__struct_fields__ if field != "name"):
            volume.emptyDir = EmptyDirVolumeSource()
    for container in [*(spec.initContainers or []), *spec.containers]:
        container.imagePullPolicy = container.imagePullPolicy or _pull_policy(container.image or "")
        container.terminationMessagePath = container.terminationMessagePath or "/dev/termination-log"
        container.terminationMessagePolicy = container.terminationMessagePolicy or "File"
        for port in container.ports or []:
            port.protocol = port.protocol or "TCP"
            if spec.hostNetwork and not port.hostPort:
                port.hostPort = port.containerPort
        if container.resources is not None and container.resources.limits:
            container.resources.requests = {
                **container.resources.limits, **(container.resources.requests or {})
            }  # fmt: skip


def _pull_policy(image: str) -> str:
    name = image.rsplit("/", 1)[-1]
    if "@" in name:
        return "IfNotPresent"
    return "Always" if ":" not in name or name.endswith(":latest") else "IfNotPresent"


def _unenforced(pod: Pod) -> Iterator[str]:
    """Limits that a kubelet keeps by evicting the pod, for which nothing stands here."""
    assert pod.spec is not None
    for index, volume in enumerate(pod.spec.volumes or []):
        if volume.emptyDir is not None and volume.emptyDir.sizeLimit and volume.emptyDir.medium != "Memory":
            yield f"spec.volumes[{index}].emptyDir.sizeLimit on disk"
    for place, container in validation.containers(pod.spec):
        if container.resources is not None and "ephemeral-storage" in (container.resources.limits or {}):
            yield f"{place}.resources.limits[ephemeral-storage]"
