"""What may change of a pod that runs: images, resources, ephemeral containers, labels and annotations, the
deadline and tolerations, as the API server has it. Everything else needs another pod. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from podwright.errors import InvalidArgument
from podwright.kube.manifests import defaults, validation
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import EphemeralContainer, PodSpec, ResourceRequirements
from podwright.kube.requests.resources import qos_class


def update(old: Manifest, new: Manifest) -> Manifest:
    """`new` in the place of `old`, with its identity. InvalidArgument names what may not change."""
    pod = copy.deepcopy(new.pod)
    assert pod.metadata is not None and old.pod.metadata is not None
    for name in ("name", "namespace"):
        if getattr(pod.metadata, name) != getattr(old.pod.metadata, name):
            raise InvalidArgument(f"metadata.{name}", "a pod keeps its name: another one is another pod")
    pod.metadata.uid = old.uid
    return _checked(old, replace(new, pod=pod, static=old.static, bindings=old.bindings))


def with_values(
    old: Manifest,
    images: Mapping[str, str],
    resources: Mapping[str, Mapping[str, Any] | ResourceRequirements],
) -> Manifest:
    """`old` with other images and resources of containers, by their names; resources are
    `{"requests": …, "limits": …}`."""
    pod = copy.deepcopy(old.pod)
    changed = replace(old, pod=pod)
    for name in {**images, **resources}:
        container = changed.container(name)
        if container is None:
            raise InvalidArgument("container", f"{name!r} is none of the pod's")
        if name in images:
            container.image = images[name]
        if name in resources:
            container.resources = _resources(name, resources[name])
    return _checked(old, changed)


def with_ephemeral(old: Manifest, container: EphemeralContainer) -> Manifest:
    """`old` with one more ephemeral container. InvalidArgument names what is wrong with it."""
    pod = copy.deepcopy(old.pod)
    assert pod.spec is not None
    pod.spec.ephemeralContainers = [*(pod.spec.ephemeralContainers or []), container]
    return _checked(old, replace(old, pod=pod))


def _resources(name: str, value: Mapping[str, Any] | ResourceRequirements) -> ResourceRequirements:
    if isinstance(value, ResourceRequirements):
        return copy.deepcopy(value)
    if unknown := sorted(set(value) - {"requests", "limits"}):
        raise InvalidArgument(f"{name}.resources", f"{unknown[0]!r} is neither requests nor limits")
    try:
        return msgspec.convert(
            {kind: {key: str(one) for key, one in amounts.items()} for kind, amounts in value.items()},
            ResourceRequirements,
        )
    except (msgspec.ValidationError, AttributeError) as error:
        raise InvalidArgument(f"{name}.resources", f"are no quantities by name: {error}") from error


def _checked(old: Manifest, new: Manifest) -> Manifest:
    defaults.fill(new.pod)
    if faults := validation.faults(new.pod):
        raise InvalidArgument("", "\n  ".join(faults))
    if changed := list(_forbidden("spec", _fixed(old.spec), _fixed(new.spec))):
        raise InvalidArgument(", ".join(changed), "cannot change while the pod runs")
    kept = {one.name: one for one in new.ephemeral_containers}
    for one in old.ephemeral_containers:
        if kept.get(one.name) != one:
            raise InvalidArgument(
                f"spec.ephemeralContainers{{{one.name}}}", "an ephemeral container stays as it was made"
            )
    if qos_class(old.spec) != qos_class(new.spec):
        raise InvalidArgument(
            "spec.containers",
            "the pod's quality of service cannot change with the resources of its containers",
        )
    return new


def _fixed(spec: PodSpec) -> Any:
    """What must be the same."""
    tree = msgspec.to_builtins(spec)
    for name in ("ephemeralContainers", "activeDeadlineSeconds", "tolerations", "resources"):
        tree.pop(name, None)
    for group in ("initContainers", "containers"):
        for container in tree.get(group) or []:
            for name in ("image", "imagePullPolicy", "resources"):
                container.pop(name, None)
    return tree


def _forbidden(path: str, old: Any, new: Any) -> Iterator[str]:
    """The fields that differ, as deep as they can be told."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _forbidden(f"{path}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _forbidden(f"{path}[{index}]", before, after)
    elif old != new:
        yield path
