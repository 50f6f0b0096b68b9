"""Workloads as the Pods that their controllers would make: names, labels, owners, indices. Pure.

No controller runs here: what a workload's own spec says of changes (rollouts, retries, scaling) has no
effect, and is named. Names that a controller would draw are the same each time.
"""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podwright.errors import InvalidArgument
from podwright.kube import models
from podwright.kube.manifests import admission, fields

MAX_PODS = 110
"""As many as a kubelet takes by default."""
MAX_HASH = 10

Tree = dict[str, Any]


@dataclass(slots=True)
class Made:
    pods: list[Tree] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Workload:
    """A workload's document, checked."""

    kind: str
    version: str
    name: str
    namespace: str
    uid: str
    spec: Mapping[str, Any]
    template: Tree
    place: str

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    def count(self, name: str) -> int:
        said = self.spec.get(name)
        count = 1 if said is None else said
        if not 0 <= count <= MAX_PODS:
            raise InvalidArgument(
                self.place, f"{self.title}: spec.{name}: {count} is not between 0 and {MAX_PODS}"
            )
        return int(count)


def pods(tree: Mapping[str, Any], place: str) -> Made:
    """The Pods of a document of a kind in `KINDS`, as documents. InvalidArgument names what is wrong."""
    kind = KINDS[str(tree.get("apiVersion")), str(tree.get("kind"))]
    work = _checked(tree, place, kind)
    made = Made(notes=list(_notes(work, kind)))
    made.pods = list(kind.make(work))
    if not made.pods:
        made.notes.append(f"{work.title} asks for no Pods")
    return made


def _replica_set(work: _Workload) -> Iterator[Tree]:
    for index in range(work.count("replicas")):
        yield _pod(work, f"{work.name}-{admission.suffix(f'{work.uid}/{index}')}")


def _deployment(work: _Workload) -> Iterator[Tree]:
    """By way of a ReplicaSet that is named for the template."""
    digest = _digest(work.template)
    owner = {"kind": "ReplicaSet", "name": f"{work.name}-{digest}"}
    for index in range(work.count("replicas")):
        name = f"{owner['name']}-{admission.suffix(f'{work.uid}/{digest}/{index}')}"
        yield _pod(work, name, labels={"pod-template-hash": digest}, owner=owner)


def _daemon_set(work: _Workload) -> Iterator[Tree]:
    """There is one node."""
    digest = _digest(work.template)
    labels = {"controller-revision-hash": digest, "pod-template-generation": "1"}
    yield _pod(work, f"{work.name}-{admission.suffix(work.uid)}", labels=labels)


def _stateful_set(work: _Workload) -> Iterator[Tree]:
    start = (work.spec.get("ordinals") or {}).get("start") or 0
    digest = f"{work.name}-{_digest(work.template)}"
    for index in range(start, start + work.count("replicas")):
        name = f"{work.name}-{index}"
        labels = {
            "apps.kubernetes.io/pod-index": str(index),
            "controller-revision-hash": digest,
            "statefulset.kubernetes.io/pod-name": name,
        }
        pod = _pod(work, name, labels=labels)
        pod["spec"] |= {"hostname": name, "subdomain": work.spec.get("serviceName") or ""}
        # A claim of a template takes the place of a volume of its name.
        claims = {
            claim["metadata"]["name"]: f"{claim['metadata']['name']}-{name}"
            for claim in work.spec.get("volumeClaimTemplates") or []
            if isinstance(claim, dict) and (claim.get("metadata") or {}).get("name")
        }
        volumes = [one for one in pod["spec"].get("volumes") or [] if one.get("name") not in claims]
        volumes += [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
            for volume, claim in claims.items()
        ]
        if volumes:
            pod["spec"]["volumes"] = volumes
        yield pod


def _job(work: _Workload) -> Iterator[Tree]:
    """As many Pods as have to end well: those of the first tries."""
    if work.spec.get("suspend"):
        return
    said = work.spec.get("completions")
    count = work.count("parallelism") if said is None else work.count("completions")
    if work.count("parallelism") == 0:
        return
    policy = work.template["spec"].get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        raise InvalidArgument(
            work.place,
            f"{work.title}: spec.template.spec.restartPolicy: {policy or 'Always'!r} is none of OnFailure, "
            "Never",
        )
    indexed = work.spec.get("completionMode") == "Indexed"
    if indexed and said is None:
        raise InvalidArgument(
            work.place, f"{work.title}: spec.completions: is needed with completionMode Indexed"
        )
    for index in range(count):
        drawn = admission.suffix(f"{work.uid}/{index}")
        yield (
            _indexed(work, index, drawn)
            if indexed
            else _pod(work, f"{work.name}-{drawn}", labels=_job_labels(work))
        )


def _indexed(work: _Workload, index: int, drawn: str) -> Tree:
    place = "batch.kubernetes.io/job-completion-index"
    pod = _pod(
        work,
        f"{work.name}-{index}-{drawn}",
        labels={**_job_labels(work), place: str(index)},
        annotations={place: str(index)},
    )
    pod["spec"].setdefault("hostname", f"{work.name}-{index}")
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{place}']"}}
    variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
    for group in ("initContainers", "containers"):
        for container in pod["spec"].get(group) or []:
            if isinstance(container, dict):
                own = container.get("env") or []
                if not any(one.get("name") == variable["name"] for one in own if isinstance(one, dict)):
                    container["env"] = [*own, variable]
    return pod


