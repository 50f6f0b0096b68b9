"""What the API server would refuse in a Pod: names, ranges, combinations, references. Pure.

This file knows the pod as a whole; `validation_containers`, `validation_probes` and `validation_volumes` know
its parts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from podwright.kube.manifests import validation_containers, validation_volumes
from podwright.kube.manifests.admission import IPC_SYSCTLS
from podwright.kube.manifests.checks import (
    MAX_INT32,
    SUBDOMAIN,
    Faults,
    amounts,
    at_least,
    between,
    ids,
    label,
    one_of,
    qualified,
    strings,
)
from podwright.kube.models import Pod, PodSpec, Sysctl
from podwright.kube.requests import resources
from podwright.kube.requests.sandbox import dotted

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("Default", "ClusterFirst", "ClusterFirstWithHostNet", "None")
MAX_NAMESERVERS, MAX_SEARCHES, MAX_SEARCH_TEXT = 3, 32, 2048
MAX_HOSTNAME = 64

_SYSCTL = re.compile(r"(?=.{1,253}$)[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")
_OBJECT_ID = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")


def faults(pod: Pod) -> list[str]:
    """All that is wrong with a Pod whose defaults are filled in: "path: what"."""
    return [f"{path}: {text}" for check in _CHECKS for path, text in check(pod)]


def unenforced(pod: Pod) -> Iterator[str]:
    """Limits that a kubelet keeps by evicting the pod, for which nothing stands here."""
    spec = _spec(pod)
    for index, volume in enumerate(spec.volumes or []):
        if volume.emptyDir is not None and volume.emptyDir.sizeLimit and not volume.emptyDir.medium:
            yield f"spec.volumes[{index}].emptyDir.sizeLimit on disk"
    for place, container in validation_containers.containers(spec):
        if container.resources is not None and "ephemeral-storage" in (container.resources.limits or {}):
            yield f"{place}.resources.limits[ephemeral-storage]"


def _check_names(pod: Pod) -> Faults:
    metadata, spec = pod.metadata, _spec(pod)
    assert metadata is not None
    if not SUBDOMAIN.fullmatch(metadata.name or ""):
        yield "metadata.name", f"{metadata.name!r} is not a DNS name (lower-case letters, digits, - and .)"
    yield from label("metadata.namespace", metadata.namespace or "")
    if not _OBJECT_ID.fullmatch(metadata.uid or ""):
        yield "metadata.uid", f"{metadata.uid!r} must be letters, digits and -"
    yield from strings("metadata.labels", metadata.labels, labels=True)
    yield from strings("metadata.annotations", metadata.annotations, labels=False)
    for name in ("hostname", "subdomain"):
        value = getattr(spec, name)
        if value:
            yield from label(f"spec.{name}", value)
    for name in ("serviceAccountName", "priorityClassName", "runtimeClassName", "nodeName"):
        value = getattr(spec, name)
        if value and not SUBDOMAIN.fullmatch(value):
            yield f"spec.{name}", f"{value!r} is not a DNS name (lower-case letters, digits, - and .)"


def _check_pod(pod: Pod) -> Faults:
    spec = _spec(pod)
    if not spec.containers:
        yield "spec.containers", "at least one container is needed"
    if spec.os is not None and spec.os.name != "linux":
        yield "spec.os.name", f"{spec.os.name!r} cannot run here"
    yield from one_of("spec.restartPolicy", spec.restartPolicy, RESTART_POLICIES)
    yield from one_of("spec.preemptionPolicy", spec.preemptionPolicy, (None, "Never", "PreemptLowerPriority"))
    yield from at_least("spec.terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds, 0)
    yield from between("spec.activeDeadlineSeconds", spec.activeDeadlineSeconds, 1, MAX_INT32)
    if spec.serviceAccount and spec.serviceAccount != spec.serviceAccountName:
        yield "spec.serviceAccount", f"{spec.serviceAccount!r} is not serviceAccountName"
    if spec.hostPID and spec.shareProcessNamespace:
        yield "spec.shareProcessNamespace", "cannot be combined with hostPID"
    if spec.hostUsers is False:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if getattr(spec, name):
                yield f"spec.{name}", "cannot be combined with hostUsers: false"
    if spec.hostnameOverride is not None:
        for name in ("hostNetwork", "setHostnameAsFQDN"):
            if getattr(spec, name):
                yield "spec.hostnameOverride", f"cannot be combined with {name}"
        if len(spec.hostnameOverride) > MAX_HOSTNAME or not SUBDOMAIN.fullmatch(spec.hostnameOverride):
            yield "spec.hostnameOverride", f"{spec.hostnameOverride!r} is no DNS name of {MAX_HOSTNAME} bytes"
    for index, gate in enumerate(spec.readinessGates or []):
        yield from qualified(f"spec.readinessGates[{index}].conditionType", gate.conditionType)
    sides: dict[str, dict[str, object] | None] = {
        side: getattr(spec.resources, side, None) for side in ("limits", "requests")
    }
    yield from amounts("spec.resources", sides, (*resources.OF_PODS, resources.HUGE_PAGES))
    yield from validation_containers.check_huge_pages("spec.resources", sides)
    overhead = dict(spec.overhead or {})
    yield from amounts("spec.overhead", {"limits": overhead}, (*resources.OF_PODS, "ephemeral-storage"))


def _check_pod_resources(pod: Pod) -> Faults:
    """The containers must find room in what the pod as a whole has."""
    spec = _spec(pod)
    if list(amounts_of_containers(spec)) or not resources.has_pod_level(spec):
        return
    for name in (
        *resources.OF_PODS,
        *(one for one in _pod_names(spec) if one.startswith(resources.HUGE_PAGES)),
    ):
        whole = resources.amount(spec, "requests", name)
        if whole is not None and resources.containers_amount(spec, "requests", name) > whole:
            yield f"spec.resources.requests[{name}]", "is less than the containers request together"
        limit = resources.amount(spec, "limits", name)
        for index, container in enumerate(spec.containers):
            place = f"spec.containers[{index}]"
            own = resources.amount(container, "limits", name)
            if limit is not None and own is not None and own > limit:
                yield f"{place}.resources.limits[{name}]", "is more than the pod's limit"


def _check_network(pod: Pod) -> Faults:
    spec = _spec(pod)
    yield from one_of("spec.dnsPolicy", spec.dnsPolicy, DNS_POLICIES)
    own = spec.dnsConfig
    servers = (own.nameservers if own is not None else None) or []
    if spec.dnsPolicy == "None" and not servers:
        yield "spec.dnsConfig.nameservers", "dnsPolicy None needs at least one"
    if len(servers) > MAX_NAMESERVERS:
        yield "spec.dnsConfig.nameservers", f"has more than {MAX_NAMESERVERS}"
    for index, server in enumerate(servers):
        yield from _address(f"spec.dnsConfig.nameservers[{index}]", server)
    searches = (own.searches if own is not None else None) or []
    if len(searches) > MAX_SEARCHES or len(" ".join(searches)) > MAX_SEARCH_TEXT:
        yield "spec.dnsConfig.searches", f"are more than {MAX_SEARCHES}, or {MAX_SEARCH_TEXT} characters"
    for index, search in enumerate(searches):
        # Some resolvers know names with underscores.
        if search != "." and not SUBDOMAIN.fullmatch(search.removesuffix(".").replace("_", "0")):
            yield f"spec.dnsConfig.searches[{index}]", f"{search!r} is not a DNS name"
    for index, option in enumerate((own.options if own is not None else None) or []):
        if not option.name:
            yield f"spec.dnsConfig.options[{index}].name", "is needed"
    for index, alias in enumerate(spec.hostAliases or []):
        yield from _address(f"spec.hostAliases[{index}].ip", alias.ip)
        for at, name in enumerate(alias.hostnames or []):
            if not SUBDOMAIN.fullmatch(name):
                yield f"spec.hostAliases[{index}].hostnames[{at}]", f"{name!r} is not a DNS name"


def _check_security(pod: Pod) -> Faults:
    spec = _spec(pod)
    context = spec.securityContext
    if context is None:
        return
    where = "spec.securityContext"
    yield from ids(where, context, "runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
    yield from one_of(
        f"{where}.supplementalGroupsPolicy", context.supplementalGroupsPolicy, (None, "Merge", "Strict")
    )
    yield from one_of(
        f"{where}.fsGroupChangePolicy", context.fsGroupChangePolicy, (None, "Always", "OnRootMismatch")
    )
    yield from one_of(f"{where}.seLinuxChangePolicy", context.seLinuxChangePolicy, (None, "Recursive"))
    yield from validation_containers.check_profiles(where, context)
    yield from _check_sysctls(spec, context.sysctls or [], f"{where}.sysctls")


def _check_sysctls(spec: PodSpec, sysctls: list[Sysctl], place: str) -> Faults:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        if not _SYSCTL.fullmatch(sysctl.name):
            yield f"{place}[{index}].name", f"{sysctl.name!r} is not the name of a sysctl"
        if sysctl.name in seen:
            yield f"{place}[{index}].name", f"{sysctl.name!r} comes twice"
        seen.add(sysctl.name)
        name = dotted(sysctl.name)
        if spec.hostNetwork and name.startswith("net."):
            yield f"{place}[{index}].name", f"{sysctl.name!r} cannot be combined with hostNetwork"
        if spec.hostIPC and name.startswith(IPC_SYSCTLS):
            yield f"{place}[{index}].name", f"{sysctl.name!r} cannot be combined with hostIPC"


def _check_parts(pod: Pod) -> Faults:
    spec = _spec(pod)
    yield from validation_containers.check(pod)
    yield from validation_volumes.check(spec)


def _address(path: str, value: str) -> Faults:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        yield path, f"{value!r} is not an IP address"


def amounts_of_containers(spec: PodSpec) -> Faults:
    for place, container in validation_containers.containers(spec):
        yield from validation_containers.check_resources(container, place)
    sides: dict[str, dict[str, object] | None] = {
        side: getattr(spec.resources, side, None) for side in ("limits", "requests")
    }
    yield from amounts("spec.resources", sides, (*resources.OF_PODS, resources.HUGE_PAGES))


def _pod_names(spec: PodSpec) -> set[str]:
    sides = (getattr(spec.resources, side, None) or {} for side in ("limits", "requests"))
    return {name for side in sides for name in side}


def _spec(pod: Pod) -> PodSpec:
    assert pod.spec is not None
    return pod.spec


_CHECKS: tuple[Callable[[Pod], Faults], ...] = (
    _check_names,
    _check_pod,
    _check_network,
    _check_security,
    _check_parts,
    _check_pod_resources,
)
