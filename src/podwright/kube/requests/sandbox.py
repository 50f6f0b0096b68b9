"""Pod → PodSandboxConfig: what the kubelet says in RunPodSandbox for the same manifest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from podwright.kube.requests import dns, resources, security
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import ContainerPort
    from podwright.kube.node import Node, PodFacts

SEEN, SOURCE, HASH = (f"kubernetes.io/config.{one}" for one in ("seen", "source", "hash"))
"""Annotations that say where and when a pod came to be known."""


def sandbox_config(
    manifest: Manifest, node: Node, facts: PodFacts, log_directory: str, attempt: int = 0
) -> cri.PodSandboxConfig:
    """Raises SandboxConfigError where the pod's host name cannot be had."""
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=manifest.name, namespace=manifest.namespace, uid=manifest.uid, attempt=attempt
        ),
        hostname="" if manifest.spec.hostNetwork else dns.hostname(manifest, node),
        log_directory=log_directory,
        dns_config=dns.resolver(manifest, node),
        port_mappings=[_port(port) for one in manifest.containers for port in one.ports or []],
        labels={**strings(manifest, "labels"), **identity(manifest)},
        annotations=pod_annotations(manifest, facts),
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent(manifest, node),
            security_context=security.of_sandbox(manifest, facts),
            resources=resources.sandbox_resources(manifest),
            overhead=resources.sandbox_overhead(manifest),
        ),
    )
    context = manifest.spec.securityContext
    for sysctl in (context.sysctls if context is not None else None) or []:
        config.linux.sysctls[dotted(sysctl.name)] = sysctl.value
    return config


def runtime_handler(manifest: Manifest) -> str:
    """The handler of the pod's runtime class; a class that nobody described is a handler's name itself."""
    name = manifest.spec.runtimeClassName or ""
    described = manifest.objects.runtime_classes.get(name)
    return described.handler if described is not None else name


def pod_annotations(manifest: Manifest, facts: PodFacts) -> dict[str, str]:
    """The pod's own, and where and when it came to be known; image requests carry them too."""
    found = {**strings(manifest, "annotations"), SEEN: facts.seen_at, SOURCE: facts.source}
    if facts.source == "file":
        found.setdefault(HASH, manifest.uid)
    return found


def identity(manifest: Manifest) -> dict[str, str]:
    return {
        "io.kubernetes.pod.name": manifest.name,
        "io.kubernetes.pod.namespace": manifest.namespace,
        "io.kubernetes.pod.uid": manifest.uid,
    }


def strings(manifest: Manifest, name: str) -> Mapping[str, str]:
    """The labels or annotations of the pod's metadata."""
    tree: Mapping[str, str] = getattr(manifest.pod.metadata, name) or {}
    return tree


def dotted(sysctl: str) -> str:
    """The name as /proc/sys would have it with dots: where the first separator is a slash, dots are part of
    names and change places with the slashes; see sysctl(8)."""
    if next((one for one in sysctl if one in "./"), ".") == ".":
        return sysctl
    return sysctl.translate(str.maketrans("./", "/."))


def cgroup_parent(manifest: Manifest, node: Node) -> str:
    """The pod's own cgroup, below that of its quality of service; "" where the runtime chooses."""
    if not node.make_cgroups:
        return ""
    return cgroup_path(node, resources.qos_class(manifest.spec), manifest.uid)


def cgroup_path(node: Node, quality: str, uid: str) -> str:
    """Where the cgroup of a pod of that quality of service is."""
    names = ["kubepods", *([] if quality == "Guaranteed" else [quality.lower()]), f"pod{uid}"]
    if node.cgroup_driver == "cgroupfs":
        return "/".join([node.cgroup_root.rstrip("/"), *names])
    # systemd reads the place of a slice from its name, so a dash may not be in one of its parts.
    parts = [one.replace("-", "_") for one in [*node.cgroup_root.strip("/").split("/"), *names] if one]
    slices = ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))]
    return "/" + "/".join(slices)


def _port(port: ContainerPort) -> cri.PortMapping:
    return cri.PortMapping(
        protocol=port.protocol or "TCP",
        container_port=port.containerPort,
        host_port=port.hostPort or 0,
        host_ip=port.hostIP or "",
    )
