"""What becomes of a Kubernetes object by its kind: it is a Pod, runs as Pods, is found by them, or no use."""

from __future__ import annotations

import difflib
from typing import Any

from podwright.errors import InvalidArgument
from podwright.kube.manifests import objects, workloads

_WITHOUT_EFFECT = {
    "v1": (
        "Namespace", "PersistentVolumeClaim", "PersistentVolume", "Endpoints", "LimitRange", "ResourceQuota",
        "Event", "Node", "PodTemplate",
    ),
    "apps/v1": ("ControllerRevision",),
}  # fmt: skip
"""Kinds of the oldest groups that are no mistake; those of groups with a domain are nobody's mistake."""
_NEVER = {
    ("batch/v1", "CronJob"): "a CronJob starts Jobs by the clock, and nothing here does: run what is below "
    "spec.jobTemplate as a Job of batch/v1",
}


def role(tree: Any, place: str) -> str:
    """ "pod", "workload" or "object"; or else words that say that it has no effect.

    InvalidArgument for what is no Kubernetes object, for kinds that are misspelled or of another version, and
    for those that would run something and cannot.
    """
    if not isinstance(tree, dict):
        raise InvalidArgument(place, "is not a Kubernetes object")
    kind, version = tree.get("kind"), tree.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str) or not kind or not version:
        raise InvalidArgument(place, "is not a Kubernetes object: it has no kind and apiVersion")
    metadata = tree.get("metadata")
    if not isinstance(metadata, dict | None):
        raise InvalidArgument(place, f"{kind}: metadata: Expected `object | null`, got {metadata!r:.40}")
    key, name = (version, kind), (metadata or {}).get("name", "")
    if key == ("v1", "Pod"):
        return "pod"
    if key in workloads.KINDS:
        return "workload"
    if key in objects.KINDS:
        return "object"
    if key in _NEVER:
        raise InvalidArgument(place, _NEVER[key])
    known = [("v1", "Pod"), *workloads.KINDS, *objects.KINDS, *_NEVER]
    versions = sorted(each for each, name in known if name == kind)
    if versions:
        raise InvalidArgument(
            place, f"kind {kind!r} of apiVersion {version!r} is not supported: {versions[0]} is"
        )
    if kind in _WITHOUT_EFFECT.get(version, ()) or "." in version.partition("/")[0]:
        return f"{kind} {name} has no effect here"
    near = difflib.get_close_matches(kind, [name for _, name in known], n=1, cutoff=0.75)
    hint = f"; is it {near[0]}?" if near else ""
    if version.partition("/")[0] in ("autoscaling", "policy", "extensions") and not near:
        return f"{kind} {name} has no effect here"
    raise InvalidArgument(place, f"kind {kind!r} of apiVersion {version!r} is not supported{hint}")
