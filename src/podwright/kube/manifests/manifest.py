"""Manifests: one Pod each, ready to run, with the objects it needs; and the ways to read them.

A stream of documents is read as a whole: what stands beside the Pods is found by them, and workloads become
their Pods. No I/O but in `read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.kube.manifests import (
    admission,
    defaults,
    fields,
    kinds,
    objects,
    positions,
    validation,
    workloads,
)
from podwright.kube.manifests.documents import check, documents, read_text
from podwright.kube.manifests.objects import Objects
from podwright.kube.models import AnyContainer, Container, EphemeralContainer, Pod, PodSpec, Volume

__all__ = [
    "Manifest",
    "documents",
    "from_dict",
    "from_trees",
    "parse",
    "read",
    "read_all",
    "read_text",
]


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
    bindings: Mapping[str, Path] = field(default_factory=dict)
    """Directories or files of this host for volumes that a cluster would find elsewhere, by volume."""

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


def read(path: str | Path, beside: Objects | None = None) -> list[Manifest]:
    """The Pods of a YAML or JSON file, or ("-") of standard input. InvalidArgument names all that is wrong
    with it at once."""
    return parse(read_text(path), str(path), beside)


def read_all(paths: Sequence[str | Path], beside: Objects | None = None) -> list[Manifest]:
    """The Pods of several files, which are one stream: a Pod of one finds the objects of another."""
    trees = [each for path in paths for each in documents(read_text(path), str(path))]
    return from_trees(trees, ", ".join(map(str, paths)), beside)


def parse(text: str, source: str = "manifest", beside: Objects | None = None) -> list[Manifest]:
    """The Pods of one or more documents: of Pods, of Lists, of workloads. `beside`: objects that they may
    need and the stream does not have."""
    return from_trees(documents(text, source), source, beside)


def from_trees(
    trees: Iterable[tuple[Any, str]],
    source: str = "manifest",
    beside: Objects | None = None,
    *,
    bindings: Mapping[str, Path] | None = None,
) -> list[Manifest]:
    """The same for documents that are read already, each with its place; of several files too. `bindings`:
    directories or files of this host, by the name of a volume or of its claim."""
    known, notes, wanted = beside or Objects(), [], []
    for tree, place in trees:
        check(tree, place)
        match kinds.role(tree, place):
            case "object":
                known = known.adding(objects.from_tree(tree, place))
            case "pod":
                wanted.append((tree, place, tree))
            case "workload":
                made = workloads.pods(tree, place)
                wanted += [(pod, place, tree) for pod in made.pods]
                notes += made.notes
            case other:
                notes.append(other)
    if not wanted:
        raise InvalidArgument(source, "; ".join(["holds no Pod, and nothing that runs as Pods", *notes]))
    manifests = [
        from_dict(tree, place, known, bindings=bindings, document=document)
        for tree, place, document in wanted
    ]
    names = [(one.namespace, one.name) for one in manifests]
    for namespace, name in names:
        if names.count((namespace, name)) > 1:
            raise InvalidArgument(source, f"holds Pod {namespace}/{name} more than once")
    return [replace(manifests[0], notes=(*notes, *manifests[0].notes)), *manifests[1:]]


def from_dict(
    tree: Any,
    source: str = "manifest",
    beside: Objects | None = None,
    *,
    static: bool = False,
    bindings: Mapping[str, Path] | None = None,
    document: Any = None,
) -> Manifest:
    """The Pod that `tree`, parsed YAML or JSON, describes. `tree` is left as it is. A `static` one has passed
    no API server. `document`: what it was made of, itself or a workload; it tells where faults stand."""
    document = tree if document is None else document
    check(tree, source)
    if kinds.role(tree, source) != "pod":
        raise InvalidArgument(source, f"kind {tree.get('kind')!r} is no Pod")
    known, tree = beside or Objects(), fields.wanted(tree)
    try:
        pod = structs.convert(fields.numbers_as_text(tree), Pod)
    except msgspec.ValidationError as error:
        text, path = str(error).replace("`$.", "`"), str(error).partition("`$.")[2].rstrip("`")
        raise InvalidArgument(positions.where(document, path) or source, text) from error
    faults = [
        f"{path}: no such field" + (f"; is it {near}?" if near else "")
        for path, near in fields.unknown(tree, pod)
    ]
    if pod.metadata is None or pod.spec is None:
        raise InvalidArgument(source, "metadata and spec are needed")
    if not pod.metadata.name and pod.metadata.generateName:
        pod.metadata.name = pod.metadata.generateName + admission.suffix(source + pod.metadata.generateName)
    bound = _bound(pod.spec, bindings or {})
    findings = list(fields.examine(pod, bound=frozenset(bound)))
    defaults.fill(pod)
    if not static:
        findings += admission.admit(pod, known)
        known = admission.with_root_ca(pod, known)
    faults += [f"{one.path}: {one.text}" for one in findings if one.refused]
    faults += validation.faults(pod)
    if faults:
        raise _refusal(source, document, faults)
    notes = [f"{one.path} {one.text}" for one in findings if not one.refused and _matters(one)]
    notes += [f"{path} is not enforced" for path in validation.unenforced(pod)]
    return Manifest(pod, source, tuple(notes), known, static=static, bindings=bound)


def _refusal(source: str, document: Any, faults: Sequence[str]) -> InvalidArgument:
    """Each fault with the line it stands in, where that is known."""
    places = [positions.where(document, fault.partition(": ")[0]) for fault in faults]
    if len(faults) == 1:
        return InvalidArgument(places[0] or source, faults[0])
    lines = [f"{place}: {fault}" if place else fault for place, fault in zip(places, faults, strict=True)]
    return InvalidArgument(source, "\n  ".join(["this Pod cannot run:", *lines]))


def _bound(spec: PodSpec, bindings: Mapping[str, Path]) -> dict[str, Path]:
    """By volume: a binding names one, or the claim of one."""
    found: dict[str, Path] = {}
    for volume in spec.volumes or []:
        claim = volume.persistentVolumeClaim
        for name in (volume.name, *([claim.claimName] if claim is not None else [])):
            if name in bindings:
                found.setdefault(volume.name, bindings[name])
    return found


def _matters(finding: fields.Finding) -> bool:
    """What every object has that came out of a cluster is not worth a word."""
    return finding.text != f"has no effect here: {fields.NO_API}"