def _job_labels(work: _Workload) -> dict[str, str]:
    return {
        "batch.kubernetes.io/controller-uid": work.uid,
        "batch.kubernetes.io/job-name": work.name,
        "controller-uid": work.uid,
        "job-name": work.name,
    }


@dataclass(frozen=True, slots=True)
class _Kind:
    model: type[Any]
    make: Callable[[_Workload], Iterator[Tree]]
    works: str
    """Fields of its spec that are taken."""


KINDS = {
    ("apps/v1", "Deployment"): _Kind(models.Deployment, _deployment, "replicas selector template"),
    ("apps/v1", "ReplicaSet"): _Kind(models.ReplicaSet, _replica_set, "replicas selector template"),
    ("apps/v1", "DaemonSet"): _Kind(models.DaemonSet, _daemon_set, "selector template"),
    ("apps/v1", "StatefulSet"): _Kind(
        models.StatefulSet,
        _stateful_set,
        "ordinals replicas selector serviceName template volumeClaimTemplates",
    ),
    ("batch/v1", "Job"): _Kind(
        models.Job, _job, "completionMode completions manualSelector selector suspend template"
    ),
    ("v1", "ReplicationController"): _Kind(
        models.ReplicationController, _replica_set, "replicas selector template"
    ),
}


def _checked(tree: Mapping[str, Any], place: str, kind: _Kind) -> _Workload:
    name = str(tree["kind"])
    tree = fields.wanted(tree)
    try:
        parsed = msgspec.convert(fields.numbers_as_text(tree), kind.model)
    except msgspec.ValidationError as error:
        raise InvalidArgument(place, f"{name}: {str(error).replace('`$.', '`')}") from error
    faults = [
        f"{path}: no such field" + (f"; is it {near}?" if near else "")
        for path, near in fields.unknown(tree, parsed)
    ]
    metadata, spec = tree.get("metadata") or {}, tree.get("spec") or {}
    template = copy.deepcopy(spec.get("template") or {})
    if not metadata.get("name"):
        faults.append("metadata.name is needed")
    if not isinstance(template.get("spec"), dict):
        faults.append("spec.template.spec is needed")
    faults += _selector_faults(spec.get("selector"), template, name)
    if faults:
        raise InvalidArgument(place, f"{name} {metadata.get('name', '')}: " + "\n  ".join(faults))
    namespace = metadata.get("namespace") or "default"
    identity = f"{tree['apiVersion']}/{name}/{namespace}/{metadata['name']}"
    uid = metadata.get("uid") or str(uuid.uuid5(uuid.NAMESPACE_URL, identity))
    return _Workload(name, tree["apiVersion"], metadata["name"], namespace, uid, spec, template, place)


def _selector_faults(selector: Any, template: Tree, kind: str) -> Iterator[str]:
    labels = (template.get("metadata") or {}).get("labels") or {}
    if kind == "Job" or (kind == "ReplicationController" and not selector):
        return
    wanted = selector or {}
    if kind != "ReplicationController":
        wanted = wanted.get("matchLabels") or {}
        if not wanted and not (selector or {}).get("matchExpressions"):
            yield "spec.selector: is needed"
    for key, value in wanted.items():
        if labels.get(key) != value:
            yield f"spec.selector: {key}={value} is no label of spec.template"


def _notes(work: _Workload, kind: _Kind) -> Iterator[str]:
    works = kind.works.split()
    ignored = [name for name, value in work.spec.items() if name not in works and value not in (None, {}, [])]
    if work.kind == "Job" and "parallelism" in ignored:
        ignored.remove("parallelism")
        together, whole = work.count("parallelism"), work.spec.get("completions") or 0
        if 0 < together < whole:
            yield f"{work.title}: spec.parallelism {together}: its {whole} Pods run side by side"
    if ignored:
        yield f"{work.title}: no effect here: {', '.join(f'spec.{name}' for name in sorted(ignored))}"


def _pod(
    work: _Workload,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owner: Mapping[str, str] | None = None,
) -> Tree:
    template = copy.deepcopy(work.template)
    said = template.get("metadata") or {}
    reference = {"apiVersion": work.version, "kind": work.kind, "name": work.name, "uid": work.uid}
    if owner is not None:
        reference |= {**owner, "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{work.uid}/{owner['name']}"))}
    metadata = {
        "name": name,
        "namespace": work.namespace,
        "labels": {**(said.get("labels") or {}), **(labels or {})},
        "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
    }
    if said.get("annotations") or annotations:
        metadata["annotations"] = {**(said.get("annotations") or {}), **(annotations or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _digest(template: Tree) -> str:
    """Short, of letters that a label takes, and another one for another template."""
    text = json.dumps(template, sort_keys=True, default=str)
    return admission.suffix(hashlib.sha256(text.encode()).hexdigest(), MAX_HASH)
