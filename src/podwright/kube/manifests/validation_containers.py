"""What the API server would refuse in the containers of a Pod. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from podwright.errors import InvalidArgument
from podwright.kube.manifests import validation_probes
from podwright.kube.manifests.checks import (
    MAX_INT32,
    PORT_NAME,
    SUBDOMAIN,
    Faults,
    amounts,
    between,
    ids,
    key,
    label,
    one_of,
    port,
    relative,
)
from podwright.kube.models import AnyContainer, Container, EnvVar, EnvVarSource, Pod, PodSpec
from podwright.kube.requests import env, resources, signals

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("TCP", "UDP", "SCTP")
RULE_OPERATORS = ("In", "NotIn")
MAX_RULES, MAX_EXIT_CODES = 20, 255

MAX_PROFILE = 4095
"""Characters of the name of an AppArmor profile."""
CPU_DIVISORS = ("1", "1m")
DIVISORS = ("1", *(f"1{unit}" for unit in "kMGTPE"), *(f"1{unit}i" for unit in "KMGTPE"))

_ENV_NAME = re.compile(r"[ -<>-~]+")
_SIGNALS = frozenset(signals.BY_NAME)


def containers(spec: PodSpec) -> Iterator[tuple[str, AnyContainer]]:
    """All of them with their places: "spec.containers[0]"."""
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(getattr(spec, group) or []):
            yield f"spec.{group}[{index}]", container


def check(pod: Pod) -> Faults:
    spec = pod.spec
    assert spec is not None
    seen: set[str] = set()
    together: set[tuple[int, str, str]] = set()
    initial = [id(one) for one in spec.initContainers or []]
    for place, container in containers(spec):
        # Init containers run by themselves: they may have a port that another has later.
        host_ports = set() if id(container) in initial else together
        yield from label(f"{place}.name", container.name)
        if container.name in seen:
            yield f"{place}.name", f"{container.name!r} is taken by another container"
        seen.add(container.name)
        if not container.image or container.image != container.image.strip():
            yield f"{place}.image", "an image reference is needed"
        yield from one_of(f"{place}.imagePullPolicy", container.imagePullPolicy, PULL_POLICIES)
        yield from one_of(
            f"{place}.terminationMessagePolicy",
            container.terminationMessagePolicy,
            ("File", "FallbackToLogsOnError"),
        )
        yield from _check_ports(spec, container, place, host_ports)
        yield from _check_env(pod, container, place)
        yield from check_resources(container, place)
        yield from _check_security(spec, container, place)
        yield from _check_restarts(spec, container, place)
        yield from _check_signal(spec, container, place)
        if isinstance(container, Container):
            yield from validation_probes.check(spec, container, place)
    yield from _check_targets(spec)


def check_resources(container: AnyContainer, place: str) -> Faults:
    sides: dict[str, dict[str, object] | None] = {
        side: getattr(container.resources, side, None) for side in ("limits", "requests")
    }
    where = f"{place}.resources"
    yield from amounts(where, sides, (*resources.OF_PODS, resources.HUGE_PAGES, "ephemeral-storage"))
    yield from check_huge_pages(where, sides)


def check_huge_pages(place: str, sides: dict[str, dict[str, object] | None]) -> Faults:
    """`limits` and `requests`, of a container or of the pod as a whole."""
    names = {name for side in sides.values() for name in side or {}}
    if any(name.startswith(resources.HUGE_PAGES) for name in names) and not names & set(resources.OF_PODS):
        yield place, "huge pages need cpu or memory beside them"


def check_profiles(place: str, context: Any) -> Faults:
    """Seccomp and AppArmor, of the pod or a container."""
    for name in ("seccompProfile", "appArmorProfile"):
        profile = getattr(context, name)
        if profile is None:
            continue
        kinds = ("RuntimeDefault", "Unconfined", "Localhost")
        yield from one_of(f"{place}.{name}.type", profile.type, kinds)
        if (profile.type == "Localhost") != bool(profile.localhostProfile):
            yield f"{place}.{name}.localhostProfile", "belongs to the type Localhost, and only to it"
        elif profile.localhostProfile and name == "seccompProfile":
            yield from relative(f"{place}.{name}.localhostProfile", profile.localhostProfile)
        elif profile.localhostProfile and (
            profile.localhostProfile != profile.localhostProfile.strip()
            or len(profile.localhostProfile) > MAX_PROFILE
        ):
            text = f"{profile.localhostProfile[:40]!r} begins or ends with a space, or is too long"
            yield f"{place}.{name}.localhostProfile", text


def _check_ports(
    spec: PodSpec, container: AnyContainer, place: str, taken: set[tuple[int, str, str]]
) -> Faults:
    names: set[str] = set()
    for index, one in enumerate(container.ports or []):
        where = f"{place}.ports[{index}]"
        yield from one_of(f"{where}.protocol", one.protocol, PROTOCOLS)
        yield from port(f"{where}.containerPort", one.containerPort)
        if one.name:
            if not PORT_NAME.fullmatch(one.name):
                yield f"{where}.name", f"{one.name!r} is no name of a port: 15 letters, digits and - at most"
            if one.name in names:
                yield f"{where}.name", f"{one.name!r} is taken by another port"
            names.add(one.name)
        if one.hostIP:
            try:
                ipaddress.ip_address(one.hostIP)
            except ValueError:
                yield f"{where}.hostIP", f"{one.hostIP!r} is not an IP address"
        if not one.hostPort:
            continue
        yield from port(f"{where}.hostPort", one.hostPort)
        # Of init containers nobody asks: their ports are not mapped.
        if spec.hostNetwork and one.hostPort != one.containerPort and container in spec.containers:
            yield f"{where}.hostPort", "must be containerPort with hostNetwork"
        key = (one.hostPort, one.protocol or "", one.hostIP or "")
        if key in taken:
            yield f"{where}.hostPort", f"{one.hostPort} is taken by another port of the pod"
        taken.add(key)


def _check_env(pod: Pod, container: AnyContainer, place: str) -> Faults:
    for index, variable in enumerate(container.env or []):
        where = f"{place}.env[{index}]"
        if not _ENV_NAME.fullmatch(variable.name):
            yield f"{where}.name", f"{variable.name!r} is not a name of printable ASCII without ="
        if variable.valueFrom is not None:
            yield from _check_value_source(pod, variable, variable.valueFrom, f"{where}.valueFrom")
    for index, source in enumerate(container.envFrom or []):
        where = f"{place}.envFrom[{index}]"
        said = [one for one in (source.configMapRef, source.secretRef) if one is not None]
        if len(said) != 1:
            yield where, "one of configMapRef and secretRef is needed"
        elif not said[0].name:
            yield where, "the name of the object is needed"
        elif not SUBDOMAIN.fullmatch(said[0].name):
            yield where, f"{said[0].name!r} is no name of an object"
        if source.prefix and not _ENV_NAME.fullmatch(source.prefix):
            yield f"{where}.prefix", f"{source.prefix!r} is not of printable ASCII without ="


def _check_value_source(pod: Pod, variable: EnvVar, source: EnvVarSource, place: str) -> Faults:
    if variable.value:
        yield place, "cannot be combined with value"
    said = [name for name in source.__struct_fields__ if getattr(source, name) is not None]
    if len(said) != 1:
        yield place, f"one source is needed, not {len(said)}"
    if source.fieldRef is not None:
        yield from check_version(source.fieldRef, f"{place}.fieldRef")
    if source.fieldRef is not None and not env.is_field(source.fieldRef.fieldPath):
        known = ", ".join([*env.FIELDS, "metadata.labels['KEY']", "metadata.annotations['KEY']"])
        text = f"{source.fieldRef.fieldPath!r} cannot be referred to; these can: {known}"
        yield f"{place}.fieldRef.fieldPath", text
    if source.resourceFieldRef is not None:
        yield from check_resource_field(pod.spec, source.resourceFieldRef, f"{place}.resourceFieldRef")
    for name in ("configMapKeyRef", "secretKeyRef"):
        reference = getattr(source, name)
        if reference is None:
            continue
        if not (reference.name and reference.key):
            yield f"{place}.{name}", "name and key are needed"
            continue
        if not SUBDOMAIN.fullmatch(reference.name):
            yield f"{place}.{name}.name", f"{reference.name!r} is no name of an object"
        yield from key(f"{place}.{name}.key", reference.key)
    if (file := source.fileKeyRef) is not None:
        if not file.path or ".." in file.path.split("/"):
            yield f"{place}.fileKeyRef.path", f"{file.path!r} must be a path without .."
        if not _ENV_NAME.fullmatch(file.key):
            yield f"{place}.fileKeyRef.key", f"{file.key!r} is not a name of printable ASCII without ="
        volumes = (pod.spec.volumes if pod.spec is not None else None) or []
        volume = next((one for one in volumes if one.name == file.volumeName), None)
        if volume is None:
            yield f"{place}.fileKeyRef.volumeName", f"there is no volume {file.volumeName!r}"
        elif volume.emptyDir is None:
            yield f"{place}.fileKeyRef.volumeName", f"volume {file.volumeName!r} is no emptyDir"


def check_resource_field(spec: PodSpec | None, selector: Any, place: str) -> Faults:
    """A resourceFieldRef, of a variable or of a file."""
    assert spec is not None
    if not env.is_amount(selector.resource):
        yield f"{place}.resource", f"{selector.resource!r} cannot be referred to"
    name = selector.containerName
    if name and not any(one.name == name for _, one in containers(spec)):
        yield f"{place}.containerName", f"there is no container {name!r}"
    allowed = CPU_DIVISORS if selector.resource.endswith(".cpu") else DIVISORS
    try:
        divisor = resources.parse_quantity(selector.divisor or "0")
    except InvalidArgument as error:
        yield f"{place}.divisor", str(error)
    else:
        if divisor and divisor not in map(resources.parse_quantity, allowed):
            yield f"{place}.divisor", f"{selector.divisor!r} is none of {', '.join(allowed)}"


def check_version(selector: Any, place: str) -> Faults:
    """A fieldRef, of a variable or of a file."""
    if selector.apiVersion not in (None, "", "v1"):
        yield f"{place}.apiVersion", f"{selector.apiVersion!r} is not v1"


def _check_security(spec: PodSpec, container: AnyContainer, place: str) -> Faults:
    context = container.securityContext
    if context is None:
        return
    where = f"{place}.securityContext"
    yield from ids(where, context, "runAsUser", "runAsGroup")
    yield from one_of(f"{where}.procMount", context.procMount, (None, "Default", "Unmasked"))
    if context.procMount == "Unmasked" and spec.hostUsers is not False:
        yield f"{where}.procMount", "Unmasked needs hostUsers: false"
    # SYS_ADMIN by its short name the API server lets through.
    added = (context.capabilities and context.capabilities.add) or []
    if context.allowPrivilegeEscalation is False and (context.privileged or "CAP_SYS_ADMIN" in added):
        yield f"{where}.allowPrivilegeEscalation", "false cannot be combined with privileged or CAP_SYS_ADMIN"
    yield from check_profiles(where, context)


def _check_restarts(spec: PodSpec, container: AnyContainer, place: str) -> Faults:
    policy, rules = container.restartPolicy, container.restartPolicyRules or []
    yield from one_of(f"{place}.restartPolicy", policy, (None, "Always", "OnFailure", "Never"))
    if rules and policy is None:
        yield f"{place}.restartPolicy", "is needed where there are restartPolicyRules"
    if len(rules) > MAX_RULES:
        yield f"{place}.restartPolicyRules", f"are more than {MAX_RULES}"
    for index, rule in enumerate(rules):
        where = f"{place}.restartPolicyRules[{index}]"
        yield from one_of(f"{where}.action", rule.action, ("Restart", "RestartAllContainers"))
        if rule.exitCodes is None:
            yield f"{where}.exitCodes", "are needed"
            continue
        yield from one_of(f"{where}.exitCodes.operator", rule.exitCodes.operator, RULE_OPERATORS)
        if len(rule.exitCodes.values or []) > MAX_EXIT_CODES:
            yield f"{where}.exitCodes.values", f"are more than {MAX_EXIT_CODES}"
        for at, code in enumerate(rule.exitCodes.values or []):
            yield from between(f"{where}.exitCodes.values[{at}]", code, -MAX_INT32 - 1, MAX_INT32)
    seen: set[str] = set()
    once = container in (spec.initContainers or []) and policy != "Always"
    for index, one in enumerate(container.resizePolicy or []):
        where = f"{place}.resizePolicy[{index}]"
        yield from one_of(f"{where}.resourceName", one.resourceName, resources.OF_PODS)
        yield from one_of(f"{where}.restartPolicy", one.restartPolicy, ("NotRequired", "RestartContainer"))
        if one.resourceName in seen:
            yield f"{where}.resourceName", f"{one.resourceName} comes twice"
        seen.add(one.resourceName)
        if one.restartPolicy == "RestartContainer" and spec.restartPolicy == "Never":
            yield f"{where}.restartPolicy", "RestartContainer cannot be in a pod that never restarts"
        elif one.restartPolicy == "RestartContainer" and once:
            yield f"{where}.restartPolicy", "RestartContainer cannot be of an init container that ends"


def _check_signal(spec: PodSpec, container: AnyContainer, place: str) -> Faults:
    name = container.lifecycle and container.lifecycle.stopSignal
    if name and name not in _SIGNALS:
        yield f"{place}.lifecycle.stopSignal", f"{name!r} is not a signal"
    if name and spec.os is None:
        yield f"{place}.lifecycle.stopSignal", "needs spec.os.name, for signals differ"


def _check_targets(spec: PodSpec) -> Faults:
    names = {one.name for one in [*(spec.initContainers or []), *spec.containers]}
    for index, container in enumerate(spec.ephemeralContainers or []):
        target = container.targetContainerName
        if target and target not in names:
            where = f"spec.ephemeralContainers[{index}].targetContainerName"
            yield where, f"there is no container {target!r}"
        for at, mount in enumerate(container.volumeMounts or []):
            if mount.subPath or mount.subPathExpr:
                where = f"spec.ephemeralContainers[{index}].volumeMounts[{at}].subPath"
                yield where, "an ephemeral container cannot have it"
