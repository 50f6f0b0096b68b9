"""A container's environment: values, references to fields and amounts, $(NAME) expansion. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from podwright.errors import InvalidArgument
from podwright.kube import old_resources as resources
from podwright.kube.models import Container, EnvVar, Pod, ResourceFieldSelector

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_AMOUNT = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage)")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a field reference can name that is not in the manifest."""

    node_name: str = ""
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    cpus: int = 1
    memory: int = 0
    """Bytes of the host: the limit of a container that has none."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """`text` with $(NAME) replaced by the variable; $$ stands for $; an unknown name stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else env.get(name, match[0])

    return _REFERENCE.sub(value, text)


def environment(pod: Pod, container: Container, facts: Facts) -> dict[str, str]:
    """The variables of `container` in the order of the manifest.

    A value may refer to variables above it. A name that comes again takes its last value and keeps its first
    place. Raises InvalidArgument naming the variable when a reference leads nowhere.
    """
    env: dict[str, str] = {}
    for index, variable in enumerate(container.env or []):
        place = f"containers[{container.name}].env[{index}]"
        if variable.valueFrom is None:
            env[variable.name] = expand(variable.value or "", env)
        else:
            referred = _referred(pod, container, variable, facts, place)
            if referred is not None:
                env[variable.name] = referred
    return env


def check_references(pod: Pod, container: Container) -> None:
    """Raise InvalidArgument for a reference that no facts could ever satisfy."""
    environment(pod, container, Facts(host_ips=("",), pod_ips=("",)))


def _referred(pod: Pod, container: Container, variable: EnvVar, facts: Facts, place: str) -> str | None:
    source = variable.valueFrom
    assert source is not None
    if source.fieldRef is not None:
        return _field(pod, source.fieldRef.fieldPath, facts, f"{place}.valueFrom.fieldRef.fieldPath")
    if source.resourceFieldRef is not None:
        return _amount(pod, container, source.resourceFieldRef, facts, f"{place}.valueFrom.resourceFieldRef")
    return None  # an optional key of an object that is not there: validated by manifest


def _field(pod: Pod, path: str, facts: Facts, place: str) -> str:
    metadata, spec = pod.metadata, pod.spec
    assert metadata is not None and spec is not None
    if match := _SUBSCRIPT.fullmatch(path):
        tree: Mapping[str, str] = getattr(metadata, match[1]) or {}
        return tree.get(match[2], "")
    values = {
        "metadata.name": metadata.name or "",
        "metadata.namespace": metadata.namespace or "",
        "metadata.uid": metadata.uid or "",
        "spec.nodeName": spec.nodeName or facts.node_name,
        "spec.serviceAccountName": spec.serviceAccountName or "default",
        "status.hostIP": facts.host_ips[0] if facts.host_ips else "",
        "status.hostIPs": ",".join(facts.host_ips),
        "status.podIP": facts.pod_ips[0] if facts.pod_ips else "",
        "status.podIPs": ",".join(facts.pod_ips),
    }
    if path not in values:
        known = ", ".join([*values, "metadata.labels['KEY']", "metadata.annotations['KEY']"])
        raise InvalidArgument(place, f"{path!r} cannot be referred to; these can: {known}")
    return values[path]


def _amount(pod: Pod, container: Container, selector: ResourceFieldSelector, facts: Facts, place: str) -> str:
    assert pod.spec is not None
    match = _AMOUNT.fullmatch(selector.resource)
    if match is None:
        raise InvalidArgument(f"{place}.resource", f"{selector.resource!r} cannot be referred to")
    every = {one.name: one for one in [*(pod.spec.initContainers or []), *pod.spec.containers]}
    owner = every.get(selector.containerName or container.name)
    if owner is None:
        raise InvalidArgument(f"{place}.containerName", f"there is no container {selector.containerName!r}")
    side, resource = match[1], match[2]
    value = resources.amount(owner, side, resource)
    if value is None and side == "limits":
        capacity = {"cpu": facts.cpus, "memory": facts.memory}
        if resource not in capacity:
            raise InvalidArgument(f"{place}.resource", f"container {owner.name!r} has no such limit")
        value = Fraction(capacity[resource])
    divisor = resources.parse_quantity(selector.divisor or "1", f"{place}.divisor") or Fraction(1)
    return str(math.ceil((value or Fraction(0)) / divisor))
